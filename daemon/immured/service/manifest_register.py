"""Which manifests were approved, and which revoked: a fold over the ledger's entries. Sans-I/O.

The files beside it are looked at before every use (`manifest_store`); what they are, and whose signatures counted when
one was loaded, the ledger alone says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from immured.identity import folded
from immured.ledger import entry_types
from immured.manifest.pipeline import Signer

__all__ = ["Approved", "Register", "Revoked"]

LEAST_COUNTED: Final = 2048
"""Bytes that one counts as at least: what is known of it takes room too."""
_KINDS: Final = frozenset({entry_types.MANIFEST_LOADED, entry_types.MANIFEST_REVOKED})


@dataclass(frozen=True, slots=True)
class Approved:
    """A manifest as its last `manifest.loaded` has it. `signatures`: the digest of the signature file, as `digest` is
    the manifest's; `key`, `key_name`: who loaded it; `baseline`: with what it was compared, `severity`: of what it
    added."""

    digest: str
    name: str
    class_: str
    tenants: tuple[str, ...]
    personas: tuple[str, ...]
    bytes: int
    signatures: str
    signers: tuple[Signer, ...]
    seq: int
    at_ms: int
    key: str
    key_name: str
    baseline: Mapping[str, object] | None = None
    severity: str | None = None

    def is_for(self, tenant: str) -> bool:
        """Whether that tenant may use it."""
        return not self.tenants or tenant in self.tenants


@dataclass(frozen=True, slots=True)
class Revoked:
    """By whom, when and why it is never used again."""

    seq: int
    reason: str
    at_ms: int
    key: str
    key_name: str

    def to_map(self) -> dict[str, object]:
        """As replies show it."""
        return {
            "seq": self.seq,
            "reason": self.reason,
            "at_ms": self.at_ms,
            "key": self.key,
            "key_name": self.key_name,
        }


class Register:
    """All of them, by digest; the last approved stands last."""

    def __init__(self) -> None:
        self._approved: dict[str, Approved] = {}
        self._revoked: dict[str, Revoked] = {}
        self.reasons: dict[str, str] = {}
        """Why each digest was revoked."""

    def __iter__(self) -> Iterator[Approved]:
        return iter(self._approved.values())

    def latest(self) -> Iterator[Approved]:
        """The last approved first."""
        return reversed(self._approved.values())

    def find(self, digest: str) -> Approved | None:
        """As it was loaded last, revoked or not."""
        return self._approved.get(digest)

    def revoked(self, digest: str) -> Revoked | None:
        """How it was revoked, if it was."""
        return self._revoked.get(digest)

    def standing(self, tenant: str | None = None) -> int:
        """How many are not revoked: of those that name the tenant, or of all."""
        return sum(
            one.digest not in self._revoked and (tenant is None or tenant in one.tenants)
            for one in self._approved.values()
        )

    def kept(self, tenant: str) -> int:
        """How many bytes those that name the tenant take, revoked ones too: they are kept."""
        return sum(max(one.bytes, LEAST_COUNTED) for one in self._approved.values() if tenant in one.tenants)

    def apply(self, kind: str, actor: Mapping[str, object], data: Mapping[str, object], seq: int) -> bool:
        """That entry is durable. Whether it says anything of this. Raises ValueError for what no daemon wrote."""
        if kind not in _KINDS:
            return False
        digest, at_ms = folded.text(data, "digest"), folded.whole(data, "at_ms")
        key, key_name = folded.text(actor, "key"), folded.text(actor, "name")
        if kind == entry_types.MANIFEST_REVOKED:
            reason = folded.text(data, "reason")
            self._revoked[digest] = Revoked(seq, reason, at_ms, key, key_name)
            self.reasons[digest] = reason
            return True
        baseline = data.get("baseline")
        self._approved.pop(digest, None)
        self._approved[digest] = Approved(
            digest=digest,
            name=folded.text(data, "name"),
            class_=folded.text(data, "class"),
            tenants=folded.texts(data, "tenants"),
            personas=folded.texts(data, "personas"),
            bytes=folded.whole(data, "bytes"),
            signatures=folded.text(data, "signatures"),
            signers=tuple(map(_signer, _maps(data, "signers"))),
            seq=seq,
            at_ms=at_ms,
            key=key,
            key_name=key_name,
            baseline=baseline if isinstance(baseline, dict) else None,
            severity=folded.optional_text(data, "severity"),
        )
        return True


def _maps(given: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    value = given.get(name)
    if not isinstance(value, list | tuple) or not all(isinstance(one, dict) for one in value):
        raise ValueError(f"`{name}` is no list of maps")
    return list(value)


def _signer(given: Mapping[str, object]) -> Signer:
    return Signer(
        folded.text(given, "key"),
        folded.text(given, "name"),
        folded.whole(given, "signed_ms"),
        folded.whole(given, "expires_ms"),
    )
