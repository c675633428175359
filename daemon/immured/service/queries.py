"""Questions to the ledger for clients: beside the daemon's work, one at a time, in bounded steps.

A small ledger is read. Of a large one an index is made when somebody first asks; until it is there, whoever asks is
told so, and it is gone on with in the background, at a quarter of one processor at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from immured.ledger.entry import MAX_LINE, Entry, LineError, parse_line
from immured.ledger.exports.seek import offset_of
from immured.ledger.index import Index
from immured.ledger.query import find
from immured.ledger.segments import Files
from immured.ledger.selection import Selection

__all__ = ["Behind", "Candidates", "Queries"]

_WAITS_S: Final = 1.0
_REST: Final = 3.0
"""Times as long as a step took, before the next."""


class Behind(Exception):
    """The index is being made: `known` entries so far."""

    def __init__(self, known: int) -> None:
        super().__init__(f"the ledger's index is being made: it knows {known} entries so far")
        self.known = known


class _Step(Exception):
    """So much was done."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Some of what matches, in order; `begun`: the entries that they name as their intents, by index; `over`: there
    are no more."""

    entries: tuple[Entry, ...]
    begun: dict[int, Entry]
    over: bool


class Queries:
    """To one ledger, whose files are in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._one = asyncio.Lock()
        self._making: asyncio.Task[None] | None = None

    async def some(self, chosen: Selection, count: int, size: int) -> Candidates:
        """The first `count` of its kind. `size`: the bytes of lines beyond which no more are wanted.

        Raises Behind, NoIndexError, BadLine, LineError, LookupError, OSError.
        """
        async with self._one:
            try:
                return await asyncio.to_thread(self._some, chosen, count, size)
            except Behind:
                if self._making is None or self._making.done():
                    self._making = asyncio.get_running_loop().create_task(self._make())
                raise

    def _some(self, chosen: Selection, count: int, size: int) -> Candidates:
        began = time.monotonic()

        def progress(known: int) -> None:
            if time.monotonic() - began > _WAITS_S:
                raise Behind(known)

        found: list[Entry] = []
        matching = find(self._directory, chosen, progress, lines=False)
        for entry in islice(matching, count):
            found.append(entry)
            size -= len(entry.line)
            if size <= 0:
                break
        over = size > 0 and len(found) < count
        return Candidates(tuple(found), self._begun(found), over)

    def _begun(self, found: list[Entry]) -> dict[int, Entry]:
        known = {entry.seq: entry for entry in found}
        begun: dict[int, Entry] = {}
        with Files.at(self._directory) as files:
            for intent in _intents(found):
                if intent not in begun:
                    entry = known.get(intent) or _at(files, intent)
                    if entry is not None:
                        begun[intent] = entry
        return begun

    async def _make(self) -> None:
        """To its end, or until it cannot be gone on with."""
        while True:
            began = time.monotonic()
            async with self._one:
                done = await asyncio.to_thread(self._step)
            if done:
                return
            await asyncio.sleep(_REST * (time.monotonic() - began))

    def _step(self) -> bool:
        def once(_: int) -> None:
            raise _Step

        try:
            with Index.open(self._directory) as index:
                index.catch_up(once)
        except _Step:
            return False
        except Exception:  # noqa: BLE001 - whoever asks next meets it, and is told
            return True
        return True


def _intents(found: list[Entry]) -> Iterator[int]:
    for entry in found:
        intent = entry.data.get("intent")
        if isinstance(intent, int) and 0 <= intent < entry.seq:
            yield intent


def _at(files: Files, seq: int) -> Entry | None:
    """An entry that is kept. Raises LineError, OSError."""
    if seq < files.first:
        return None
    part = files.before(seq)
    try:
        at = offset_of(files.read, part.offset, part.end, seq)
    except LookupError:
        return None
    entry = parse_line(files.read(at, MAX_LINE + 1).partition(b"\n")[0])
    if entry.seq != seq:
        raise LineError("bad_seq", f"seq is {entry.seq}", str(seq))
    return entry
