"""Which entries somebody asks for. No I/O."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from immured.ledger.entry import Entry

__all__ = ["Selection", "values_of"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries: every condition that is given must hold."""

    types: tuple[str, ...] = ()
    """Names, or patterns such as `run.*`; any of them."""
    since: str = ""
    """A time stamp, or the beginning of one; that moment and later."""
    until: str = ""
    """Before it."""
    first: int = 0
    end: int | None = None
    """Indices: first <= seq < end."""
    actor: str = ""
    """One of the actor's values, or of a list of such, whole."""
    sandbox: str = ""
    """`data.sandbox`."""
    tenant: str | None = None
    """Whose it is: a tenant's, or with the empty name the host's. That takes all that was before to know
    (`belonging`), so `matches` does not ask."""

    def matches(self, entry: Entry) -> bool:
        """Whether the entry is one of these."""
        if entry.seq < self.first or (self.end is not None and entry.seq >= self.end):
            return False
        if self.types and not any(fnmatch.fnmatchcase(entry.type, pattern) for pattern in self.types):
            return False
        # One notation of fixed width: text sorts as time does.
        if (self.since and entry.ts < self.since) or (self.until and entry.ts >= self.until):
            return False
        if self.actor and self.actor not in values_of(entry.actor):
            return False
        return not self.sandbox or entry.data.get("sandbox") == self.sandbox


def values_of(actor: Mapping[str, object]) -> Iterator[str]:
    """What an actor is found by: each of its values as text, and each of a list's; not its process, which is another's
    number tomorrow."""
    for name, value in actor.items():
        if name == "pid":
            continue
        yield from map(str, value) if isinstance(value, list) else (str(value),)
