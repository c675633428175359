"""A payload's terminal, as `streams.Streams` is its pipes: its output is `stdout`, and data frames type."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from immured.errors import ImmuredError
from immured.service.channel import Channel
from immured.service.pumps import Input, Output, OutputBound
from immured.service.streams import Feeds
from immured.wire.messages import StreamRecord
from immured.wire.sockets import close_all

__all__ = ["TerminalStreams", "Typist"]

_HOLD_AT: Final = 256 * 1024


class Typist:
    """Feeds a terminal, or whatever has no end of input to be told of. What comes before it is there waits for it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._early: deque[bytes] = deque()
        self._early_size = 0
        self._held = False
        self._input: Input | None = None
        self._closed = False

    def feed(self, data: bytes) -> None:
        """What is typed. Empty means nothing here: a terminal's end of file is a character."""
        if not data or self._closed:
            return
        if self._input is not None:
            self._input.feed(data)
            return
        self._early.append(data)
        self._early_size += len(data)
        if self._early_size >= _HOLD_AT and not self._held:
            self._held = True
            self._channel.hold()

    def open(self, fd: int) -> None:
        """The master, which is ours from now on."""
        if self._closed:
            os.close(fd)
            return
        self._input = Input(fd, self._channel)
        while self._early:
            self._input.feed(self._early.popleft())
        self._release()

    def record(self) -> StreamRecord:
        """What was typed."""
        return StreamRecord() if self._input is None else self._input.record()

    def close(self) -> None:
        """Twice is once."""
        self._closed = True
        self._early.clear()
        self._release()
        if self._input is not None:
            self._input.close()

    def _release(self) -> None:
        if self._held:
            self._held = False
            self._channel.unhold()


class TerminalStreams:
    """See `conclusion.PayloadStreams`. The master comes once the cell has made it: `expect`."""

    def __init__(
        self, channel: Channel, re: bytes, *, limit: int | None, on_limit: Callable[[], None], feeds: Feeds
    ) -> None:
        """Raises OSError."""
        self._channel = channel
        self._re = re
        self._feeds = feeds
        self._bound = OutputBound(limit, on_limit)
        self._typist = Typist(channel)
        self._output: Output | None = None
        self._waiting: asyncio.Task[None] | None = None
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._ends: tuple[int, ...] = (null,)
        feeds[channel, re] = self._typist

    @property
    def payload_ends(self) -> tuple[int, ...]:
        """Nothing that is used: the payload's own are the terminal's."""
        return self._ends * 3

    def type(self, data: bytes) -> None:
        """What is typed before anybody can."""
        self._typist.feed(data)

    def expect(self, master: Awaitable[int]) -> None:
        """From where the terminal comes."""
        self._waiting = asyncio.get_running_loop().create_task(self._open(master))

    async def _open(self, master: Awaitable[int]) -> None:
        try:
            fd = await master
        except (LookupError, ImmuredError):
            return  # it ended before there was one; its outcome says why
        try:
            typing = os.dup(fd)
        except OSError:
            os.close(fd)
            return
        self._output = Output("stdout", fd, self._bound, self._re, self._channel)
        self._output.watch()
        self._typist.open(typing)

    def close_payload_ends(self) -> None:
        """See Streams."""
        ends, self._ends = self._ends, ()
        close_all(ends)

    @property
    def too_much(self) -> bool:
        """See Streams."""
        return self._bound.exceeded

    @property
    def captured_bytes(self) -> int:
        """A terminal is always streamed."""
        return 0

    def captured(self) -> dict[str, bytes]:
        """Nothing: see above."""
        return {}

    def records(self) -> dict[str, StreamRecord]:
        """See Streams."""
        output = StreamRecord() if self._output is None else self._output.record()
        return {"stdin": self._typist.record(), "stdout": output}

    async def drain(self, deadline: float) -> None:
        """See Streams."""
        self._close_input()
        if self._waiting is not None:
            await asyncio.wait([self._waiting], timeout=1.0)
        if self._output is not None:
            await self._output.drain(deadline)

    def close(self) -> None:
        """See Streams."""
        self.close_payload_ends()
        self._close_input()
        if self._waiting is not None:
            self._waiting.cancel()
        if self._output is not None:
            self._output.close()

    def _close_input(self) -> None:
        self._feeds.pop((self._channel, self._re), None)
        self._typist.close()
