"""The keys that may give orders, for the SDK.

with Client() as client:
    Keys(client).add("alice", "alice.pub", role="operator", tenants=["acme"])
    Keys(client).rotate("alice", "alice-2.pub", overlap_ms=86_400_000)

Wherever a key is meant, its name or its id may stand.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict, Unpack

from immured.client.question import Question, page, reading
from immured.client.trust import PublicKeySource, public_key
from immured.wire.strict import Fields

if TYPE_CHECKING:
    from immured.client.aio import AsyncClient
    from immured.client.outcome import Answer
    from immured.client.sync import Client

__all__ = ["AsyncKeys", "Bindings", "KeyFacts", "Keys"]


class Bindings(TypedDict, total=False):
    """What a key is bound to. Empty `uids` and `gids`: any peer may present it. Times: ms since the epoch."""

    uids: Collection[int]
    gids: Collection[int]
    personas: Collection[str]
    tenants: Collection[str]
    projects: Collection[str]
    subjects: Collection[str]
    not_before_ms: int
    expires_ms: int
    note: str


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """One key. `status`: what was decided; `standing`: whether it serves now (`active`, `suspended`, `revoked`,
    `expired`, `not_yet_valid`). What a later version says too is in `raw`."""

    id: str
    name: str
    role: str
    added: str
    public: str
    status: str = "active"
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    personas: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    not_before_ms: int | None = None
    expires_ms: int | None = None
    note: str = ""
    successor: str | None = None
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def standing(self) -> str:
        """Whether it serves, as the daemon saw it; one that does not say tells its status alone."""
        said = self.raw.get("standing")
        return said if isinstance(said, str) else self.status


class Keys:
    """A client's. Every method raises Refusal as the daemon refuses."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def add(
        self, name: str, public: PublicKeySource, *, role: str = "runner", **bindings: Unpack[Bindings]
    ) -> KeyFacts:
        """Let the owner of a key in."""
        return self._client.ask(key_add(name, public, role, bindings))

    def list(self) -> list[KeyFacts]:
        """Those that one may see, oldest first."""
        found: list[KeyFacts] = []
        after: str | None = None
        while True:
            page, after = self._client.ask(key_page(after))
            found += page
            if after is None:
                return found

    def show(self, key: str) -> KeyFacts:
        """One."""
        return self._client.ask(key_named("key.show", key))

    def label(self, key: str, *, name: str | None = None, note: str | None = None) -> KeyFacts:
        """Call it otherwise."""
        return self._client.ask(key_label(key, name, note))

    def bind(self, key: str, *, role: str | None = None, **bindings: Unpack[Bindings]) -> KeyFacts:
        """Bind it anew: what is named takes the place of what was there, an empty list of it takes it away."""
        return self._client.ask(key_bind(key, role, bindings))

    def suspend(self, key: str, *, reason: str | None = None) -> KeyFacts:
        """It gives no orders until it is resumed."""
        return self._client.ask(key_named("key.suspend", key, reason=reason))

    def resume(self, key: str, *, reason: str | None = None) -> KeyFacts:
        """It gives orders again."""
        return self._client.ask(key_named("key.resume", key, reason=reason))

    def revoke(self, key: str, *, reason: str | None = None, issuer: str | None = None) -> Mapping[str, object]:
        """It never gives orders again, nor does what it certified. The id of a certified key bars that one alone,
        beneath `issuer` where that is named."""
        return self._client.ask(key_revoke(key, reason, issuer))

    def rotate(
        self, key: str, public: PublicKeySource, *, overlap_ms: int | None = None, expires_ms: int | None = None
    ) -> KeyFacts:
        """A new key takes its name, its bindings and what it owns; the old one serves for `overlap_ms` more."""
        return self._client.ask(key_rotate(key, public, overlap_ms, expires_ms))


class AsyncKeys:
    """`Keys` for asyncio."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def add(
        self, name: str, public: PublicKeySource, *, role: str = "runner", **bindings: Unpack[Bindings]
    ) -> Awaitable[KeyFacts]:
        """As `Keys.add`."""
        return self._client.ask(key_add(name, public, role, bindings))

    async def list(self) -> list[KeyFacts]:
        """As `Keys.list`."""
        found: list[KeyFacts] = []
        after: str | None = None
        while True:
            page, after = await self._client.ask(key_page(after))
            found += page
            if after is None:
                return found

    def show(self, key: str) -> Awaitable[KeyFacts]:
        """As `Keys.show`."""
        return self._client.ask(key_named("key.show", key))

    def label(self, key: str, *, name: str | None = None, note: str | None = None) -> Awaitable[KeyFacts]:
        """As `Keys.label`."""
        return self._client.ask(key_label(key, name, note))

    def bind(self, key: str, *, role: str | None = None, **bindings: Unpack[Bindings]) -> Awaitable[KeyFacts]:
        """As `Keys.bind`."""
        return self._client.ask(key_bind(key, role, bindings))

    def suspend(self, key: str, *, reason: str | None = None) -> Awaitable[KeyFacts]:
        """As `Keys.suspend`."""
        return self._client.ask(key_named("key.suspend", key, reason=reason))

    def resume(self, key: str, *, reason: str | None = None) -> Awaitable[KeyFacts]:
        """As `Keys.resume`."""
        return self._client.ask(key_named("key.resume", key, reason=reason))

    def revoke(
        self, key: str, *, reason: str | None = None, issuer: str | None = None
    ) -> Awaitable[Mapping[str, object]]:
        """As `Keys.revoke`."""
        return self._client.ask(key_revoke(key, reason, issuer))

    def rotate(
        self, key: str, public: PublicKeySource, *, overlap_ms: int | None = None, expires_ms: int | None = None
    ) -> Awaitable[KeyFacts]:
        """As `Keys.rotate`."""
        return self._client.ask(key_rotate(key, public, overlap_ms, expires_ms))


# -- the questions


def key_add(name: str, public: PublicKeySource, role: str, bindings: Bindings) -> Question[KeyFacts]:
    """Let one in."""
    args = {"name": name, "public": public_key(public).raw, "role": role, **_bound(bindings)}
    return Question("key.add", args, _one)


def key_page(after: str | None) -> Question[tuple[list[KeyFacts], str | None]]:
    """Those behind that id, and the id behind which there are more."""
    return Question("key.list", _given(after=after), lambda said: page(said, "keys", _facts))


def key_named(cmd: str, key: str, *, reason: str | None = None) -> Question[KeyFacts]:
    """What needs the key alone."""
    return Question(cmd, {"key": key} | _given(reason=reason), _one)


def key_label(key: str, name: str | None, note: str | None) -> Question[KeyFacts]:
    """Its name and its note."""
    return Question("key.label", {"key": key} | _given(name=name, note=note), _one)


def key_bind(key: str, role: str | None, bindings: Bindings) -> Question[KeyFacts]:
    """Its role and its bindings."""
    return Question("key.bind", {"key": key} | _given(role=role) | _bound(bindings), _one)


def key_revoke(key: str, reason: str | None, issuer: str | None) -> Question[Mapping[str, object]]:
    """For good."""
    return Question("key.revoke", {"key": key} | _given(reason=reason, issuer=issuer), lambda said: said.result)


def key_rotate(key: str, public: PublicKeySource, overlap_ms: int | None, expires_ms: int | None) -> Question[KeyFacts]:
    """Another in its place."""
    more = _given(overlap_ms=overlap_ms, expires_ms=expires_ms)
    args = {"key": key, "public": public_key(public).raw} | more
    return Question("key.rotate", args, _one)


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _bound(bindings: Bindings) -> dict[str, object]:
    return {
        name: value if isinstance(value, int | str) else sorted(value)  # type: ignore[call-overload]
        for name, value in bindings.items()
        if value is not None
    }


def _one(said: Answer) -> KeyFacts:
    return _facts(reading(said))


def _facts(fields: Fields) -> KeyFacts:
    def each(name: str) -> list[object]:
        return fields.optional(name, list) or []

    return KeyFacts(
        id=fields.required("id", str),
        name=fields.required("name", str),
        role=fields.required("role", str),
        added=fields.required("added", str),
        public=fields.required("public", str),
        status=fields.optional("status", str) or "active",
        uids=tuple(one for one in each("uids") if isinstance(one, int)),
        gids=tuple(one for one in each("gids") if isinstance(one, int)),
        personas=tuple(map(str, each("personas"))),
        tenants=tuple(map(str, each("tenants"))),
        projects=tuple(map(str, each("projects"))),
        subjects=tuple(map(str, each("subjects"))),
        not_before_ms=fields.optional("not_before_ms", int),
        expires_ms=fields.optional("expires_ms", int),
        note=fields.optional("note", str) or "",
        successor=fields.optional("successor", str),
        raw=dict(fields.values),
    )
