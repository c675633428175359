"""Manifests that a daemon has loaded, for the SDK.

with Client() as client:
    loaded = client.manifests.load(Path("build.toml").read_bytes(), Path("build.toml.sig").read_bytes())
    client.run(["make"], manifest=loaded.digest)
    client.manifests.revoke(loaded.digest, "the toolchain moved")
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from immured.client.question import Question, page, reading
from immured.errors import Refused
from immured.wire.strict import Fields

if TYPE_CHECKING:
    from immured.client.aio import AsyncClient
    from immured.client.outcome import Answer
    from immured.client.sync import Client

__all__ = ["Added", "AsyncManifests", "Loading", "ManifestFacts", "ManifestSigner", "Manifests", "Stage"]


@dataclass(frozen=True, slots=True)
class ManifestSigner:
    """Whose signature was verified: the key's id and its name with the daemon. It holds until `expires_ms`."""

    key: str
    name: str
    signed_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage's verdict, `pass`, `warn` or `fail`, and why; `code` and `remedy` of one that failed."""

    stage: str
    verdict: str
    words: str
    code: str | None = None
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Added:
    """What a manifest admits that its baseline does not. `severity`: `low`, `medium`, `high` or `critical`."""

    field: str
    words: str
    severity: str


@dataclass(frozen=True, slots=True)
class Loading:
    """What came of loading one. `passes`: every stage passed. `stored`: it is in force from now on and was not before;
    `known`: it was already. `more_added`: how many are left out of `added`. `seq`: its entry in the ledger.
    """

    digest: str
    passes: bool
    stored: bool
    known: bool
    name: str | None = None
    class_: str | None = None
    stages: tuple[Stage, ...] = ()
    added: tuple[Added, ...] = ()
    more_added: int = 0
    signers: tuple[ManifestSigner, ...] = ()
    baseline: Mapping[str, object] | None = None
    expires_ms: int | None = None
    seq: int | None = None
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ManifestFacts:
    """One that was loaded, or is built in. `standing`: `in_force`, or why not. Empty `tenants` and `personas`: all.

    `manifest` and `signatures`, its files, are there where one was shown and it is whole.
    """

    digest: str
    standing: str
    built_in: bool = False
    name: str | None = None
    class_: str | None = None
    tenants: tuple[str, ...] = ()
    personas: tuple[str, ...] = ()
    signers: tuple[ManifestSigner, ...] = ()
    seq: int | None = None
    loaded_ms: int | None = None
    expires_ms: int | None = None
    key: str | None = None
    key_name: str | None = None
    revoked: Mapping[str, object] | None = None
    manifest: bytes | None = None
    signatures: bytes | None = None
    stages: tuple[Stage, ...] = ()
    added: tuple[Added, ...] = ()
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)


class Manifests:
    """A client's. Every method raises Refusal as the daemon refuses."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def load(self, manifest: bytes, signatures: bytes | str | None = None, *, check: bool = False) -> Loading:
        """Have a signed manifest in force; `check`: only judge it, every stage of it, and store nothing."""
        return self._client.ask(manifest_load(manifest, signatures, check=check))

    def list(self, name: str | None = None) -> list[ManifestFacts]:
        """All, or those of that name, in the order in which they were loaded."""
        found: list[ManifestFacts] = []
        after: str | None = None
        while True:
            rows, after = self._client.ask(manifest_page(name, after))
            found += rows
            if after is None:
                return found

    def show(self, digest: str) -> ManifestFacts:
        """One, with its files."""
        return self._client.ask(manifest_show(digest))

    def revoke(self, digest: str, reason: str) -> ManifestFacts:
        """It is in force no more, and never again."""
        return self._client.ask(manifest_revoke(digest, reason))


class AsyncManifests:
    """`Manifests` for asyncio."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def load(
        self, manifest: bytes, signatures: bytes | str | None = None, *, check: bool = False
    ) -> Awaitable[Loading]:
        """As `Manifests.load`."""
        return self._client.ask(manifest_load(manifest, signatures, check=check))

    async def list(self, name: str | None = None) -> list[ManifestFacts]:
        """As `Manifests.list`."""
        found: list[ManifestFacts] = []
        after: str | None = None
        while True:
            rows, after = await self._client.ask(manifest_page(name, after))
            found += rows
            if after is None:
                return found

    def show(self, digest: str) -> Awaitable[ManifestFacts]:
        """As `Manifests.show`."""
        return self._client.ask(manifest_show(digest))

    def revoke(self, digest: str, reason: str) -> Awaitable[ManifestFacts]:
        """As `Manifests.revoke`."""
        return self._client.ask(manifest_revoke(digest, reason))


def manifest_load(manifest: bytes, signatures: bytes | str | None, *, check: bool) -> Question[Loading]:
    """One more."""
    args: dict[str, object] = {"manifest": bytes(manifest)}
    if signatures is not None:
        args["signatures"] = signatures.encode() if isinstance(signatures, str) else bytes(signatures)
    return Question("manifest.load", args | ({"check": True} if check else {}), _loading)


def manifest_page(name: str | None, after: str | None) -> Question[tuple[list[ManifestFacts], str | None]]:
    """Those behind that digest, and behind which one there are more."""
    args = {key: value for key, value in (("name", name), ("after", after)) if value is not None}
    return Question("manifest.list", args, lambda said: page(said, "manifests", _facts))


def manifest_show(digest: str) -> Question[ManifestFacts]:
    """One."""
    return Question("manifest.show", {"digest": digest}, lambda said: _facts(reading(said)))


def manifest_revoke(digest: str, reason: str) -> Question[ManifestFacts]:
    """One less."""
    return Question("manifest.revoke", {"digest": digest, "reason": reason}, lambda said: _facts(reading(said)))


def _loading(said: Answer) -> Loading:
    fields = reading(said)
    return Loading(
        digest=fields.required("digest", str),
        passes=fields.required("passes", bool),
        stored=fields.required("stored", bool),
        known=fields.optional("known", bool) or False,
        name=fields.optional("name", str),
        class_=fields.optional("class", str),
        stages=_stages(fields),
        added=_added(fields),
        more_added=fields.optional("more_added", int) or 0,
        signers=_signers(fields),
        baseline=fields.optional("baseline", dict),
        expires_ms=fields.optional("expires_ms", int),
        seq=fields.optional("seq", int),
        raw=dict(fields.values),
    )


def _facts(fields: Fields) -> ManifestFacts:
    return ManifestFacts(
        digest=fields.required("digest", str),
        standing=fields.required("standing", str),
        built_in=fields.optional("built_in", bool) or False,
        name=fields.optional("name", str),
        class_=fields.optional("class", str),
        tenants=tuple(map(str, fields.optional("tenants", list) or ())),
        personas=tuple(map(str, fields.optional("personas", list) or ())),
        signers=_signers(fields),
        seq=fields.optional("seq", int),
        loaded_ms=fields.optional("loaded_ms", int),
        expires_ms=fields.optional("expires_ms", int),
        key=fields.optional("key", str),
        key_name=fields.optional("key_name", str),
        revoked=fields.optional("revoked", dict),
        manifest=fields.optional("manifest", bytes),
        signatures=fields.optional("signatures", bytes),
        stages=_stages(fields),
        added=_added(fields),
        raw=dict(fields.values),
    )


def _stages(fields: Fields) -> tuple[Stage, ...]:
    return tuple(
        Stage(
            row.required("stage", str),
            row.required("verdict", str),
            row.required("words", str),
            row.optional("code", str),
            row.optional("remedy", str) or "",
        )
        for row in _rows(fields, "stages")
    )


def _added(fields: Fields) -> tuple[Added, ...]:
    return tuple(
        Added(row.required("field", str), row.required("words", str), row.required("severity", str))
        for row in _rows(fields, "added")
    )


def _signers(fields: Fields) -> tuple[ManifestSigner, ...]:
    return tuple(
        ManifestSigner(
            row.required("key", str),
            row.optional("name", str) or "",
            row.required("signed_ms", int),
            row.required("expires_ms", int),
        )
        for row in _rows(fields, "signers")
    )


def _rows(fields: Fields, name: str) -> list[Fields]:
    rows = fields.optional(name, list) or []
    if not all(isinstance(row, Mapping) for row in rows):
        raise Refused("bad_reply", f"{fields.where}.{name} holds what is no map")
    return [Fields(row, f"{fields.where}.{name}", "bad_reply") for row in rows]
