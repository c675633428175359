"""What happens to a ledger's stream before the first new entry: it is read, and what a crash tore is set aside.

All of it is read, or what came after the last `resume` (`resumption`). Every step can itself be interrupted: the torn
bytes are durable in the quarantine before they leave the file, and a quarantined file that no entry speaks of is
recorded at the next start.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from immured.errors import ConfigurationError
from immured.ledger.carried import Carried, CarriedError, carried_name
from immured.ledger.chain import Chain
from immured.ledger.checkpoint import Checkpoint, NoteError, VerifierKey, file_name, open_checkpoint
from immured.ledger.entry import Entry
from immured.ledger.entry_types import LEDGER_DURABILITY, LEDGER_RECOVERED, LEDGER_RETIRED
from immured.ledger.keeping import Keeper, Keeping, Kept
from immured.ledger.reader import Problem, Scan, Standing, begin, is_torn
from immured.ledger.resume import UnusableError
from immured.ledger.resumption import Resumption, resumption
from immured.ledger.scan import processors, swift
from immured.ledger.segments import placed
from immured.ledger.storage import LOG, LogFile, Storage
from immured.ledger.timestamps import compact, parse_timestamp

__all__ = ["CHECKPOINTS", "QUARANTINE", "WHOLE_BYTES", "Quarantined", "Recovered", "checkpoint_names", "recover"]

CHECKPOINTS: Final = "checkpoints"
QUARANTINE: Final = "quarantine"

WHOLE_BYTES: Final = 32 << 20
"""A ledger up to this size is verified whole before its first new entry; of a larger one what is before the last resume
afterwards."""

_CHECKPOINT_NAME: Final = re.compile(r"[0-9]{20}")
_log: Final = logging.getLogger("immured")
_TORN_NAME: Final = re.compile(r"[0-9]{20}-[0-9T.]+Z\.torn")


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Bytes that were set aside: the file's name, what it holds, and the index that they would have begun at."""

    file: str
    length: int
    sha256: str
    at: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """A ledger that is whole up to byte `end`, and what no entry of it speaks of yet."""

    chain: Chain
    end: int
    signed: int
    """Size of the newest checkpoint; 0 for none."""
    unrecorded: tuple[Quarantined, ...]
    recorded: frozenset[str]
    """The names of those that entries speak of."""
    keeping: Keeping | None
    """What a later start needs of it; None where nobody said."""
    durability: str
    """As the last `ledger.durability` has it; empty for none."""
    resumed: tuple[Checkpoint, int] | None
    """The checkpoint that the last resume is about, and where its last line ends; None where it was not used."""
    unread: int
    """What is before this byte was not read: it has to be verified yet. The stream's first where all was."""


def checkpoint_names(names: Iterable[str]) -> list[str]:
    """Those that are names of checkpoints, smallest first."""
    return sorted(name for name in names if _CHECKPOINT_NAME.fullmatch(name))


def _damaged(where: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        "ledger_damaged",
        f"{where}: {what}",
        "nothing was changed; compare with a copy (`immure ledger verify --file COPY`) and restore it, or keep this "
        "state directory as evidence and begin with a new one (`immure init`)",
    )


def _heads(storage: Storage, keys: tuple[VerifierKey, ...], first: int) -> dict[int, Checkpoint]:
    """The newest checkpoint, and the one of what was before the first entry that is kept."""
    names = checkpoint_names(storage.names(CHECKPOINTS))
    wanted = {name for name in (*names[-1:], file_name(first)) if name in names}
    return {head.size: head for head in (_head(storage, keys, name) for name in wanted)}


def _head(storage: Storage, keys: tuple[VerifierKey, ...], name: str) -> Checkpoint:
    where = f"{storage.where()}/{CHECKPOINTS}/{name}"
    try:
        head = open_checkpoint(storage.read_whole(f"{CHECKPOINTS}/{name}"), keys)
    except NoteError as error:
        raise _damaged(where, str(error)) from None
    if file_name(head.size) != name:
        raise _damaged(where, f"the checkpoint is of size {head.size}; expected the size in the file's name")
    return head


def _describe(storage: Storage, name: str) -> Quarantined:
    content = storage.read_whole(f"{QUARANTINE}/{name}")
    return Quarantined(name, len(content), hashlib.sha256(content).hexdigest(), int(name[:20]))


def _set_aside(storage: Storage, log: LogFile, problem: Problem, size: int, now_ns: int) -> None:
    torn = b""
    while len(torn) < size - problem.offset:
        chunk = log.read(problem.offset + len(torn), size - problem.offset - len(torn))
        if not chunk:
            break
        torn += chunk
    storage.write_whole(f"{QUARANTINE}/{file_name(problem.seq)}-{compact(now_ns)}.torn", torn)
    log.truncate(problem.offset)
    log.sync()


class _Learning:
    """Who is told of the entries as they are read, and what is kept of them."""

    def __init__(self, visit: Callable[[Entry], None] | None, keeper: Keeper | None, offset: int) -> None:
        self.recorded: set[str] = set()
        self.durability = ""
        self.keeping = Keeping() if keeper is not None else None
        self._visit = visit
        self._keeper = keeper
        self._offset = offset
        self.carried: dict[int, object] = {}
        """Digests of files with lines of retired segments, as entries have them, by the first entry that was kept."""

    def carry(self, carried: Carried) -> None:
        """What is needed of that which is not kept any more."""
        if self.keeping is None or self._keeper is None:
            return
        self.keeping.forgotten(carried.horizon_ms)
        self._keeper.forgotten(carried.horizon_ms)
        for kept, entry in carried.lines:
            self._again(kept, entry)

    def resume(self, known: Resumption) -> None:
        """What is needed of that which is not read."""
        self.recorded.update(known.resume.recorded)
        self.durability = known.resume.durability
        self._offset = known.resume.end
        if self.keeping is None or self._keeper is None:
            return
        self.keeping.forgotten(known.horizon_ms)
        self._keeper.forgotten(known.horizon_ms)
        for kept, entry in known.entries():
            self._again(kept, entry)

    def _again(self, kept: Kept, entry: Entry) -> None:
        if self.keeping is None or self._keeper is None:
            return
        self._keeper.visit(entry, kept.needs)
        keep = self._keeper.keep(entry.type, entry.actor, entry.data)
        if keep is not None:
            self.keeping.take(kept, parse_timestamp(entry.ts) // 1_000_000, keep)

    def see(self, entry: Entry) -> None:
        """The next entry of those that are read."""
        if entry.type == LEDGER_RECOVERED:
            self.recorded.add(str(entry.data.get("file")))
        if entry.type == LEDGER_DURABILITY:
            self.durability = str(entry.data.get("mode"))
        if entry.type == LEDGER_RETIRED:
            first, told = entry.data.get("first"), entry.data.get("carried")
            if isinstance(first, int) and isinstance(told, dict):
                self.carried[first] = told.get("sha256")
        if self._visit is not None:
            self._visit(entry)
        if self._keeper is not None and self.keeping is not None:
            self._keeper.visit(entry)
            keep = self._keeper.keep(entry.type, entry.actor, entry.data)
            if keep is not None:
                self.keeping.placed(entry.seq, self._offset, entry.leaf, parse_timestamp(entry.ts), keep)
                self.keeping.advance(entry.seq + 1)
        self._offset += len(entry.line) + 1

    @property
    def wanted(self) -> tuple[str, ...] | None:
        """The types that have to be seen; None for all."""
        return (
            (
                LEDGER_DURABILITY,
                LEDGER_RECOVERED,
            )
            if self._visit is None and self._keeper is None
            else None
        )


def recover(
    storage: Storage,
    log: LogFile,
    keys: Iterable[VerifierKey],
    now_ns: int,
    visit: Callable[[Entry], None] | None = None,
    keeper: Keeper | None = None,
    whole_bytes: int = WHOLE_BYTES,
) -> Recovered:
    """Make the ledger's file fit to be written on, or refuse. `visit` sees every entry once, in order; `keeper` those
    that he needs. What is there up to the last resume is verified here where it is no more than `whole_bytes`.

    Raises ConfigurationError("ledger_damaged") naming the first bad line and what was expected, with nothing changed;
    OSError when the disk does not do as asked.
    """
    # A predecessor that was killed may have left lines that are not on the disk yet; one whose sync failed, lines that
    # never will be, though the cache shows them. What counts from here on is what the disk says.
    log.sync()
    log.drop_cache()
    known_keys = tuple(keys)
    size, start, first = log.size(), log.parts()[0].offset, log.parts()[0].first
    heads = _heads(storage, known_keys, first)
    learning = _Learning(visit, keeper, start)
    carried = _carried(storage, first) if keeper is not None and first else None
    known = None
    if visit is None:
        known = _known(storage, log, known_keys, keeper, carried, now_ns // 1_000_000, heads, whole_bytes)
    if known is None:
        begun = begin(log, start, heads)
        if isinstance(begun, Problem):
            raise _damaged_at(storage, log, begun)
        if carried is not None:
            learning.carry(carried)
        found = _read(log, size, heads, learning, begun)
    else:
        learning.resume(known)
        later = {of: head for of, head in heads.items() if of > known.resume.size}
        found = _read(log, size, later, learning, known.standing())
    signed = max(heads, default=0)
    if (problem := found.problem) is not None:
        base = log.parts()[-1].offset
        if not (found.chain.size >= max(signed, 1) and is_torn(log, problem.offset, size, problem.seq, base)):
            raise _damaged_at(storage, log, problem)
    if carried is not None and known is None and learning.carried.get(first) != carried.sha256:
        raise _not_carried(storage, first, "it is not what the ledger.retired says that names it")
    if problem is not None:
        _set_aside(storage, log, problem, size, now_ns)
    names = [name for name in storage.names(QUARANTINE) if _TORN_NAME.fullmatch(name)]
    return Recovered(
        found.chain,
        found.end,
        signed,
        tuple(_describe(storage, name) for name in names if name not in learning.recorded),
        frozenset(learning.recorded.intersection(names)),
        learning.keeping,
        learning.durability,
        None if known is None else (known.head, known.resume.end),
        start if known is None or known.checked else known.resume.end,
    )


def _carried(storage: Storage, first: int) -> Carried:
    try:
        return Carried.decode(storage.read_whole(carried_name(first)), first)
    except (OSError, CarriedError) as error:
        raise _not_carried(storage, first, str(error)) from None


def _not_carried(storage: Storage, first: int, why: str) -> ConfigurationError:
    return ConfigurationError(
        "ledger_damaged",
        f"{storage.where()}/{carried_name(first)}, the lines of retired segments that are still needed: {why}",
        "nothing was changed; restore that file, or put back the segments before entry "
        f"{first} from a copy of the ledger (docs/ledger.md, Retention)",
    )


def _damaged_at(storage: Storage, log: LogFile, problem: Problem) -> ConfigurationError:
    """Names the file that the line is in, and counts the line there."""
    found = placed(problem, log.parts(), log)
    return _damaged(f"{storage.where()}/{found.file or LOG}", str(found))


def _read(log: LogFile, size: int, heads: dict[int, Checkpoint], learning: _Learning, since: Standing) -> Scan:
    return swift(log, size, heads, learning.see, since, wanted=learning.wanted, threads=processors())


def _known(
    storage: Storage,
    log: LogFile,
    keys: tuple[VerifierKey, ...],
    keeper: Keeper | None,
    carried: Carried | None,
    now_ms: int,
    heads: dict[int, Checkpoint],
    whole_bytes: int,
) -> Resumption | None:
    """What the last resume knows, if it may be believed; of a ledger that is not large, and its lines verified."""
    try:
        known = resumption(storage, log, keys, keeper, carried, now_ms)
        if known is None:
            return None
        start = log.parts()[0].offset
        if log.size() - start <= whole_bytes:
            begun = begin(log, start, heads)
            agreed = {**{of: head for of, head in heads.items() if of < known.resume.size}, known.head.size: known.head}
            if isinstance(begun, Problem) or swift(log, known.resume.end, agreed, None, begun).problem is not None:
                raise UnusableError("of the lines that it is about one is bad")
            known.checked = True
    except UnusableError as error:
        _log.warning("%s/resume is passed over, and every entry read: %s", storage.where(), error)
        return None
    return known
