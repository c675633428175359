"""Who agreed to what, and for how long: a fold over `consent.accepted` and `consent.declined`. Sans-I/O, ms since the
epoch.

A consent is somebody's, for one manifest: the key, the user, and every name that the command carried. It holds from the
moment that it was given until it ends, is declined, or its wording changes, whichever is first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.identity import folded
from immured.identity.actor import DEFAULT
from immured.ledger import entry_types

if TYPE_CHECKING:
    from immured.identity.actor import Actor

__all__ = ["MAX_CONSENTS", "MAX_CONSENTS_PER_KEY", "SKEW_MS", "Binding", "Consent", "Consents"]

MAX_CONSENTS: Final = 65_536
MAX_CONSENTS_PER_KEY: Final = 1024
SKEW_MS: Final = 60_000
"""How far the clock may be set back before a consent that was given later than now counts as none."""
_REMEMBERED_MS: Final = 24 * 3600 * 1000
"""How long one that ended is told apart from one that never was. No consent is valid for longer than this."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Whose it is, and for what. None in `session` is one of its own: what is agreed to in none holds in none."""

    manifest: str
    key: str
    uid: int
    tenant: str
    project: str
    persona: str | None
    sub: str | None
    session: str | None

    @classmethod
    def of(cls, actor: Actor, manifest: str, key: str | None = None) -> Binding:
        """Of a command under that manifest. `key`: one that the actor's took the place of."""
        return cls(
            manifest,
            key or actor.key_id,
            actor.uid,
            actor.tenant,
            actor.project,
            actor.persona,
            actor.sub,
            actor.session,
        )

    @classmethod
    def from_actor(cls, given: Mapping[str, object], manifest: str) -> Binding:
        """From `actor` of a ledger entry, in which the defaults are left out. Raises ValueError."""
        return cls(
            manifest,
            folded.text(given, "key"),
            folded.whole(given, "uid"),
            folded.text(given, "tenant") if "tenant" in given else DEFAULT,
            folded.text(given, "project") if "project" in given else DEFAULT,
            folded.optional_text(given, "persona"),
            folded.optional_text(given, "sub"),
            folded.optional_text(given, "session"),
        )


@dataclass(frozen=True, slots=True)
class Consent:
    """One answer. `text`: the digest of what was read, the text `text_id` in `language`. `seq`: its entry."""

    binding: Binding
    accepted: bool
    text_id: str
    language: str
    text: str
    at_ms: int
    expires_ms: int
    seq: int

    def holds(self, now_ms: int) -> bool:
        """Whether it was accepted, and its time is not over. A clock that was set back makes no consent last longer."""
        return self.accepted and self.at_ms - SKEW_MS <= now_ms < self.expires_ms

    def to_map(self) -> dict[str, object]:
        """As replies show it."""
        binding = self.binding
        shown: dict[str, object] = {
            "manifest": binding.manifest,
            "accepted": self.accepted,
            "text_id": self.text_id,
            "language": self.language,
            "text": self.text,
            "at_ms": self.at_ms,
            "expires_ms": self.expires_ms,
            "seq": self.seq,
            "key": binding.key,
            "uid": binding.uid,
            "tenant": binding.tenant,
            "project": binding.project,
        }
        named = {"persona": binding.persona, "sub": binding.sub, "session": binding.session}
        return shown | {name: value for name, value in named.items() if value is not None}


class Consents:
    """The last answer of everybody for each manifest, for a day after it ended; and which wordings the ledger holds."""

    def __init__(self) -> None:
        self._by: dict[Binding, Consent] = {}
        self._of: dict[str, int] = {}
        self._looked_ms = 0
        self.withheld: set[Binding] = set()
        """Whose answer is being declined: nothing begins by it any more, though that is not durable yet."""
        self.wordings: set[str] = set()
        """Digests of the texts that were entered word for word."""

    def __len__(self) -> int:
        return len(self._by)

    def visit(self, kind: str, actor: Mapping[str, object], data: Mapping[str, object], seq: int) -> None:
        """An entry is durable. Types that change nothing here are passed over. Raises ValueError for what no daemon
        wrote."""
        if kind == entry_types.CONSENT_TEXT:
            self.wordings.add(folded.text(data, "text"))
        elif kind in (entry_types.CONSENT_ACCEPTED, entry_types.CONSENT_DECLINED):
            self._put(
                Consent(
                    Binding.from_actor(actor, folded.text(data, "manifest")),
                    kind == entry_types.CONSENT_ACCEPTED,
                    folded.text(data, "text_id"),
                    folded.text(data, "language"),
                    folded.text(data, "text"),
                    folded.whole(data, "at_ms"),
                    folded.whole(data, "expires_ms"),
                    seq,
                )
            )

    def find(self, actor: Actor, manifest: str) -> Consent | None:
        """The actor's last answer about that manifest, under just these names; its own, or by a key that its took the
        place of."""
        if self.withheld and Binding.of(actor, manifest) in self.withheld:
            return None
        answers = (self._by.get(Binding.of(actor, manifest, key)) for key in actor.identities)
        return max((one for one in answers if one is not None), key=lambda one: one.seq, default=None)

    def of(self, actor: Actor, now_ms: int) -> Iterator[Consent]:
        """The actor's own in the tenant that the command is given under, of every session, oldest first; also those
        that ended within a day."""
        for one in self._by.values():
            if (
                one.binding.key in actor.identities
                and one.binding.uid == actor.uid
                and one.binding.tenant == actor.tenant
                and now_ms < one.expires_ms + _REMEMBERED_MS
            ):
                yield one

    def check_room(self, binding: Binding, now_ms: int) -> None:
        """Raises Refused `over_quota` where so many are remembered that no more are."""
        self.forget(now_ms)
        if binding in self._by:
            return
        for held, limit, whose in (
            (self._of.get(binding.key, 0), MAX_CONSENTS_PER_KEY, "of this key"),
            (len(self._by), MAX_CONSENTS, "of all keys"),
        ):
            if held >= limit:
                raise Refused(
                    "over_quota",
                    f"{held} answers {whose} about manifests are remembered, for a day after they ended",
                    "agree to fewer manifests, or in fewer sessions",
                    details={"quota": "consents", "limit": limit, "used": held, "asked": 1},
                )

    def forget(self, now_ms: int) -> None:
        """Drop what ended more than a day ago."""
        if now_ms < self._looked_ms + 1000:
            return
        self._looked_ms = now_ms
        self._drop(one.binding for one in list(self._by.values()) if one.expires_ms + _REMEMBERED_MS <= now_ms)

    def _put(self, consent: Consent) -> None:
        """The later entry counts, in whatever order their durability was heard of."""
        before = self._by.get(consent.binding)
        if before is not None and before.seq > consent.seq:
            return
        self._drop([consent.binding] if before is not None else ())
        self._by[consent.binding] = consent
        self._of[consent.binding.key] = self._of.get(consent.binding.key, 0) + 1

    def _drop(self, bindings: Iterable[Binding]) -> None:
        for binding in bindings:
            del self._by[binding]
            self._of[binding.key] -= 1
            if not self._of[binding.key]:
                del self._of[binding.key]
