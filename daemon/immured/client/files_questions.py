"""Every command about a sandbox's files, as values: what is sent, and what its answer comes to. Both clients ask these.

Paths are the sandbox's own and absolute: text, or bytes for names that are not UTF-8.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from immured.client.order import INLINE_STDIN, Text
from immured.client.outcome import Answer
from immured.client.question import Question, reading
from immured.wire.strict import Fields

if TYPE_CHECKING:
    from immured.client.order import Stdin
    from immured.wire.messages import Receipt

__all__ = [
    "Archive",
    "Content",
    "FileInfo",
    "Found",
    "Page",
    "archive",
    "chmod",
    "extract",
    "get",
    "glob",
    "joined",
    "mkdir",
    "move",
    "page",
    "put",
    "remove",
    "stat",
]

T = TypeVar("T")

STDOUT: Final = frozenset({"stdout"})


def text(path: Text) -> str | bytes:
    """A path as it travels: text where it is UTF-8, else bytes."""
    path = os.fspath(path)
    if isinstance(path, str):
        try:
            path.encode()
        except UnicodeEncodeError:
            return os.fsencode(path)
    return path


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a sandbox. `size` and `allocated` are bytes; `mode` the permissions; ids are the sandbox's own."""

    path: str | bytes
    """As it was asked for; of a listing: below the directory that was listed; of a pattern: the whole path."""
    kind: str
    """`file`, `directory`, `link`, `fifo`, `socket`, `character` or `block`."""
    size: int
    allocated: int
    mode: int
    uid: int
    gid: int
    links: int
    mtime_ns: int
    target: str | bytes | None = None
    """Where a symbolic link points, as it says itself."""

    @property
    def name(self) -> str | bytes:
        """The last part of its path."""
        if isinstance(self.path, bytes):
            return self.path.rstrip(b"/").rpartition(b"/")[2]
        return self.path.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Content:
    """What went in or out: bytes, and their SHA-256, as the daemon signed it."""

    length: int
    sha256: bytes
    file: FileInfo
    in_place: bool
    """It was written where it stood, not put in the place of what was there: its directory takes no new names."""
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that went in or out. `length` and `sha256` are its own, `entries` is what is in it."""

    length: int
    sha256: bytes
    entries: int
    content: int
    """Bytes of the files in it."""
    left_out: int
    """Sockets, and what could not be read."""
    left_out_first: str | bytes | None
    changed: int
    """Files that grew or shrank while they were read."""
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a pattern found. `truncated`: there is more."""

    entries: tuple[FileInfo, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a directory. `next`: where the rest begins; None: this is the end."""

    entries: tuple[FileInfo, ...]
    next: int | None


def stat(sandbox: str, path: Text, *, follow: bool = False) -> Question[FileInfo]:
    args = _args(sandbox, path, follow=follow)
    return Question("file.stat", args, lambda said: _info(_inner(reading(said), "file"), text(path)))


def page(sandbox: str, path: Text, after: int | None = None, limit: int | None = None) -> Question[Page]:
    args = _args(sandbox, path, after=after, limit=limit)

    def read(said: Answer) -> Page:
        fields = reading(said)
        return Page(_entries(fields, text(path)), fields.optional("next", int))

    return Question("file.list", args, read)


def glob(sandbox: str, pattern: Text, limit: int | None = None) -> Question[Found]:
    def read(said: Answer) -> Found:
        fields = reading(said)
        return Found(_entries(fields, None), fields.optional("truncated", bool) or False)

    return Question("file.glob", _args(sandbox, pattern, limit=limit), read)


def mkdir(sandbox: str, path: Text, *, mode: int | None = None, parents: bool = False) -> Question[None]:
    return Question("file.mkdir", _args(sandbox, path, mode=mode, parents=parents), _nothing)


def move(sandbox: str, path: Text, to: Text, *, replace: bool = False) -> Question[None]:
    return Question("file.move", {**_args(sandbox, path, replace=replace), "to": text(to)}, _nothing)


def remove(sandbox: str, path: Text, *, recursive: bool = False) -> Question[None]:
    return Question("file.remove", _args(sandbox, path, recursive=recursive), _nothing)


def chmod(sandbox: str, path: Text, mode: int) -> Question[None]:
    return Question("file.chmod", _args(sandbox, path, mode=mode), _nothing)


def put(
    sandbox: str,
    path: Text,
    source: Stdin | int,
    *,
    mode: int | None = None,
    parents: bool = False,
    replace: bool = True,
) -> Question[Content]:
    """`source`: bytes, a binary file whose content travels as data, or the number of a descriptor to pass along."""
    args = _args(sandbox, path, mode=mode, parents=parents, replace=replace)
    return _with_source(Question("file.put", args, lambda said: _content(said, text(path))), source)


def extract(
    sandbox: str,
    path: Text,
    source: Stdin | int,
    *,
    parents: bool = False,
    replace: bool = True,
    most: int | None = None,
) -> Question[Archive]:
    """`source`: as for `put`, a tar archive."""
    args = _args(sandbox, path, parents=parents, replace=replace, most=most)
    return _with_source(Question("file.extract", args, _archive), source)


def get(sandbox: str, path: Text, target: int | None = None, *, most: int | None = None) -> Question[Content]:
    """`target`: a descriptor to be written; None: as data on `stdout`."""
    return _with_target(
        Question("file.get", _args(sandbox, path, most=most), lambda said: _content(said, text(path))), target
    )


def archive(sandbox: str, path: Text, target: int | None = None, *, most: int | None = None) -> Question[Archive]:
    """`target`: as for `get`."""
    return _with_target(Question("file.archive", _args(sandbox, path, most=most), _archive), target)


def _args(sandbox: str, path: Text, **more: int | None) -> dict[str, object]:
    """What is None is left to the daemon."""
    said = {name: value for name, value in more.items() if value is not None}
    return {"sandbox": sandbox, "path": text(path), **said}


def _with_source(question: Question[T], source: Stdin | int) -> Question[T]:
    if isinstance(source, int):
        return replace(question, args={**question.args, "passed": True}, fds=(source,))
    if isinstance(source, bytes | bytearray | memoryview) and len(source) <= INLINE_STDIN:
        return replace(question, args={**question.args, "data": bytes(source)})
    return replace(question, source=source)


def _with_target(question: Question[T], target: int | None) -> Question[T]:
    if target is None:
        return replace(question, streamed=STDOUT)
    return replace(question, args={**question.args, "passed": True}, fds=(target,))


# -- answers


def _nothing(_said: Answer) -> None:
    return None


def _inner(fields: Fields, name: str) -> Fields:
    return Fields(fields.required(name, dict), f"{fields.where}.{name}", fields.code)


def _name(fields: Fields, name: str) -> str | bytes | None:
    value = fields.values.get(name)
    return value if isinstance(value, str | bytes) else None


def _entries(fields: Fields, directory: str | bytes | None) -> tuple[FileInfo, ...]:
    entries = []
    for row in fields.required("entries", list):
        if not isinstance(row, Mapping):
            raise fields.wrong("entries", "holds something that is no map")
        inner = Fields(row, f"{fields.where}.entries", fields.code)
        name = _name(inner, "name")
        if name is None:
            raise inner.wrong("name", "is missing")
        entries.append(_info(inner, name if directory is None else joined(directory, name)))
    return tuple(entries)


def joined(directory: str | bytes, name: str | bytes) -> str | bytes:
    """A path below a directory; bytes where one of them is."""
    if isinstance(directory, str) and isinstance(name, str):
        return f"{directory.rstrip('/')}/{name}"
    above = directory.encode() if isinstance(directory, str) else directory
    return above.rstrip(b"/") + b"/" + (name.encode() if isinstance(name, str) else name)


def _info(fields: Fields, path: str | bytes) -> FileInfo:
    return FileInfo(
        path=path,
        kind=fields.required("kind", str),
        size=fields.required("size", int),
        allocated=fields.optional("allocated", int) or 0,
        mode=fields.required("mode", int),
        uid=fields.required("uid", int),
        gid=fields.required("gid", int),
        links=fields.optional("links", int) or 0,
        mtime_ns=fields.required("mtime_ns", int),
        target=_name(fields, "target"),
    )


def _content(said: Answer, path: str | bytes) -> Content:
    fields = reading(said)
    return Content(
        length=fields.required("length", int),
        sha256=fields.required("sha256", bytes),
        file=_info(_inner(fields, "file"), path),
        in_place=fields.optional("in_place", bool) or False,
        receipt=said.receipt,
    )


def _archive(said: Answer) -> Archive:
    fields = reading(said)
    return Archive(
        length=fields.required("length", int),
        sha256=fields.required("sha256", bytes),
        entries=fields.required("entries", int),
        content=fields.required("bytes", int),
        left_out=fields.optional("left_out", int) or 0,
        left_out_first=_name(fields, "left_out_first"),
        changed=fields.optional("changed", int) or 0,
        receipt=said.receipt,
    )
