"""Verification of a ledger by whoever has its files: no daemon, no private key, no trust in the machine they are from.

What the chain alone cannot show, a checkpoint does: that lines at the end are missing, or that all from some line on
was written anew. Entries after the newest checkpoint (`Report.covered`) are linked, but nobody has signed them yet.
Against whoever has the ledger's own key, too, only what others keep helps: witnesses' cosignatures, and anchors.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from immured.ledger.chain import Chain
from immured.ledger.checkpoint import Checkpoint, CosignKey, NoteError, VerifierKey
from immured.ledger.entry import MAX_LINE, Entry, LineError, parse_line
from immured.ledger.entry_types import LEDGER_DURABILITY, LEDGER_KEY_ROTATED, LEDGER_RETIRED
from immured.ledger.exports.seek import offset_of
from immured.ledger.key_rotation import KeyHistory
from immured.ledger.merkle import is_consistent
from immured.ledger.reader import Problem, Scan
from immured.ledger.scan import processors, swift
from immured.ledger.segments import Files
from immured.ledger.tree_store import TREE, NotStored, TreeDirectory, TreeReader
from immured.ledger.verify_first import begun
from immured.ledger.verify_heads import BadCheckpoint, Heads, Note, Seen, notes_of, read_note

__all__ = ["BadCheckpoint", "Report", "check", "verify_file"]

_PATIENCE: Final = 25
_PAUSE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Report:
    """What verification found."""

    path: str
    origin: str
    """The ledger's name; empty when line 0 is bad."""
    first: int
    """The first entry that is kept: 0, but for what was retired."""
    entries: int
    """The size of the ledger: good lines, counted up to the first problem, and those before `first`."""
    bytes: int
    """Where the good lines end in the ledger's stream."""
    root: str
    """Hex root of the tree over the good lines; empty when one of them was found altered."""
    first_ts: str
    last_ts: str
    covered: int
    """Entries under the largest checkpoint that agrees; those after it are chained but not signed."""
    checkpoints: int
    """Checkpoint files that were read and verified by signature."""
    problem: Problem | None
    """The first bad line."""
    bad_checkpoints: tuple[BadCheckpoint, ...]
    files: tuple[str, ...]
    """Which were read, oldest first."""
    keys: tuple[str, ...]
    """The verifier keys: those that were given, and those that the ledger says took their place."""
    seen: tuple[Seen, ...] = ()
    """What each witness saw last, of those that were asked for."""
    witnessed: int = 0
    """Entries that as many of them saw as were required."""
    unwitnessed: str = ""
    """Why that is not enough; empty when it is, or none was required."""
    unsynced: tuple[tuple[int, int], ...] = ()
    """Entries, first and last, that the ledger itself says nobody waited for the disk with."""

    @property
    def whole(self) -> bool:
        """Nothing is wrong."""
        return self.problem is None and not self.bad_checkpoints and not self.unwitnessed

    def as_dict(self) -> dict[str, object]:
        """For `--json`: absent means empty or none."""
        described: dict[str, object] = {
            "whole": self.whole,
            "path": self.path,
            "origin": self.origin,
            "entries": self.entries,
            "bytes": self.bytes,
            "root": self.root,
            "first_ts": self.first_ts,
            "last_ts": self.last_ts,
            "covered": self.covered,
            "checkpoints": self.checkpoints,
            "unwitnessed": self.unwitnessed,
        }
        if self.problem is not None:
            described["problem"] = self._problem(self.problem)
        if self.bad_checkpoints:
            described["bad_checkpoints"] = [{"file": bad.file, "message": bad.message} for bad in self.bad_checkpoints]
        if self.first:
            described["first"] = self.first
        if len(self.files) > 1:
            described["files"] = list(self.files)
        if self.keys:
            described["keys"] = list(self.keys)
        if self.unsynced:
            described["unsynced"] = [list(span) for span in self.unsynced]
        if self.seen:
            described["witnessed"] = self.witnessed
            described["witnesses"] = [
                {"key": one.witness.encode(), "size": one.size, "time": one.time_s} for one in self.seen
            ]
        return {key: value for key, value in described.items() if value != ""}

    def _problem(self, problem: Problem) -> dict[str, object]:
        return {
            "line": problem.line,
            "seq": problem.seq,
            "offset": problem.offset,
            "code": problem.code,
            "message": problem.message,
            "expected": problem.expected,
            **({"file": problem.file} if len(self.files) > 1 else {}),
        }


def verify_file(
    path: Path,
    checkpoints_dir: Path | None = None,
    vkeys: Iterable[VerifierKey] = (),
    *,
    witnessed_dir: Path | None = None,
    anchors: Iterable[Path] = (),
    witnesses: Sequence[CosignKey] = (),
    require: int = 0,
    visit: Callable[[Entry], None] | None = None,
    pause: Callable[[float], None] = time.sleep,
    threads: int | None = None,
) -> Report:
    """Verify a ledger's directory, or one file of it, and the checkpoints against it where they and keys are given.

    `witnessed_dir` has checkpoints with cosignatures, and `anchors` are checkpoints that were kept elsewhere; at least
    `require` of the `witnesses` must have seen the ledger. Keys that the ledger says took a known one's place are known
    from then on. Memory does not grow with the ledger. One that is being written is verified up to the last whole line
    that it had. Raises OSError when a file cannot be read; everything else is in the report.
    """
    # Checkpoints before entries: those that come in between are of entries that this does not read any more.
    notes = notes_of(checkpoints_dir) if checkpoints_dir is not None else []
    if witnessed_dir is not None and witnessed_dir.is_dir():
        notes += notes_of(witnessed_dir, f"{witnessed_dir.name}/")
    notes += [Note(str(anchor), read_note(anchor)) for anchor in anchors]
    tree = TreeDirectory(path / TREE) if path.is_dir() else None
    with Files.at(path) as files, contextlib.closing(tree) if tree is not None else contextlib.nullcontext():
        one = _Verification(files, notes, tuple(vkeys), witnesses, visit, tree)
        found = one.run(_settled_size(files, pause), processors() if threads is None else threads)
        problem = files.placed(found.problem) if found.problem is not None else None
        return Report(
            path=str(path),
            origin=found.chain.origin,
            first=files.first,
            entries=(good := found.chain.size if problem is None else min(found.chain.size, problem.seq)),
            bytes=found.end,
            root=found.chain.tree.root().hex() if good == found.chain.size else "",
            first_ts=one.first_ts() if found.end > files.start else "",
            last_ts=found.chain.last_ts,
            covered=found.covered,
            checkpoints=len(one.heads.by_size),
            problem=problem,
            bad_checkpoints=one.heads.bad,
            files=tuple(part.name for part in files.parts),
            keys=tuple(key.encode() for key in one.keys.known),
            seen=one.heads.seen,
            witnessed=one.heads.witnessed(require),
            unwitnessed=_unwitnessed(one.heads, require) if problem is None else "",
            unsynced=_unsynced(one.modes, good),
        )


def _unwitnessed(heads: Heads, require: int) -> str:
    if heads.witnessed(require) or not require:
        return ""
    saw = len({one.witness.public for one in heads.seen})
    return f"{saw} of the given witnesses cosigned one of its checkpoints, {require} are required"


def check(
    files: Files,
    size: int,
    heads: Mapping[int, Checkpoint],
    visit: Callable[[Entry], None] | None = None,
    *,
    wanted: Collection[str] | None = (),
    threads: int = 1,
) -> Scan:
    """One pass over a ledger's files up to byte `size` of its stream, against heads that are good.

    `visit` sees the entries of the `wanted` types, None: all. What is missing at the beginning has to be explained by a
    `ledger.retired`, but where one file is looked at by itself. Raises OSError.
    """
    start = files.start
    standing = begun(files, heads)
    if isinstance(standing, Problem):
        return Scan(Chain(), start, standing, 0)
    first = standing.chain.size
    retired: list[tuple[int, int]] = []  # an entry that says so, and up to where

    def see(entry: Entry) -> None:
        if entry.type == LEDGER_RETIRED and isinstance(upto := entry.data.get("first"), int):
            retired.append((entry.seq, upto))
        if visit is not None and (wanted is None or entry.type in wanted):
            visit(entry)

    types = None if wanted is None and visit is not None else {LEDGER_RETIRED, *(wanted or ())}
    found = swift(files, size, heads, see, standing, wanted=types, threads=threads)
    if found.problem is not None or files.single:
        return found
    # Anybody who can write the files can add one that no head covers.
    explained = max((upto for seq, upto in retired if seq < found.covered or not heads), default=0)
    if explained < first:
        message = f"the ledger begins with entry {first}, and none of its own says that those before it were retired"
        problem = Problem(first + 1, start, "missing_lines", message, "ledger.created, or a ledger.retired")
        return Scan(found.chain, start, problem, found.covered)
    return found


def _unsynced(modes: Sequence[tuple[int, str]], size: int) -> tuple[tuple[int, int], ...]:
    """From each entry that says so to the one before the next that says otherwise."""
    spans: list[tuple[int, int]] = []
    began: int | None = None
    for seq, mode in [*modes, (size, "full")]:
        if mode == "none" and began is None:
            began = seq
        elif mode != "none" and began is not None and began < size:
            spans.append((began, seq - 1))
            began = None
    return tuple(spans)


class _Verification:
    """One ledger's: which heads there are depends on the keys, and those on the ledger's lines."""

    def __init__(
        self,
        files: Files,
        notes: Sequence[Note],
        vkeys: tuple[VerifierKey, ...],
        witnesses: Sequence[CosignKey],
        visit: Callable[[Entry], None] | None,
        tree: TreeDirectory | None,
    ) -> None:
        self._files, self._notes, self._vkeys, self._witnesses, self._visit = files, notes, vkeys, witnesses, visit
        self._tree = tree
        self._visited = -1
        self.modes: list[tuple[int, str]] = []
        """Entries that say whether the ledger waits for the disk."""
        self.keys = KeyHistory(vkeys)
        self.heads = self._read_heads()

    def run(self, size: int, threads: int) -> Scan:
        """To the first problem; again, where the lines say of keys that other heads count than those looked at. Every
        time another rotation more has been read, so it ends."""
        while True:
            rotations: list[Entry] = []
            found = self._scan(size, threads, rotations)
            self.keys = KeyHistory(self._vkeys)
            for entry in rotations:
                try:
                    self.keys.take(entry)
                except NoteError as error:
                    problem = self._misrotated(entry, str(error))
                    return Scan(found.chain, problem.offset, problem, min(found.covered, entry.seq))
            before = self.heads.by_size
            if rotations:
                self.heads = self._read_heads()
            if self.heads.by_size == before:
                return found

    def _read_heads(self) -> Heads:
        return Heads.read(self._notes, self.keys, self._witnesses, self._files.first, self._leads)

    def _leads(self, older: Checkpoint, newer: Checkpoint) -> bool:
        """Whether the stored hashes show that the ledger of one head is the beginning of the other's. They are not
        believed: they lead from the one root to the other, or they do not."""
        if self._tree is None:
            return False
        try:
            path = TreeReader(self._tree).consistency(older.size, newer.size)
        except (OSError, NotStored, ValueError):
            return False
        same = older.origin == newer.origin
        return same and is_consistent(older.size, older.root, newer.size, newer.root, path)

    def _scan(self, size: int, threads: int, rotations: list[Entry]) -> Scan:
        self.modes.clear()

        def see(entry: Entry) -> None:
            if entry.type == LEDGER_KEY_ROTATED:
                rotations.append(entry)
            elif entry.type == LEDGER_DURABILITY:
                self.modes.append((entry.seq, str(entry.data.get("mode"))))
            if self._visit is not None and entry.seq > self._visited:
                self._visited = entry.seq
                self._visit(entry)

        wanted = {LEDGER_DURABILITY, LEDGER_KEY_ROTATED} if self._visit is None else None
        return check(self._files, size, self.heads.by_size, see, wanted=wanted, threads=threads)

    def _misrotated(self, entry: Entry, message: str) -> Problem:
        offset = offset_of(self._files.read, self._files.start, self._files.size(), entry.seq)
        return Problem(entry.seq + 1, offset, "bad_key_rotation", message, "what the old key signed")

    def first_ts(self) -> str:
        """Of the first entry that is kept."""
        try:
            return parse_line(self._files.read(self._files.start, MAX_LINE + 1).partition(b"\n")[0]).ts
        except LineError:
            return ""


def _settled_size(files: Files, pause: Callable[[float], None]) -> int:
    """A size at which the last line ends in a newline, if there is one soon: a daemon may be writing right now."""
    size = files.size()
    for _ in range(_PATIENCE):
        if size <= files.start or files.read(size - 1, 1) == b"\n":
            break
        pause(_PAUSE)
        size = files.size()
    return size
