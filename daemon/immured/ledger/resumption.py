"""What is known of a ledger by its `resume`, once that is held against the ledger itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from immured.ledger.carried import Carried
from immured.ledger.chain import Chain
from immured.ledger.checkpoint import Checkpoint, NoteError, VerifierKey, file_name, open_checkpoint
from immured.ledger.entry import MAX_LINE, Entry, LineError, leaf_hash, parse_line
from immured.ledger.keeping import Keeper, Kept
from immured.ledger.reader import Readable, Standing
from immured.ledger.resume import RESUME, Resume, UnusableError
from immured.ledger.storage import LogFile, Storage

__all__ = ["CHECKPOINTS", "Resumption", "resumption"]

CHECKPOINTS: Final = "checkpoints"
_AHEAD: Final = 8_192  # what is needed often stands close together


class _Lines:
    """Lines of the stream by where they begin, each without its newline."""

    def __init__(self, log: Readable, start: int, carried: Carried | None) -> None:
        """`carried` has those that began before byte `start`, where the log begins."""
        self._log, self._first, self._carried = log, start, carried
        self._start = 0
        self._held = b""

    def at(self, offset: int) -> bytes:
        """Raises UnusableError, OSError."""
        if offset < self._first:
            line = None if self._carried is None else self._carried.at(offset)
            if line is None:
                raise UnusableError(f"the line at byte {offset} was retired, and not carried on")
            return line
        begins = offset - self._start
        ends = self._held.find(b"\n", begins) if 0 <= begins < len(self._held) else -1
        if ends < 0:
            for length in (_AHEAD, MAX_LINE + 1):
                self._start, self._held, begins = offset, self._log.read(offset, length), 0
                ends = self._held.find(b"\n")
                if ends >= 0:
                    break
            else:
                raise UnusableError(f"no line begins at byte {offset}")
        return self._held[begins:ends]


@dataclass(slots=True)
class Resumption:
    """A resume that the ledger bears out."""

    resume: Resume
    head: Checkpoint
    """The checkpoint of its size."""
    last: Entry
    """The last entry that it is about."""
    kept: Sequence[Kept]
    """What is still needed of those, in order; their leaf hashes were compared."""
    horizon_ms: int
    lines: _Lines
    checked: bool = False
    """Whether all the lines that it is about were verified since."""

    def standing(self) -> Standing:
        """Where to read on."""
        chain = Chain()
        chain.tree = self.resume.tree.copy()
        chain.origin, chain.last_leaf, chain.last_ts = self.resume.origin, self.last.leaf.hex(), self.last.ts
        end = self.resume.end
        return Standing(chain, end, end - len(self.last.line) - 1, self.resume.size, end)

    def entries(self) -> Iterator[tuple[Kept, Entry]]:
        """The lines that are needed. Raises UnusableError, OSError."""
        for kept in self.kept:
            yield kept, _known(self.lines.at(kept.offset), kept)


def resumption(
    storage: Storage,
    log: LogFile,
    keys: tuple[VerifierKey, ...],
    keeper: Keeper | None,
    carried: Carried | None,
    now_ms: int,
) -> Resumption | None:
    """What the resume knows; None where there is none. `carried` has lines of segments that were retired. Raises
    UnusableError for one that may not be believed."""
    try:
        content = storage.read_whole(RESUME)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnusableError(str(error)) from None
    resume = Resume.decode(content, keys)
    if keeper is not None and resume.rules != keeper.rules:
        raise UnusableError("another version wrote it")
    if resume.kept.horizon_ms > now_ms:
        raise UnusableError("the clock was set back since it was written")
    head = _head(storage, keys, resume)
    resume.check(head)
    start = log.parts()[0].offset
    if not start < resume.end <= log.size():
        raise UnusableError(f"it is about lines up to byte {resume.end}, and the ledger ends at {log.size()}")
    last = _last(log, start, resume)
    kept, horizon_ms = resume.kept.live(now_ms) if keeper is not None else ([], 0)
    lines = _Lines(log, start, carried)
    for one in kept:
        if leaf_hash(lines.at(one.offset)) != one.leaf:
            raise UnusableError(f"entry {one.seq} is not the one that it knows")
    return Resumption(resume, head, last, kept, horizon_ms, lines)


def _head(storage: Storage, keys: tuple[VerifierKey, ...], resume: Resume) -> Checkpoint:
    try:
        return open_checkpoint(storage.read_whole(f"{CHECKPOINTS}/{file_name(resume.size)}"), keys)
    except (OSError, NoteError) as error:
        raise UnusableError(f"the checkpoint of its size: {error}") from None


def _last(log: Readable, start: int, resume: Resume) -> Entry:
    """The entry that ends where it says."""
    begins = max(start, resume.end - MAX_LINE - 2)
    _, newline, line = log.read(begins, resume.end - begins)[:-1].rpartition(b"\n")
    if not newline and begins != start:
        raise UnusableError(f"no line ends at byte {resume.end}")
    entry = _entry(line, resume.size - 1)
    if entry.leaf != resume.leaf or log.read(resume.end - 1, 1) != b"\n":
        raise UnusableError(f"the line that ends at byte {resume.end} is not the one that it knows")
    return entry


def _entry(line: bytes, seq: int) -> Entry:
    try:
        entry = parse_line(line)
    except LineError as error:
        raise UnusableError(f"entry {seq}: {error}") from None
    if entry.seq != seq:
        raise UnusableError(f"where entry {seq} should be is entry {entry.seq}")
    return entry


def _known(line: bytes, kept: Kept) -> Entry:
    """A line that has the leaf hash of one that was found good: what is strict about JSON is done."""
    fields = json.loads(line)
    return Entry(
        kept.seq, fields["ts"], fields["type"], fields["actor"], fields["data"], fields["prev"], kept.leaf, line
    )
