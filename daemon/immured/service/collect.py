"""Files brought back from a sandbox that has ended. Read by threads: a file of a caller's own file system can block."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from immured.service.channel import Channel
from immured.wire.messages import MAX_DATA, StreamRecord, data_body

__all__ = ["Collected", "collect"]

T = TypeVar("T")

_DEADLINE_S: Final = 10.0
_MAX_BLOCKED: Final = 32
_CHUNK: Final = 1 << 20

_blocked = 0


@dataclass(slots=True)
class Collected:
    """`files`: contents that fit the reply, by path. `streams`: records of those that went as data frames instead.
    `failed`: paths whose file did not answer in time, or could not be read."""

    files: dict[str, bytes] = field(default_factory=dict)
    streams: dict[str, StreamRecord] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


async def collect(
    paths: Sequence[str], fds: Mapping[int, int], *, room: int, re: bytes, channel: Channel, prefix: str = ""
) -> Collected:
    """Read the descriptor `fds[i]` of each `paths[i]`; a path without one is left out. `room`: bytes left in the reply.

    The descriptors are only borrowed. What does not fit goes on the stream `file:` + path, `prefix` before it.
    """
    found = Collected()
    for index, path in enumerate(paths):
        fd = fds.get(index)
        if fd is None:
            continue
        try:
            size = (await _in_thread(os.fstat, fd)).st_size
            if size + len(path) + 16 <= room:
                content = await _in_thread(_read_all, fd, size)
                found.files[path] = content
                room -= len(content) + len(path) + 16
            else:
                found.streams[f"file:{path}"] = await _send(fd, f"{prefix}file:{path}", re, channel)
        except (OSError, TimeoutError):
            found.failed.append(path)
    return found


async def _send(fd: int, name: str, re: bytes, channel: Channel) -> StreamRecord:
    digest, length = hashlib.sha256(), 0
    while data := await _in_thread(os.pread, fd, _CHUNK, length):
        digest.update(data)
        length += len(data)
        for start in range(0, len(data), MAX_DATA):
            channel.send(data_body(re, name, data[start : start + MAX_DATA]))
        if channel.congested:
            drained = asyncio.Event()
            channel.when_drained(drained.set)
            await drained.wait()
    channel.send(data_body(re, name, b""))
    return StreamRecord(length, digest.digest())


def _read_all(fd: int, size: int) -> bytes:
    parts, position = [], 0
    while position < size and (data := os.pread(fd, size - position, position)):
        parts.append(data)
        position += len(data)
    return b"".join(parts)


async def _in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """What `work` returns, in a thread of its own, left behind when it blocks. Raises TimeoutError, OSError."""
    global _blocked  # noqa: PLW0603 - how many threads were left behind is the process's own
    if _blocked >= _MAX_BLOCKED:
        raise TimeoutError
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()
    fd = os.dup(arguments[0])

    def answered(result: T | None, error: OSError | None) -> None:
        global _blocked  # noqa: PLW0603
        if answer.done():
            _blocked -= 1
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result, error = work(fd, *arguments[1:]), None
        except OSError as failed:
            result, error = None, failed
        loop.call_soon_threadsafe(answered, result, error)
        os.close(fd)

    threading.Thread(target=run, daemon=True, name="immured-collect").start()
    try:
        async with asyncio.timeout(_DEADLINE_S):
            return await answer
    except TimeoutError:
        _blocked += 1
        raise
