"""A ledger's files as the one stream of bytes that they are: sealed segments, oldest first, then what is written now.

    with Files.at(state / "ledger") as files:
        files.read(files.start, 65_536)

Offsets are the stream's: they never change, whatever is sealed or retired while somebody reads. A copy that is one file
is the same stream. Nothing here is trusted: where a file begins is what its first line and the files before it say, and
whether that is so is for verification to find.
"""

from __future__ import annotations

import bisect
import errno
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final

from immured.ledger.entry import MAX_LINE, LineError, parse_line
from immured.ledger.entry_types import LEDGER_ROTATED
from immured.ledger.reader import Problem, Readable

__all__ = ["LOG", "NEXT", "Files", "Part", "begins_at", "placed", "segment_name", "segment_names"]

LOG: Final = "current.jsonl"
NEXT: Final = "next.jsonl"
"""What will be written next, while a file is being sealed; for an instant it is the last that there is."""

_NAME: Final = re.compile(r"[0-9]{20}\.jsonl")
_OPEN: Final = 8  # descriptors of sealed segments that are kept; there may be thousands of segments
_PATIENCE: Final = 100  # looks at a directory in which a rotation is under way
_CHUNK: Final = 1 << 20
_COMPARED: Final = 4_096
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
# The broker's stays open from when it was root: a place to start from, with no right to anything in it.
_HELD: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def segment_name(first: int) -> str:
    """The sealed segment whose first entry is `first`: names sort as entries do."""
    return f"{first:020d}.jsonl"


def segment_names(directory: int) -> list[str]:
    """Those of a ledger's directory, which has to be open for reading, oldest first. Raises OSError."""
    return sorted(name for name in os.listdir(directory) if _NAME.fullmatch(name))


def begins_at(line: bytes) -> tuple[int, int]:
    """Which entry a file begins with whose first line (without its newline) this is, and where in the stream.

    (0, 0) where it does not say: the file is a ledger's beginning, or damaged.
    """
    try:
        entry = parse_line(line)
    except LineError:
        return 0, 0
    at = entry.data.get("bytes")
    if entry.type != LEDGER_ROTATED or not isinstance(at, int) or isinstance(at, bool) or at < 0:
        return 0, 0
    return entry.seq, at


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the stream."""

    name: str
    """In the ledger's directory."""
    first: int
    """Its first entry, as its name or its first line says."""
    offset: int
    """Where in the stream it begins."""
    size: int
    """Bytes, when it was looked at: only the last one grows."""

    @property
    def end(self) -> int:
        return self.offset + self.size


def placed(problem: Problem, parts: Sequence[Part], stream: Readable) -> Problem:
    """The same problem, with the file that it is in, and the line as it counts there: lines before it may be missing,
    so they are counted in the file. Raises OSError."""
    part = parts[index_of(parts, problem.offset)]
    line, at = 1, part.offset
    while at < problem.offset:
        data = stream.read(at, min(_CHUNK, problem.offset - at))
        if not data:
            break
        line, at = line + data.count(b"\n"), at + len(data)
    return replace(problem, file=part.name, line=line, before=problem.seq - line + 1)


def index_of(parts: Sequence[Part], offset: int) -> int:
    """Which of them holds this byte."""
    return max(0, bisect.bisect_right(parts, offset, key=lambda part: part.offset) - 1)


class Files:
    """A ledger's stream, to be read by one thread. What grows is seen by `size`; what was rotated, after `refresh`."""

    @classmethod
    def at(cls, path: Path) -> Files:
        """Of a ledger's directory (`DIR/ledger`, or a copy), or of one file by itself. Raises OSError."""
        return cls.open(path) if path.is_dir() else cls.alone(path)

    @classmethod
    def open(cls, directory: Path | int) -> Files:
        """Of a ledger's directory; a descriptor stays the caller's. FileNotFoundError where there is no ledger."""
        if isinstance(directory, int):
            return cls(os.open(".", _HELD, dir_fd=directory), f"/proc/self/fd/{directory}")
        return cls(os.open(directory, _HELD), os.fspath(directory))

    @classmethod
    def alone(cls, path: Path) -> Files:
        """Of one file: a whole ledger, or one that begins where another was sealed. Raises OSError."""
        directory = os.open(path.parent, _HELD)
        return cls(directory, os.fspath(path.parent), path.name)

    def __init__(self, directory: int, where: str, alone: str = "") -> None:
        self._directory = directory
        self._where = where
        self._alone = alone
        self._current, self._written = -1, alone or LOG
        self._sealed: OrderedDict[str, int] = OrderedDict()
        self._parts: tuple[Part, ...] = ()
        try:
            self._look()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Files:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what there is

    @property
    def single(self) -> bool:
        """It is one file, looked at by itself."""
        return bool(self._alone)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The files, oldest first, as they were at the last look."""
        return self._parts

    @property
    def start(self) -> int:
        """Offset of the first byte that is kept: 0, but for what was retired."""
        return self._parts[0].offset

    @property
    def first(self) -> int:
        """The entry that begins there."""
        return self._parts[0].first

    def size(self) -> int:
        """Where the stream ends now, in the files that are known."""
        last = self._parts[-1]
        return last.offset + (os.fstat(self._current).st_size if self._current >= 0 else last.size)

    def locate(self, offset: int) -> tuple[str, int]:
        """The file that holds this byte, and where in it. What is past the end would be in the last one."""
        part = self._parts[index_of(self._parts, offset)]
        return part.name, offset - part.offset

    def before(self, seq: int) -> Part:
        """The file to begin with, to find this entry."""
        return self._parts[max(0, bisect.bisect_right(self._parts, seq, key=lambda part: part.first) - 1)]

    def placed(self, problem: Problem) -> Problem:
        """The same problem, with the file that it is in, and the line as it counts there."""
        return placed(problem, self._parts, self)

    # --- what it says

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes; fewer at the end, none past it. Raises OSError: of a segment that is gone, too."""
        if offset < self.start:
            raise OSError(errno.ENOENT, f"the ledger is kept from byte {self.start} on, not from {offset}", self._where)
        pieces: list[bytes] = []
        index = index_of(self._parts, offset)
        while length > 0 and index < len(self._parts):
            part = self._parts[index]
            last = index == len(self._parts) - 1 and self._current >= 0
            wanted = length if last else min(length, part.end - offset)
            piece = os.pread(self._descriptor(part), wanted, offset - part.offset) if wanted > 0 else b""
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
            if last or offset < part.end:
                if not piece:
                    break
                continue
            index += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def refresh(self) -> bool:
        """Look again: whether something was sealed, or retired, since; a stat where nothing was. Raises OSError."""
        if self._alone or not self._changed():
            return False
        known = self._parts
        self._look()
        return [part.name for part in known] != [part.name for part in self._parts]

    def close(self) -> None:
        """Give up every descriptor."""
        held = [*self._sealed.values(), self._current, self._directory]
        self._sealed.clear()
        self._current = self._directory = -1
        for fd in held:
            if fd >= 0:
                os.close(fd)

    # --- how it is found

    def _descriptor(self, part: Part) -> int:
        if part is self._parts[-1] and self._current >= 0:
            return self._current
        if part.name in self._sealed:
            self._sealed.move_to_end(part.name)
            return self._sealed[part.name]
        self._sealed[part.name] = fd = self._opened(part.name)
        while len(self._sealed) > _OPEN:
            os.close(self._sealed.popitem(last=False)[1])
        return fd

    def _opened(self, name: str) -> int:
        """No symlink is followed but the one that somebody named, and no FIFO or device is waited for."""
        try:
            fd = os.open(name, _FLAGS | (0 if self._alone else os.O_NOFOLLOW), dir_fd=self._directory)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{self._where}/{name}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", f"{self._where}/{name}")
        return fd

    def _segments(self) -> list[str]:
        try:
            directory = os.open(".", _FLAGS | os.O_DIRECTORY, dir_fd=self._directory)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._where) from None
        try:
            return segment_names(directory)
        finally:
            os.close(directory)

    def _changed(self) -> bool:
        """Whether another file is written now than when it was last looked; or one that was read is gone."""
        if self._current < 0 or self._written != LOG:
            return True
        try:
            now, then = os.stat(LOG, dir_fd=self._directory, follow_symlinks=False), os.fstat(self._current)
            os.stat(self._parts[0].name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino)

    def _look(self) -> None:
        """Find the files. A rotation renames two of them and a retirement takes some away: what counts is a look during
        which nothing came or went."""
        found = self._found()
        while found is None:
            found = self._found()
        last, written, parts = found
        for fd in (self._current, *self._sealed.values()):
            if fd >= 0:
                os.close(fd)
        self._sealed.clear()
        self._current, self._written, self._parts = last, written, parts

    def _found(self) -> tuple[int, str, tuple[Part, ...]] | None:
        """What is written now, its name, and all parts; None where a segment was retired meanwhile."""
        if self._alone:
            current, written, names = self._opened(self._alone), self._alone, list[str]()
        else:
            current, written, names = self._settled()
        try:
            last, parts = self._laid_out(names, written, current)
        except FileNotFoundError:
            os.close(current)
            if self._alone or self._segments() == names:
                raise
            return None
        except BaseException:
            os.close(current)
            raise
        return last, written, parts

    def _settled(self) -> tuple[int, str, list[str]]:
        """What is written now, its name, and the segments: two looks at these, between which nothing came or went."""
        missed: list[str] | None = None
        for _ in range(_PATIENCE):
            names = self._segments()
            written = LOG
            try:
                current = self._opened(LOG)
            except FileNotFoundError:
                found = self._next(names)
                if found is None:
                    # The one may have become the other between the two attempts: it is missing where it was so twice,
                    # and nothing was sealed meanwhile.
                    if missed == names:
                        raise
                    missed = names
                    continue
                current, written = found, NEXT
            if self._segments() == names:
                return current, written, names
            os.close(current)
        raise OSError(errno.EAGAIN, "its segments come and go faster than they can be read", self._where)

    def _next(self, names: list[str]) -> int | None:
        """The file that goes on where the last segment ends, without its name yet: so a crash can leave it."""
        try:
            fd = self._opened(NEXT)
        except FileNotFoundError:
            return None
        if names and begins_at(_first_line(fd))[0] > _first(names[-1]):
            return fd
        os.close(fd)
        return None

    def _laid_out(self, names: list[str], written: str, current: int) -> tuple[int, tuple[Part, ...]]:
        """The parts, and the descriptor of the last, -1 where it is a sealed one."""
        sizes = [os.stat(name, dir_fd=self._directory, follow_symlinks=False).st_size for name in names]
        first, offset = begins_at(_first_line(current))
        last, grown = current, os.fstat(current).st_size
        if names and _first(names[-1]) == first and self._goes_on(names[-1], current, min(sizes[-1], grown)):
            # One of the two is the other: between a rotation's two steps, or copied before and after one.
            if grown >= sizes[-1]:
                names, sizes = names[:-1], sizes[:-1]
            else:
                last = -1
        parts: list[Part] = []
        for name, size in zip(names, sizes, strict=True):
            begins = (_first(name), parts[-1].end) if parts else self._begins(name)
            parts.append(Part(name, *begins, size))
        if last >= 0:
            if parts:
                # Where its first line does not say, bisecting needs an order all the same.
                first, offset = max(first, parts[-1].first + 1), parts[-1].end
            parts.append(Part(written, first, offset, grown))
        if last < 0:
            os.close(current)
        return last, tuple(parts)

    def _goes_on(self, name: str, current: int, size: int) -> bool:
        """Whether both begin with the same bytes: the first line of so many, and the last of them."""
        fd = self._opened(name)
        try:
            end = max(0, size - _COMPARED)
            same = os.pread(fd, size - end, end) == os.pread(current, size - end, end)
            return same and _first_line(fd) == _first_line(current)
        finally:
            os.close(fd)

    def _begins(self, name: str) -> tuple[int, int]:
        """Of the oldest segment: its first entry, as its name says, and where its first line says that it begins."""
        return _first(name), begins_at(self._line(name))[1]

    def _line(self, name: str) -> bytes:
        fd = self._opened(name)
        try:
            return _first_line(fd)
        finally:
            os.close(fd)


def _first(name: str) -> int:
    return int(name[: -len(".jsonl")])


def _first_line(fd: int) -> bytes:
    return os.pread(fd, MAX_LINE + 1, 0).partition(b"\n")[0]
