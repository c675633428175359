"""Sessions: what a key opens for a person or an agent, and commands are attributed to. Sans-I/O, ms since the epoch.

A session ends when it is closed, when it was not used for `idle_ms`, and at `expires_ms` at the latest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from immured.errors import Refused
from immured.identity import folded

__all__ = [
    "DEFAULT_IDLE_MS",
    "DEFAULT_TTL_MS",
    "MAX_SESSIONS",
    "MAX_SESSIONS_PER_KEY",
    "MAX_TTL_MS",
    "Session",
    "Sessions",
]

DEFAULT_IDLE_MS: Final = 3600 * 1000
DEFAULT_TTL_MS: Final = 12 * 3600 * 1000
MAX_TTL_MS: Final = 30 * 24 * 3600 * 1000
MAX_SESSIONS: Final = 65_536
MAX_SESSIONS_PER_KEY: Final = 4096
_REMEMBERED_MS: Final = 24 * 3600 * 1000
"""How long one that is over is told apart from one that never was."""


@dataclass(slots=True)
class Session:
    """`owners`: the key that opened it, and those by which that one was certified. `closed_ms` None: it was not."""

    id: str
    owners: tuple[str, ...]
    tenant: str
    project: str
    opened_ms: int
    expires_ms: int
    idle_ms: int
    used_ms: int
    note: str = ""
    sub: str | None = None
    closed_ms: int | None = None

    def over_ms(self) -> int:
        """From when on it is over, if nobody uses it again."""
        due = min(self.expires_ms, self.used_ms + self.idle_ms)
        return due if self.closed_ms is None else min(due, self.closed_ms)

    def to_map(self) -> dict[str, object]:
        """As replies show it."""
        shown: dict[str, object] = {
            "session": self.id,
            "owners": list(self.owners),
            "tenant": self.tenant,
            "project": self.project,
            "opened_ms": self.opened_ms,
            "expires_ms": self.expires_ms,
            "idle_ms": self.idle_ms,
            "used_ms": self.used_ms,
        }
        if self.note:
            shown["note"] = self.note
        if self.sub is not None:
            shown["sub"] = self.sub
        return shown

    @classmethod
    def from_map(cls, given: Mapping[str, object]) -> Session:
        """The inverse, as `session.opened` has it. Raises ValueError for what was never written."""
        return cls(
            id=folded.text(given, "session"),
            owners=folded.texts(given, "owners"),
            tenant=folded.text(given, "tenant"),
            project=folded.text(given, "project"),
            opened_ms=folded.whole(given, "opened_ms"),
            expires_ms=folded.whole(given, "expires_ms"),
            idle_ms=folded.whole(given, "idle_ms"),
            used_ms=folded.whole(given, "used_ms"),
            note=folded.text(given, "note") if "note" in given else "",
            sub=folded.optional_text(given, "sub"),
        )


class Sessions:
    """Every session that is open, and for a day those that are over."""

    def __init__(self) -> None:
        self._by_id: dict[str, Session] = {}
        self._of: dict[str, dict[str, Session]] = {}
        self._looked_ms = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._by_id.values())

    def open_ones(self, now_ms: int, tenant: str | None = None, besides: str | None = None) -> Iterator[Session]:
        """Those that are not over, oldest first, and the one of the id `besides`; of one tenant, or of all."""
        for one in self:
            if tenant in (None, one.tenant) and (one.id == besides or now_ms < one.over_ms()):
                yield one

    def get(self, session_id: str) -> Session | None:
        """The session of that id, over or not."""
        return self._by_id.get(session_id)

    def check_room(self, key_id: str, now_ms: int) -> None:
        """Raises Refused `over_quota` where so many are open that no more are kept."""
        self.forget(now_ms)
        own = sum(now_ms < one.over_ms() for one in self._of.get(key_id, {}).values())
        for held, limit, whose in (
            (own, MAX_SESSIONS_PER_KEY, "of this key"),
            (len(self), MAX_SESSIONS, "of all keys"),
        ):
            if held >= limit:
                raise Refused(
                    "over_quota",
                    f"{held} sessions {whose} are open, or were within a day",
                    "close what is not used any more; ask for shorter ones",
                    details={"quota": "sessions", "limit": limit, "used": held, "asked": 1},
                )

    def add(self, session: Session) -> None:
        """It is in the ledger."""
        self._by_id[session.id] = session
        self._of.setdefault(session.owners[0], {})[session.id] = session

    def close(self, session_id: str, now_ms: int) -> None:
        """It is in the ledger that it was closed."""
        session = self._by_id.get(session_id)
        if session is not None:
            session.closed_ms = now_ms

    def use(self, session_id: str, identities: Collection[str], tenant: str, now_ms: int) -> Session:
        """A command carries it: it is used now. `identities`: whose sessions the command may carry, as key ids.

        Raises Refused `session_unknown` (one that never was, somebody else's and another tenant's, in the same words),
        `session_expired`.
        """
        session = self._by_id.get(session_id)
        if session is None or session.tenant != tenant or session.owners[0] not in identities:
            raise Refused(
                "session_unknown",
                f"no session of this key and tenant is called {session_id!r}",
                "open one: `immure session open`",
            )
        if now_ms >= session.over_ms():
            raise Refused(
                "session_expired",
                f"the session {session_id} is over",
                "open another: `immure session open`",
                details={"over_ms": session.over_ms(), "now_ms": now_ms},
            )
        session.used_ms = max(session.used_ms, now_ms)
        return session

    def seen(self, session_id: str, at_ms: int) -> None:
        """At start, from the ledger: an entry carries it."""
        session = self._by_id.get(session_id)
        if session is not None:
            session.used_ms = max(session.used_ms, at_ms)

    def forget(self, now_ms: int) -> None:
        """Drop what has been over for a day."""
        if now_ms < self._looked_ms + 1000:
            return
        self._looked_ms = now_ms
        for session in [one for one in self if one.over_ms() + _REMEMBERED_MS <= now_ms]:
            del self._by_id[session.id]
            del self._of[session.owners[0]][session.id]
            if not self._of[session.owners[0]]:
                del self._of[session.owners[0]]
