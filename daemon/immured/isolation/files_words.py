"""What the broker says to a clerk for files, and how its answers are read: native/launcher/clerk_files_words.h. Pure.

A clerk is the payload, and reads what strangers wrote: an answer is taken strictly.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from immured._abi import lib

__all__ = [
    "MAX_PATH",
    "NO_FLAGS",
    "FilesAnswer",
    "FilesFlag",
    "FilesOp",
    "FilesRefusal",
    "FilesRow",
    "WordsError",
    "name_on_wire",
    "pack_question",
    "parse_files_answer",
]

MAX_PATH: Final[int] = lib.IMD_FILES_MAX_PATH

_HEADER: Final = struct.Struct("=IIQ")
_ASK: Final = struct.Struct("=IIIIQQ")
_ANSWER: Final = struct.Struct("=IiII4Q")
_ROW: Final = struct.Struct("=QQqIIIIHHI")


class FilesOp(IntEnum):
    """What is asked."""

    STAT = lib.IMD_FILES_STAT
    LIST = lib.IMD_FILES_LIST
    MKDIR = lib.IMD_FILES_MKDIR
    MOVE = lib.IMD_FILES_MOVE
    REMOVE = lib.IMD_FILES_REMOVE
    CHMOD = lib.IMD_FILES_CHMOD
    GLOB = lib.IMD_FILES_GLOB
    FOUND = lib.IMD_FILES_FOUND
    GET = lib.IMD_FILES_GET
    POUR = lib.IMD_FILES_POUR
    PUT = lib.IMD_FILES_PUT
    FILL = lib.IMD_FILES_FILL
    RESERVE = lib.IMD_FILES_RESERVE
    COMMIT = lib.IMD_FILES_COMMIT
    ARCHIVE = lib.IMD_FILES_ARCHIVE
    EXTRACT = lib.IMD_FILES_EXTRACT
    DONE = lib.IMD_FILES_DONE


class FilesFlag(IntFlag):
    """How, and what was found."""

    FOLLOW = lib.IMD_FILES_FOLLOW
    PARENTS = lib.IMD_FILES_PARENTS
    REPLACE = lib.IMD_FILES_REPLACE
    RECURSIVE = lib.IMD_FILES_RECURSIVE
    KEEP_MODE = lib.IMD_FILES_KEEP_MODE
    MORE = lib.IMD_FILES_MORE
    LOCAL = lib.IMD_FILES_LOCAL
    MEMORY = lib.IMD_FILES_MEMORY
    IN_PLACE = lib.IMD_FILES_IN_PLACE
    CUT = lib.IMD_FILES_CUT


NO_FLAGS: Final = FilesFlag(0)


class FilesRefusal(IntEnum):
    """Why not."""

    FAILED = lib.IMD_FILES_FAILED
    OUTSIDE = lib.IMD_FILES_OUTSIDE
    LINK = lib.IMD_FILES_LINK
    KIND = lib.IMD_FILES_KIND
    KERNEL = lib.IMD_FILES_KERNEL
    SETID = lib.IMD_FILES_SETID
    DEEP = lib.IMD_FILES_DEEP
    LARGE = lib.IMD_FILES_LARGE
    MALFORMED = lib.IMD_FILES_MALFORMED
    NAME = lib.IMD_FILES_NAME
    EXISTS = lib.IMD_FILES_EXISTS
    ACROSS = lib.IMD_FILES_ACROSS
    MOUNTED = lib.IMD_FILES_MOUNTED
    RACED = lib.IMD_FILES_RACED
    SHORT = lib.IMD_FILES_SHORT
    ORDER = lib.IMD_FILES_ORDER


class WordsError(Exception):
    """An answer that is none."""


_KINDS: Final[Mapping[int, str]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
}


def name_on_wire(name: bytes) -> str | bytes:
    """Text where it is UTF-8, the bytes where it is not."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


@dataclass(frozen=True, slots=True)
class FilesRow:
    """One file. `size` and `allocated` are bytes, `mode` st_mode; the ids are the sandbox's own. `name` is the whole
    path where a pattern found it; `target` is where a link points."""

    name: bytes
    size: int
    allocated: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    links: int
    target: bytes

    @property
    def kind(self) -> str:
        """`file`, `directory`, `link`, `fifo`, `socket`, `character`, `block`."""
        return _KINDS.get(stat.S_IFMT(self.mode), "unknown")

    def to_map(self) -> dict[str, object]:
        """As a reply holds it; `mode` is the permissions alone."""
        shown: dict[str, object] = {
            "kind": self.kind,
            "size": self.size,
            "allocated": self.allocated,
            "mode": stat.S_IMODE(self.mode),
            "uid": self.uid,
            "gid": self.gid,
            "links": self.links,
            "mtime_ns": self.mtime_ns,
        }
        if self.name:
            shown["name"] = name_on_wire(self.name)
        if self.kind == "link":
            shown["target"] = name_on_wire(self.target)
        return shown


@dataclass(frozen=True, slots=True)
class FilesAnswer:
    """An answer. `refusal` None: it was done; else `error` is an errno or 0 and `text` what to say."""

    refusal: FilesRefusal | None
    error: int
    flags: FilesFlag
    numbers: tuple[int, int, int, int]
    rows: tuple[FilesRow, ...]
    text: str


def pack_question(
    op: FilesOp,
    path: bytes = b"",
    second: bytes = b"",
    *,
    flags: FilesFlag = NO_FLAGS,
    mode: int = 0,
    numbers: tuple[int, int] = (0, 0),
) -> bytes:
    """A packet. Raises ValueError for a path that no clerk would take."""
    for one in (path, second):
        if len(one) > MAX_PATH or b"\0" in one:
            raise ValueError(f"a path of {len(one)} bytes, or with a NUL in it")
    length = _HEADER.size + _ASK.size + len(path) + len(second)
    return b"".join(
        (_HEADER.pack(op, length, 0), _ASK.pack(flags, mode, len(path), len(second), *numbers), path, second)
    )


def parse_files_answer(op: FilesOp, packet: bytes) -> FilesAnswer:
    """Raises WordsError."""
    try:
        type_, length, _ = _HEADER.unpack_from(packet)
        refusal, error, flags, count, *numbers = _ANSWER.unpack_from(packet, _HEADER.size)
        if type_ != op or length != len(packet):
            raise WordsError(f"an answer to {type_}, of {length} bytes")
        body = packet[_HEADER.size + _ANSWER.size :]
        told = FilesRefusal(refusal) if refusal else None
        rows = () if told else _rows(body, count)
    except (struct.error, ValueError) as wrong:
        raise WordsError(str(wrong)) from None
    first, second, third, fourth = numbers
    return FilesAnswer(
        told,
        error,
        FilesFlag(flags),
        (first, second, third, fourth),
        rows,
        body.decode("utf-8", "backslashreplace") if told else "",
    )


def _rows(body: bytes, count: int) -> tuple[FilesRow, ...]:
    rows, at = [], 0
    for _ in range(count):
        size, allocated, mtime, mode, uid, gid, links, name, target, _ = _ROW.unpack_from(body, at)
        at += _ROW.size
        if at + name + target > len(body):
            raise WordsError("a row that is cut")
        rows.append(
            FilesRow(
                body[at : at + name],
                size,
                allocated,
                mtime,
                mode,
                uid,
                gid,
                links,
                body[at + name : at + name + target],
            )
        )
        at += name + target
    if at != len(body):
        raise WordsError(f"{len(body) - at} bytes behind the rows")
    return tuple(rows)
