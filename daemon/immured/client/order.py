"""What `run` is asked for: its arguments as the command carries them, its descriptors, and its standard input."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypedDict, Unpack, runtime_checkable

from immured.wire.messages import MAX_DATA

__all__ = [
    "INLINE_STDIN",
    "Bytes",
    "Order",
    "Parameter",
    "Readable",
    "RunOptions",
    "Stdin",
    "Text",
    "arguments",
    "chunks_of",
]

INLINE_STDIN: Final = 262_144
"""Up to this many bytes of standard input travel in the command itself, more as data frames."""

Text = str | bytes | os.PathLike[str]
"""UTF-8 text; bytes for what is not."""

Parameter = str | int | os.PathLike[str]

Bytes = bytes | bytearray | memoryview


@runtime_checkable
class Readable(Protocol):
    """A binary file: something with `read`."""

    def read(self, size: int, /) -> bytes | None: ...


class HasFileno(Protocol):
    def fileno(self) -> int: ...


Stdin = Bytes | Readable | AsyncIterable[bytes]


@dataclass(frozen=True, slots=True)
class Order:
    """`args` of `cmd` to sign, `fds` to send along, and `source`: input that travels as data frames (b"": none; None:
    the daemon expects no data)."""

    args: Mapping[str, object]
    fds: tuple[int, ...] = ()
    source: Stdin | None = None
    streamed: frozenset[str] = field(default_factory=frozenset)
    cmd: str = "run"

    @property
    def repeatable(self) -> bool:
        """Whether the very same order can be sent again: its input has not been read away."""
        return self.source is None or isinstance(self.source, bytes | bytearray | memoryview)


class RunOptions(TypedDict, total=False):
    """What `run`, `start` and `plan` take besides argv; None is the same as leaving it out."""

    manifest: str | Mapping[str, object] | None
    """A loaded manifest's `sha256:<hex>`, or an inline map; else the daemon's default."""
    parameters: Mapping[str, Parameter] | None
    """What is filled into the manifest, by its parameters' names."""
    stdin: Stdin | None
    """Bytes or a binary file (the asyncio client: or an async iterable of bytes)."""
    env: Mapping[str, Text] | None
    cwd: Text | None
    limits: Mapping[str, object] | None
    """Limits by the manifest's names, only tighter than the manifest's: `{"memory": "512M", "wall": "10s"}`."""
    files: Mapping[str, Bytes] | None
    """Path inside to content, put in before."""
    collect: Sequence[Text] | None
    """Paths inside, brought back after."""
    fds: Mapping[int, int | HasFileno] | None
    """0, 1, 2 to descriptors that the command gets as they are: pipes, regular files, connected stream sockets."""
    detach: bool
    """The run outlives the connection."""
    learn: bool
    """A learning run: `learned` of its result says what it asked for, and what it writes ends with it."""


def arguments(argv: Sequence[Text], *, stream: bool = False, **options: Unpack[RunOptions]) -> Order:
    """The order. Raises TypeError or ValueError for what no daemon would understand, and leaves it the rest."""
    if isinstance(argv, str | bytes):
        raise TypeError("argv is a list of words; for a shell line name the shell: ['/bin/sh', '-c', line]")
    args: dict[str, object] = {"argv": [_text(word) for word in argv]}
    passed = _descriptors(options.get("fds") or {})
    if passed:
        args["fds"] = sorted(passed)
    manifest = options.get("manifest")
    if manifest is not None:
        args["manifest"] = manifest if isinstance(manifest, str) else _manifest(manifest)
    _contents(args, options)
    source: Stdin | None = None
    stdin = options.get("stdin")
    if stdin is not None:
        if 0 in passed:
            raise ValueError("stdin is given both as data and as descriptor 0")
        if isinstance(stdin, bytes | bytearray | memoryview) and len(stdin) <= INLINE_STDIN:
            args["stdin"] = bytes(stdin)
        else:
            source, stream = stdin, True
    streamed: frozenset[str] = frozenset()
    if stream:
        args["stream"] = True
        streamed = frozenset(name for number, name in ((1, "stdout"), (2, "stderr")) if number not in passed)
        if stdin is None and 0 not in passed:
            source = b""
    return Order(args, tuple(passed[number] for number in sorted(passed)), source, streamed)


def _contents(args: dict[str, object], options: RunOptions) -> None:
    parameters = options.get("parameters")
    if parameters is not None:
        args["parameters"] = {name: one if isinstance(one, int) else os.fspath(one) for name, one in parameters.items()}
    env, cwd, limits = options.get("env"), options.get("cwd"), options.get("limits")
    files, collect = options.get("files"), options.get("collect")
    if env is not None:
        args["env"] = {name: _text(value) for name, value in env.items()}
    if cwd is not None:
        args["cwd"] = _text(cwd)
    if limits is not None:
        args["limits"] = _limits(limits)
    if files is not None:
        args["files"] = {path: bytes(content) for path, content in files.items()}
    if collect is not None:
        args["collect"] = [_text(path) for path in collect]
    if options.get("detach"):
        args["detach"] = True
    if options.get("learn"):
        args["learn"] = True


def chunks_of(data: Bytes) -> list[bytes]:
    """`data` in pieces of one data frame each."""
    view = memoryview(data).cast("B")
    return [bytes(view[start : start + MAX_DATA]) for start in range(0, len(view), MAX_DATA)]


def _text(value: Text) -> str | bytes:
    """Text as str where it is UTF-8, else as bytes (paths and words that the file system decoded with surrogates)."""
    value = os.fspath(value)
    if isinstance(value, bytes):
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return os.fsencode(value)
    return value


def _manifest(manifest: Mapping[str, object]) -> dict[str, object]:
    limits = manifest.get("limits")
    return {**manifest, "limits": _limits(limits)} if isinstance(limits, Mapping) else dict(manifest)


def _limits(limits: Mapping[str, object]) -> dict[str, object]:
    """Limits for the wire, which carries no floats: `cpus` of 1.5 is the text 1.5."""
    return {name: str(value) if isinstance(value, float) else value for name, value in limits.items()}


def _descriptors(fds: Mapping[int, int | HasFileno]) -> dict[int, int]:
    for number in fds:
        if number not in (0, 1, 2):
            raise ValueError(f"descriptor {number} cannot be passed; only 0, 1 and 2 can")
    return {number: fd if isinstance(fd, int) else fd.fileno() for number, fd in fds.items()}
