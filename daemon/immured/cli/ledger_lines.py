"""Entries as lines for people: aligned, each outcome beside what it is the outcome of. No I/O.

Nothing in a line can move a terminal's cursor (`show.members`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

import click

from immured.ledger.entry import Entry, Json
from immured.ledger.show import details, word
from immured.ledger.timestamps import parse_timestamp

__all__ = ["Display", "Shown", "beside"]

_HELD: Final = 256
"""Entries that are looked ahead for an outcome: memory, and how late a line is shown."""
_TYPE: Final = 20
_WHO: Final = 18
_LEAST: Final = 40
_BAD: Final = (".denied", ".refused", ".failed", ".lost", ".revoked", ".unhealthy", ".stepped")


class Shown(NamedTuple):
    """An entry; `begun`: the one before it that it is the outcome of, under which it stands."""

    entry: Entry
    begun: Entry | None = None


def beside(entries: Iterable[Entry], held: int = _HELD) -> Iterator[Shown]:
    """In order, but what names an intent right after it, where no more than `held` others came between."""
    waiting: dict[int, list[Entry]] = {}
    for entry in entries:
        intent = entry.data.get("intent")
        if isinstance(intent, int) and intent in waiting:
            waiting[intent].append(entry)
            continue
        waiting[entry.seq] = [entry]
        if len(waiting) > held:
            yield from _together(waiting.pop(next(iter(waiting))))
    for group in waiting.values():
        yield from _together(group)


def _together(group: list[Entry]) -> Iterator[Shown]:
    yield Shown(group[0])
    yield from (Shown(entry, group[0]) for entry in group[1:])


@dataclass(frozen=True, slots=True)
class Display:
    """How lines look. `local`: times of the place, not UTC; `width`: columns of the terminal, None where it is none."""

    local: bool = False
    colour: bool = False
    width: int | None = None

    def line(self, shown: Shown) -> str:
        """Without a newline."""
        entry, begun = shown
        when = self._time(entry.ts) if begun is None else self._later(begun, entry)
        what = entry.type if begun is None else f"\u2514 {entry.type}"
        who = _who(entry) if begun is None or "key" in entry.actor else ""
        head = f"{entry.seq:>8}  {when}  "
        hidden = {"intent"} if begun is not None else set[str]()
        if begun is not None:
            hidden |= {name for name, value in entry.data.items() if begun.data.get(name) == value}
        least = len(head) + _TYPE + _WHO + 3
        room = None if self.width is None else max(_LEAST, self.width - least)
        text = details(entry, hidden, room)
        middle = f"{what:<{_TYPE}} "
        if self.colour:
            head = click.style(head, dim=True)
            middle = click.style(middle, fg=_colour(entry), bold=begun is None)
        return f"{head}{middle}{who:<{_WHO}}  {text}".rstrip()

    def _time(self, ts: str) -> str:
        if not self.local:
            return f"{ts[:10]} {ts[11:23]}Z"
        here = datetime.fromtimestamp(parse_timestamp(ts) // 1_000_000 / 1000).astimezone()
        return f"{here:%Y-%m-%d %H:%M:%S}.{here.microsecond // 1000:03d}{here:%z}"

    def _later(self, begun: Entry, entry: Entry) -> str:
        took = (parse_timestamp(entry.ts) - parse_timestamp(begun.ts)) / 1e9
        return f"{f'+{took:.3f} s':>{len(self._time(entry.ts))}}"


def _who(entry: Entry) -> str:
    actor = entry.actor
    if "key" not in actor:
        return "daemon" if "daemon" in actor else word(_text(next(iter(actor.values()), "")))
    name = word(_text(actor.get("name", str(actor["key"])[-12:])))
    tenant = actor.get("tenant")
    return name if tenant is None else f"{name}@{word(_text(tenant))}"


def _text(value: Json) -> str:
    return value if isinstance(value, str) else str(value)


def _colour(entry: Entry) -> str:
    code = entry.data.get("exit_code", 0)
    if entry.type.endswith(_BAD) or code != 0:
        return "red"
    return "cyan" if entry.type.endswith(".accepted") else "green" if "intent" in entry.data else "yellow"
