"""Contents on their way in or out of a sandbox: from or to a descriptor of the caller's, or as data frames.

Between a clerk and us is a pipe, or a descriptor of the file itself where its file system is a local one: then we copy.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from immured.errors import Refused
from immured.host.statx import mode_of
from immured.isolation.files_words import NO_FLAGS, FilesAnswer, FilesFlag, FilesOp
from immured.service.channel import Channel
from immured.service.copying import Copied, copy
from immured.service.descriptors import check_descriptors
from immured.service.files_clerk import FilesClerk
from immured.service.pumps import Input, Output, OutputBound, make_pipe
from immured.service.request import Request
from immured.service.streams import Feeds
from immured.wire.messages import StreamRecord, data_body

__all__ = ["DONE_S", "Incoming", "Passed", "archive", "extract", "get", "put"]

DONE_S: Final = 30.0
_IDLE_S: Final = 60.0
_LOOK_S: Final = 5.0
_NO_END: Final = 1 << 62


class Passed:
    """The one descriptor that came with the request: a regular file of a local disk. Borrowed."""

    def __init__(self, request: Request, *, written: bool) -> None:
        if len(request.descriptors.fds) != 1:
            came = len(request.descriptors.fds)
            raise Refused("bad_descriptor", f"`passed` says one descriptor, and {came} came along", "send one")
        check_descriptors(request.descriptors.fds, (0,))
        self.fd = request.descriptors.fds[0]
        wanted = (os.O_WRONLY, os.O_RDWR) if written else (os.O_RDONLY, os.O_RDWR)
        if not stat.S_ISREG(mode_of(self.fd)) or fcntl.fcntl(self.fd, fcntl.F_GETFL) & os.O_ACCMODE not in wanted:
            raise Refused(
                "bad_descriptor",
                f"what was passed is no regular file that can be {'written' if written else 'read'}",
                "pass a regular file of a local disk; anything else travels as data frames",
            )
        self.size = os.fstat(self.fd).st_size
        self._request = request

    def told(self, done: int) -> None:
        """So many bytes are done: the caller may want to see it."""
        channel = self._request.channel
        if not channel.congested:
            channel.send(data_body(self._request.command.nonce, "progress", b"%d" % done))


class _Feed(Input):
    """What a client's data frames write into a clerk's pipe."""

    def __init__(self, fd: int, channel: Channel) -> None:
        super().__init__(fd, channel)
        self.over = asyncio.Event()

    @property
    def whole(self) -> bool:
        """Whether its end came."""
        return self._ended

    def close(self) -> None:
        super().close()
        self.over.set()


class Incoming:
    """What a request's data frames bring, from the moment on in which it was made. `reader` is for the clerk.

    Made before anything is waited for: frames follow their command at once.
    """

    def __init__(self, request: Request, feeds: Feeds, content: bytes | None = None) -> None:
        self._channel = request.channel
        self._key = (request.channel, request.command.nonce)
        self._feeds = feeds
        self.reader, writer = make_pipe()
        self._feed = _Feed(writer, request.channel)
        if content is not None:
            self._feed.feed(content)
            self._feed.feed(b"")
            return
        feeds[self._key] = self._feed
        request.channel.on_last_word[self] = self._feed.close
        request.channel.on_closed[self] = self._feed.close

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """What still comes is dropped. Twice is once."""
        self._feeds.pop(self._key, None)
        self._channel.on_last_word.pop(self, None)
        self._channel.on_closed.pop(self, None)
        self._feed.close()
        self.close_reader()

    def close_reader(self) -> None:
        """The clerk has it now."""
        fd, self.reader = self.reader, -1
        if fd >= 0:
            os.close(fd)

    async def arrived(self) -> Copied:
        """All of it is in the pipe, or the clerk takes no more. Raises Refused `stuck`."""
        await _until(self._feed.over, lambda: self._feed.record().length, "nothing came for a minute")
        record = self._feed.record()
        return Copied(record.length, record.sha256)

    def check_whole(self) -> None:
        """Raises Refused `cut_short` where the client never said that this was all."""
        if not self._feed.whole:
            raise Refused("cut_short", "the data ended before its end was said", "end it with an empty data frame")


class _Outgoing(Output):
    """What a clerk writes into its pipe, as data frames on `stdout`."""

    def __init__(self, fd: int, request: Request) -> None:
        super().__init__("stdout", fd, OutputBound(None, _nothing), request.command.nonce, request.channel)
        self.over = asyncio.Event()

    def close(self) -> None:
        super().close()
        self.over.set()


async def _until(over: asyncio.Event, length: Callable[[], int], problem: str) -> None:
    """Until it is over, as long as its length grows. Raises Refused `stuck`."""
    seen, idle = -1, 0.0
    while not over.is_set():
        try:
            async with asyncio.timeout(_LOOK_S):
                await over.wait()
        except TimeoutError:
            now = length()
            idle = 0.0 if now != seen else idle + _LOOK_S
            seen = now
            if idle >= _IDLE_S:
                raise Refused("stuck", problem, "whoever reads or writes at the other end has stopped") from None


def _nothing() -> None:
    """There is no bound here."""


async def _finish(clerk: FilesClerk, failed: Refused | None) -> FilesAnswer:
    """What the clerk says of a flow. Raises its reason, where it took no more; else ours."""
    if failed is not None and failed.code != "cut_short":
        raise failed
    answer = await clerk.ask(FilesOp.DONE, within=DONE_S)
    if failed is not None:
        raise failed
    return answer


async def put(
    clerk: FilesClerk, path: bytes, source: Passed | Incoming, *, flags: FilesFlag, mode: int
) -> tuple[Copied, FilesAnswer, FilesFlag]:
    """A file of that content. Nothing has the name before all of it is there."""
    begun, fd = await clerk.open(FilesOp.PUT, path, flags=flags, mode=mode)
    try:
        if isinstance(source, Incoming):
            copied = await _feed(clerk, FilesOp.FILL, source)
        elif fd is None:
            copied = await _pump(clerk, FilesOp.FILL, source)
        else:

            async def reserve(start: int, size: int) -> None:
                await clerk.ask(FilesOp.RESERVE, numbers=(start, size))

            in_memory = FilesFlag.MEMORY in begun.flags
            copied = await copy(
                source.fd, fd, most=source.size, reserve=reserve if in_memory else None, told=source.told
            )
    finally:
        if fd is not None:
            os.close(fd)
    committed = await clerk.ask(FilesOp.COMMIT, numbers=(copied.length, 0))
    return copied, committed, begun.flags


async def extract(
    clerk: FilesClerk, path: bytes, source: Passed | Incoming, *, flags: FilesFlag, most: int
) -> tuple[Copied, FilesAnswer]:
    """The files of a tar archive, below a directory."""
    if isinstance(source, Incoming):
        done: list[FilesAnswer] = []
        copied = await _feed(clerk, FilesOp.EXTRACT, source, path, flags=flags, most=most, done=done)
    else:
        done = []
        copied = await _pump(clerk, FilesOp.EXTRACT, source, path, flags=flags, most=most, done=done)
    return copied, done[0]


async def _feed(
    clerk: FilesClerk,
    op: FilesOp,
    source: Incoming,
    path: bytes = b"",
    *,
    flags: FilesFlag = NO_FLAGS,
    most: int = 0,
    done: list[FilesAnswer] | None = None,
) -> Copied:
    try:
        await clerk.ask(op, path, flags=flags, numbers=(most, 0), fds=(source.reader,))
    finally:
        source.close_reader()
    copied = await source.arrived()
    answer = await _finish(clerk, None)
    if done is not None:
        done.append(answer)
    source.check_whole()
    return copied


async def _pump(
    clerk: FilesClerk,
    op: FilesOp,
    source: Passed,
    path: bytes = b"",
    *,
    flags: FilesFlag = NO_FLAGS,
    most: int = 0,
    done: list[FilesAnswer] | None = None,
) -> Copied:
    reader, writer = make_pipe()
    _widen(writer)
    try:
        try:
            await clerk.ask(op, path, flags=flags, numbers=(most, 0), fds=(reader,))
        finally:
            os.close(reader)
        copied, failed = await _either(source.fd, writer, source.size, source.told)
    finally:
        os.close(writer)
    answer = await _finish(clerk, failed)
    if done is not None:
        done.append(answer)
    return copied


async def _either(source: int, target: int, most: int, told: Callable[[int], object]) -> tuple[Copied, Refused | None]:
    try:
        return await copy(source, target, most=most, told=told), None
    except Refused as error:
        return Copied(0, b""), error


async def get(
    clerk: FilesClerk, request: Request, path: bytes, target: Passed | None, *, most: int
) -> tuple[StreamRecord, FilesAnswer]:
    """A file's content: into the caller's, or as data frames."""
    opened, fd = await clerk.open(FilesOp.GET, path, most=most)
    try:
        if target is not None and fd is not None:
            size = opened.rows[0].size if opened.rows else 0
            copied = await copy(fd, target.fd, most=min(size, most), told=target.told)
            return StreamRecord(copied.length, copied.sha256), opened
    finally:
        if fd is not None:
            os.close(fd)
    record, _ = await _pour(clerk, request, FilesOp.POUR, b"", target, most)
    return record, opened


async def archive(
    clerk: FilesClerk, request: Request, path: bytes, target: Passed | None, *, most: int
) -> tuple[StreamRecord, FilesAnswer]:
    """A directory, or a file, as a tar archive."""
    return await _pour(clerk, request, FilesOp.ARCHIVE, path, target, most)


async def _pour(
    clerk: FilesClerk, request: Request, op: FilesOp, path: bytes, target: Passed | None, most: int
) -> tuple[StreamRecord, FilesAnswer]:
    reader, writer = make_pipe()
    _widen(writer)
    try:
        await clerk.ask(op, path, numbers=(most, 0), fds=(writer,))
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    if target is not None:
        try:
            copied, failed = await _either(reader, target.fd, _NO_END, target.told)
        finally:
            os.close(reader)
        return StreamRecord(copied.length, copied.sha256), await _finish(clerk, failed)
    return await _stream_out(request, reader), await _finish(clerk, None)


async def _stream_out(request: Request, reader: int) -> StreamRecord:
    output = _Outgoing(reader, request)
    channel = request.channel
    channel.on_closed[output] = output.close
    if channel.closed:
        output.close()
    try:
        output.watch()
        await _until(output.over, lambda: output.record().length, "no more of it came for a minute")
        await output.drain(0.0)
    finally:
        channel.on_closed.pop(output, None)
        output.close()
    return output.record()


def _widen(pipe: int) -> None:
    """A pipe takes 64 KiB, and each filling of it wakes somebody: 1 MiB is the most that anybody may ask for."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
    except OSError:
        return  # a user's pipes are bounded together; it is as it was
