"""Narrow elevation: one command, by one key, once, within a day, that the policy does not allow it. Sans-I/O.

A grant is found where the policy says no, and widens nothing else: rules that deny hold against it, so do controls. It
is taken (`reserve`) when its command is admitted, and used up when that command's first entry is in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from immured.errors import Refused
from immured.identity import folded

__all__ = ["MAX_GRANTS", "MAX_TTL_MS", "Grant", "Grants"]

MAX_TTL_MS: Final = 24 * 3600 * 1000
MAX_GRANTS: Final = 4096
"""Unexpired ones together."""


@dataclass(frozen=True, slots=True)
class Grant:
    """`project` None: any of the tenant. `digest` (32 bytes): only this very command (`canonical.command_digest`).

    `issuers` are the id of the key that issued it, and of those that certified that one.
    """

    id: str
    key: str
    cmd: str
    tenant: str
    project: str | None
    digest: bytes | None
    expires_ms: int
    issuers: tuple[str, ...]
    reason: str

    def to_map(self) -> dict[str, object]:
        """As replies and the ledger show it."""
        shown: dict[str, object] = {
            "grant": self.id,
            "key": self.key,
            "cmd": self.cmd,
            "tenant": self.tenant,
            "expires_ms": self.expires_ms,
            "issuers": list(self.issuers),
            "reason": self.reason,
        }
        if self.project is not None:
            shown["project"] = self.project
        if self.digest is not None:
            shown["digest"] = "sha256:" + self.digest.hex()
        return shown

    @classmethod
    def from_map(cls, given: Mapping[str, object]) -> Grant:
        """The inverse. Raises ValueError for what `to_map` never made."""
        return cls(
            id=folded.text(given, "grant"),
            key=folded.text(given, "key"),
            cmd=folded.text(given, "cmd"),
            tenant=folded.text(given, "tenant"),
            project=folded.optional_text(given, "project"),
            digest=folded.digest(given, "digest") if "digest" in given else None,
            expires_ms=folded.whole(given, "expires_ms"),
            issuers=folded.texts(given, "issuers"),
            reason=folded.text(given, "reason"),
        )


class Grants:
    """The grants that could still be used."""

    def __init__(self) -> None:
        self._by_id: dict[str, Grant] = {}
        self._by_use: dict[tuple[str, str], dict[str, Grant]] = {}
        self._reserved: set[str] = set()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Grant]:
        return iter(self._by_id.values())

    def get(self, grant_id: str) -> Grant | None:
        """The grant of that id, if it can still be used."""
        return self._by_id.get(grant_id)

    def check_room(self, now_ms: int) -> None:
        """Raises Refused `over_quota` where so many wait that no more are kept."""
        self.forget(now_ms)
        if len(self._by_id) >= MAX_GRANTS:
            raise Refused(
                "over_quota", f"{MAX_GRANTS} grants wait to be used", "revoke some, or wait until some expire"
            )

    def add(self, grant: Grant) -> None:
        """It is in the ledger."""
        self._by_id[grant.id] = grant
        self._by_use.setdefault((grant.key, grant.cmd), {})[grant.id] = grant

    def any_for(self, key: str, cmd: str) -> bool:
        """Whether that key has any for that command, in some tenant."""
        return (key, cmd) in self._by_use

    def fitting(
        self, key: str, cmd: str, tenant: str, project: str, digest: Callable[[], bytes], now_ms: int
    ) -> list[Grant]:
        """Those that cover it and are not taken, the narrowest first."""
        found = self._by_use.get((key, cmd), {}).values()
        fitting = [
            one
            for one in found
            if one.id not in self._reserved
            and now_ms < one.expires_ms
            and one.tenant == tenant
            and one.project in (None, project)
            and (one.digest is None or one.digest == digest())
        ]
        return sorted(fitting, key=lambda one: (one.digest is None, one.project is None, one.expires_ms))

    def reserve(
        self, key: str, cmd: str, tenant: str, project: str, digest: Callable[[], bytes], now_ms: int
    ) -> Grant | None:
        """The narrowest that covers it, taken until `release` or `remove`. None: none does."""
        for one in self.fitting(key, cmd, tenant, project, digest, now_ms):
            self._reserved.add(one.id)
            return one
        return None

    def release(self, grant_id: str) -> None:
        """Its command was refused before anything happened: it is as if it had not been taken."""
        self._reserved.discard(grant_id)

    def remove(self, grant_id: str) -> None:
        """Its command's first entry is in the ledger; or it was revoked, or expired."""
        self._reserved.discard(grant_id)
        grant = self._by_id.pop(grant_id, None)
        if grant is not None:
            use = grant.key, grant.cmd
            self._by_use[use].pop(grant_id)
            if not self._by_use[use]:
                del self._by_use[use]

    def forget(self, now_ms: int) -> None:
        """Drop what expired."""
        for grant_id in [one.id for one in self._by_id.values() if one.expires_ms <= now_ms]:
            if grant_id not in self._reserved:
                self.remove(grant_id)
