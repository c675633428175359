"""Verification of a ledger by whoever has its files: no daemon, no private key, no trust in the machine they are from.

What the chain alone cannot show, a checkpoint does: that lines at the end are missing, or that all from some line on
was written anew. Entries after the newest checkpoint (`Report.covered`) are linked, but nobody has signed them yet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from immured.ledger.checkpoint import Checkpoint, NoteError, VerifierKey, file_name, open_checkpoint
from immured.ledger.entry import Entry
from immured.ledger.reader import Problem, scan
from immured.ledger.recovery import checkpoint_names

__all__ = ["BadCheckpoint", "Report", "verify_file"]

_PATIENCE: Final = 25
_PAUSE: Final = 0.02


@dataclass(frozen=True, slots=True)
class BadCheckpoint:
    """A checkpoint file that proves nothing: its name and what is wrong with it."""

    file: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What verification found."""

    path: str
    origin: str
    """The ledger's name; empty when line 0 is bad."""
    entries: int
    """Good lines, counted up to the first problem."""
    bytes: int
    """Bytes of those lines."""
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

    @property
    def whole(self) -> bool:
        """Nothing is wrong."""
        return self.problem is None and not self.bad_checkpoints

    def as_dict(self) -> dict[str, object]:
        """For `--json`: absent means empty or none."""
        problem = self.problem
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
        }
        if problem is not None:
            described["problem"] = {
                "line": problem.line,
                "seq": problem.seq,
                "offset": problem.offset,
                "code": problem.code,
                "message": problem.message,
                "expected": problem.expected,
            }
        if self.bad_checkpoints:
            described["bad_checkpoints"] = [{"file": bad.file, "message": bad.message} for bad in self.bad_checkpoints]
        return {key: value for key, value in described.items() if value != ""}


class _File:
    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)


def _settled_size(file: _File, pause: Callable[[float], None]) -> int:
    """A size at which the last line ends in a newline, if there is one soon: a daemon may be writing right now."""
    size = file.size()
    for _ in range(_PATIENCE):
        if not size or file.read(size - 1, 1) == b"\n":
            break
        pause(_PAUSE)
        size = file.size()
    return size


def _heads(directory: Path, keys: tuple[VerifierKey, ...]) -> tuple[dict[int, Checkpoint], list[BadCheckpoint]]:
    heads: dict[int, Checkpoint] = {}
    bad: list[BadCheckpoint] = []
    for name in checkpoint_names(path.name for path in directory.iterdir()):
        try:
            head = open_checkpoint((directory / name).read_bytes(), keys)
        except NoteError as error:
            bad.append(BadCheckpoint(name, str(error)))
            continue
        if file_name(head.size) != name:
            bad.append(BadCheckpoint(name, f"it is of size {head.size}"))
            continue
        heads[head.size] = head
    return heads, bad


def verify_file(
    path: Path,
    checkpoints_dir: Path | None = None,
    vkeys: Iterable[VerifierKey] = (),
    *,
    visit: Callable[[Entry], None] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Report:
    """Verify a ledger's file, and its checkpoints against it where they and their verifier keys are given.

    Memory does not grow with the file. A file that is being written is verified up to the last whole line that it had.
    Raises OSError when a file cannot be read; everything else is in the report.
    """
    # Checkpoints before entries: those that come in between are of entries that this does not read any more.
    heads, bad = _heads(checkpoints_dir, tuple(vkeys)) if checkpoints_dir is not None else ({}, [])
    ends = ["", ""]

    def see(entry: Entry) -> None:
        ends[0], ends[1] = ends[0] or entry.ts, entry.ts
        if visit is not None:
            visit(entry)

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        file = _File(descriptor)
        found = scan(file, _settled_size(file, pause), heads, see)
    finally:
        os.close(descriptor)
    problem = found.problem
    good = found.chain.size if problem is None else min(found.chain.size, problem.seq)
    return Report(
        path=str(path),
        origin=found.chain.origin,
        entries=good,
        bytes=found.end,
        root=found.chain.tree.root().hex() if good == found.chain.size else "",
        first_ts=ends[0],
        last_ts=ends[1],
        covered=found.covered,
        checkpoints=len(heads),
        problem=problem,
        bad_checkpoints=tuple(bad),
    )
