"""What broker and clerk for change sets say to each other: native/launcher/clerk_changes_words.h.

Pure. What the clerk tells was written by a payload: it is taken strictly.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from immured._abi import lib

__all__ = [
    "CONFLICTS",
    "GO",
    "NO_SET",
    "Change",
    "ChangeKind",
    "ChangesAnswer",
    "ChangesFlag",
    "ChangesRefusal",
    "ChangesVerb",
    "ChangesWord",
    "Side",
    "Staged",
    "Trouble",
    "WordsError",
    "pack_question",
    "parse_changes_answer",
]

_HEADER: Final = struct.Struct("=IIQ")
_ASK: Final = struct.Struct("=IIIIII32sQ32s40s")
_BEGUN: Final = struct.Struct("=Q32s40s")
_ANSWER: Final = struct.Struct("=IIIi32s")
_ROW: Final = struct.Struct("=IIIIIIQQ32s32sIIII")

NO_SET: Final = bytes(32)


class WordsError(Exception):
    """These bytes are no answer."""


class ChangesVerb(IntEnum):
    """What is asked."""

    LIST = lib.IMD_CHANGES_LIST
    OPEN = lib.IMD_CHANGES_OPEN
    ACCEPT = lib.IMD_CHANGES_ACCEPT
    DISCARD = lib.IMD_CHANGES_DISCARD
    RECOVER = lib.IMD_CHANGES_RECOVER


class ChangesFlag(IntFlag):
    """How."""

    OVER_CONFLICTS = lib.IMD_CHANGES_OVER_CONFLICTS
    AS_LISTED = lib.IMD_CHANGES_AS_LISTED


class ChangesWord(IntEnum):
    """What is answered."""

    ROWS = lib.IMD_CHANGES_ROWS
    DONE = lib.IMD_CHANGES_DONE
    REFUSED = lib.IMD_CHANGES_REFUSED
    CONTENT = lib.IMD_CHANGES_CONTENT
    BEGUN = lib.IMD_CHANGES_BEGUN


class ChangesRefusal(IntEnum):
    """Why not."""

    BAD_QUESTION = lib.IMD_CHANGES_BAD_QUESTION
    NOBODY = lib.IMD_CHANGES_NOBODY
    NO_PLACE = lib.IMD_CHANGES_NO_PLACE
    MOVED = lib.IMD_CHANGES_MOVED
    DENIED = lib.IMD_CHANGES_DENIED
    ROOT_OWNED = lib.IMD_CHANGES_ROOT_OWNED
    CONFLICT = lib.IMD_CHANGES_CONFLICT
    PROTECTED = lib.IMD_CHANGES_PROTECTED
    UNACCEPTABLE = lib.IMD_CHANGES_UNACCEPTABLE
    DIFFERENT = lib.IMD_CHANGES_DIFFERENT
    INCOMPLETE = lib.IMD_CHANGES_INCOMPLETE
    TOO_MANY = lib.IMD_CHANGES_TOO_MANY
    BUSY = lib.IMD_CHANGES_BUSY
    FAILED = lib.IMD_CHANGES_FAILED
    TORN = lib.IMD_CHANGES_TORN


class ChangeKind(IntEnum):
    """What became of a name."""

    CREATED = lib.IMD_CHANGE_CREATED
    MODIFIED = lib.IMD_CHANGE_MODIFIED
    DELETED = lib.IMD_CHANGE_DELETED
    RENAMED = lib.IMD_CHANGE_RENAMED
    MODE = lib.IMD_CHANGE_MODE


class Trouble(IntEnum):
    """Why a change cannot simply be accepted."""

    CHANGED = lib.IMD_CHANGE_CHANGED
    GONE = lib.IMD_CHANGE_GONE
    REPLACED = lib.IMD_CHANGE_REPLACED
    HIDDEN = lib.IMD_CHANGE_HIDDEN
    MOUNTED = lib.IMD_CHANGE_MOUNTED
    FOREIGN = lib.IMD_CHANGE_FOREIGN
    PROTECTED = lib.IMD_CHANGE_PROTECTED
    SPECIAL = lib.IMD_CHANGE_SPECIAL
    SETID = lib.IMD_CHANGE_SETID
    HUGE = lib.IMD_CHANGE_HUGE
    UNREADABLE = lib.IMD_CHANGE_UNREADABLE


CONFLICTS: Final = frozenset(one for one in Trouble if one <= lib.IMD_CHANGE_LAST_CONFLICT)
"""The host's side changed: `force` goes over these, and over nothing else."""


@dataclass(frozen=True, slots=True)
class Side:
    """What stood at a name, or stands there now. `mode` is st_mode; `size` of a directory that is to go: its names."""

    mode: int
    size: int
    digest: bytes
    link: bytes

    @property
    def kind(self) -> str:
        """`file`, `directory`, `link` or `special`."""
        return _KINDS.get(stat.S_IFMT(self.mode), "special")

    def to_map(self) -> dict[str, object]:
        shown: dict[str, object] = {"kind": self.kind, "mode": stat.S_IMODE(self.mode), "size": self.size}
        if any(self.digest):
            shown["sha256"] = self.digest
        if self.kind == "link":
            shown["link"] = _name(self.link)
        return shown


_KINDS: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


@dataclass(frozen=True, slots=True)
class Change:
    """One name in a captured directory, from there. `former`: of RENAMED."""

    kind: ChangeKind
    path: bytes
    former: bytes
    trouble: Trouble | None
    before: Side | None
    after: Side | None

    def to_map(self, target: bytes) -> dict[str, object]:
        """As clients are told; paths as they are inside."""
        shown: dict[str, object] = {"kind": self.kind.name.lower(), "path": _within(target, self.path)}
        if self.former:
            shown["from"] = _within(target, self.former)
        if self.trouble is not None:
            shown["trouble"] = self.trouble.name.lower()
            shown["conflict"] = self.trouble in CONFLICTS
        if self.before is not None:
            shown["before"] = self.before.to_map()
        if self.after is not None:
            shown["after"] = self.after.to_map()
        return shown


@dataclass(frozen=True, slots=True)
class ChangesAnswer:
    """One packet. `refusal` and `text` of REFUSED; `digest` is the set's."""

    word: ChangesWord
    count: int
    digest: bytes
    changes: tuple[Change, ...] = ()
    refusal: ChangesRefusal | None = None
    error: int = 0
    text: bytes = b""
    begun: Staged | None = None


@dataclass(frozen=True, slots=True)
class Staged:
    """An acceptance: the captured directory's inode, its journal's digest, and the name in there."""

    inode: int
    journal: bytes
    staging: bytes


def pack_question(
    verb: ChangesVerb,
    target: bytes,
    *,
    paths: Sequence[bytes] = (),
    skips: Sequence[bytes] = (),
    protects: Sequence[bytes] = (),
    flags: ChangesFlag | None = None,
    digest: bytes = NO_SET,
    staged: Staged | None = None,
) -> tuple[bytes, bytes]:
    """The packet, and the texts that go along in a memfd. Raises ValueError for more than the clerk reads."""
    texts = b"".join(len(one).to_bytes(4, "little") + one for one in (target, *paths, *skips, *protects))
    if len(texts) > lib.IMD_CHANGES_MAX_TEXTS:
        raise ValueError("more paths than a question holds")
    ask = _ASK.pack(int(flags or 0), 0, len(paths), len(skips), len(protects), 0, digest,
                    *((staged.inode, staged.journal, staged.staging) if staged else (0, b"", b"")))  # fmt: skip
    return _HEADER.pack(int(verb), _HEADER.size + len(ask), 0) + ask, texts


GO: Final = _HEADER.pack(0, _HEADER.size, 0)
"""What BEGUN is answered with."""


def parse_changes_answer(packet: bytes) -> ChangesAnswer:
    """Raises WordsError."""
    if len(packet) < _HEADER.size + _ANSWER.size:
        raise WordsError("short")
    kind, length, _ = _HEADER.unpack_from(packet)
    count, code, size, error, digest = _ANSWER.unpack_from(packet, _HEADER.size)
    body = packet[_HEADER.size + _ANSWER.size :]
    try:
        word = ChangesWord(kind)
        if length != len(packet):
            raise WordsError("length")
        if word is ChangesWord.REFUSED:
            if size != len(body):
                raise WordsError("text")
            return ChangesAnswer(word, count, digest, refusal=ChangesRefusal(code), error=error, text=body)
        if word is ChangesWord.BEGUN:
            if len(body) != _BEGUN.size:
                raise WordsError("begun")
            inode, journal, staging = _BEGUN.unpack(body)
            return ChangesAnswer(word, count, digest, begun=Staged(inode, journal, staging.rstrip(b"\0")))
        return ChangesAnswer(word, count, digest, tuple(_rows(body)))
    except ValueError as problem:
        raise WordsError(str(problem)) from None


def _rows(body: bytes) -> list[Change]:
    found = []
    while body:
        if len(body) < _ROW.size:
            raise WordsError("row")
        (length, kind, trouble, _, before_mode, after_mode, before_size, after_size, before_digest, after_digest,
         *lengths) = _ROW.unpack_from(body)  # fmt: skip
        if not _ROW.size + sum(lengths) <= length <= len(body):
            raise WordsError("row")
        texts, at = [], _ROW.size
        for one in lengths:
            texts.append(body[at : at + one])
            at += one
        found.append(
            Change(
                ChangeKind(kind),
                texts[0],
                texts[1],
                Trouble(trouble) if trouble else None,
                Side(before_mode, before_size, before_digest, texts[2]) if before_mode else None,
                Side(after_mode, after_size, after_digest, texts[3]) if after_mode else None,
            )
        )
        body = body[length:]
    return found


def _within(target: bytes, path: bytes) -> str | bytes:
    return _name(target + b"/" + path if path else target)


def _name(raw: bytes) -> str | bytes:
    """Text where it is some, else the bytes."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def shown_map(value: Mapping[str, object]) -> Mapping[str, object]:
    """For the ledger: digests in hex."""
    return {name: one.hex() if isinstance(one, bytes) else one for name, one in value.items()}
