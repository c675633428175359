"""What feeds a kept exec: a pipe to its stdin, or its terminal's master. It outlives every connection that types."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable

from immured.errors import ImmuredError
from immured.service.pumps import Held, Input

__all__ = ["Keyboard"]


class Keyboard:
    """`fd` is owned; None: there is none yet (`expect`), or never will be."""

    def __init__(self, fd: int | None, *, ends_input: bool = True) -> None:
        self._holders = _Holders()
        self._ends_input = ends_input
        self._input = None if fd is None else Input(fd, self._holders)
        self._early: deque[bytes] = deque()
        self._waiting: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def takes(self) -> bool:
        """Whether anything that is typed can arrive."""
        return not self._closed and (self._input is not None or self._waiting is not None)

    def expect(self, master: Awaitable[int]) -> None:
        """From where the terminal comes."""
        self._waiting = asyncio.get_running_loop().create_task(self._open(master))

    def feed(self, data: bytes) -> None:
        """More input; empty ends it, but for a terminal."""
        if not data and not self._ends_input:
            return
        if self._input is None:
            self._early.append(data)
        else:
            self._input.feed(data)

    def end_when_fed(self, over: Callable[[], None]) -> None:
        """That was all, once it is written: `over` is called now, since our own end is what keeps it open."""
        self.feed(b"")
        over()

    def held_by(self, channel: Held) -> None:
        """Whose frames wait while too much is on its way."""
        self._holders.add(channel)

    def released(self, channel: Held) -> None:
        """The inverse of `held_by`."""
        self._holders.remove(channel)

    def close(self) -> None:
        """Twice is once."""
        self._closed = True
        if self._waiting is not None:
            self._waiting.cancel()
        if self._input is not None:
            self._input.close()

    async def _open(self, master: Awaitable[int]) -> None:
        try:
            fd = await master
        except (LookupError, ImmuredError):
            return  # it ended before there was one
        if self._closed:
            os.close(fd)
            return
        self._input = Input(fd, self._holders)
        while self._early:
            self._input.feed(self._early.popleft())


class _Holders:
    """Every connection that types, held and let go together."""

    def __init__(self) -> None:
        self._channels: list[Held] = []
        self._held = False

    def add(self, channel: Held) -> None:
        self._channels.append(channel)
        if self._held:
            channel.hold()

    def remove(self, channel: Held) -> None:
        if channel in self._channels:
            self._channels.remove(channel)
            if self._held:
                channel.unhold()

    def hold(self) -> None:
        self._held = True
        for channel in self._channels:
            channel.hold()

    def unhold(self) -> None:
        self._held = False
        for channel in self._channels:
            channel.unhold()
