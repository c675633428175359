"""A person at a terminal and a program on one in a sandbox: keys one way, output the other, sizes and signals too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from immured.client.errors import ConnectionLost, Refusal
from immured.client.retry import Backoff
from immured.client.terminal_words import Keys, Wish

if TYPE_CHECKING:
    from immured.client.aio import AsyncRun
    from immured.client.aiosandbox import AsyncExec, AsyncSandbox
    from immured.client.outcome import RunResult
    from immured.client.terminal import LocalTerminal

__all__ = ["Left", "TerminalSession"]

T = TypeVar("T")

_TYPED_AHEAD: Final = 65_536
"""Keys that wait for a daemon that takes none; beyond, the terminal itself holds them. Less, and nobody could leave."""
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

_HELP = "~.  leave    ~^Z  suspend this client    ~~  type a ~    ~?  this; at the start of a line"


class Left(Exception):
    """The person left, or was told to go: `number` is the signal, None for who wished to."""

    def __init__(self, number: int | None = None) -> None:
        super().__init__(number)
        self.number = number


class TerminalSession:
    """The terminal is raw while this is entered. Of one event loop, in the main thread."""

    def __init__(self, local: LocalTerminal, *, escape: bytes = b"~") -> None:
        self._local = local
        self._filter = Keys(escape)
        self._typed: deque[bytes] = deque()
        self._waiting = 0
        self._reading = False
        self._more = asyncio.Event()
        self._resized = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._left: asyncio.Future[None] = self._loop.create_future()
        self._sent = local.shape

    async def __aenter__(self) -> Self:
        for number in _ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._loop.add_signal_handler(number, self._leave, int(number))
        self._loop.add_signal_handler(signal.SIGWINCH, self._resized.set)
        self._loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        self._loop.add_signal_handler(signal.SIGCONT, self._continued)
        self._local.take()
        self._listen(on=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._local.give_back()
        self._listen(on=False)
        if not self._left.cancel() and not self._left.cancelled():
            self._left.exception()  # looked at, so that nobody is told it was not
        for number in (*_ENDING, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT):
            self._loop.remove_signal_handler(number)

    async def run(
        self, begin: Callable[[AsyncIterator[bytes]], Awaitable[AsyncRun]], sandbox: AsyncSandbox
    ) -> RunResult:
        """A program that ends with its connection: `begin` starts it, with what is typed. Raises Left."""
        run = await self._unless_left(begin(self._keys()))
        return await self._drive(run, sandbox, None)

    async def attach(self, exec: AsyncExec, start: int = 0, *, retries: int) -> RunResult:
        """A detached one, taken up again after a lost connection. Raises Left; the exec goes on then."""
        backoff = Backoff(retries)
        while True:
            try:
                # Before a key can be typed; and whoever paints a whole screen does so anew, where it is another size.
                await self._unless_left(self._tell_size(exec))
                run = await self._unless_left(exec.attach(self._keys(), start=start))
                try:
                    return await self._drive(run, exec.sandbox, exec.id)
                finally:
                    if run.offset is not None and run.offset > start:
                        start, backoff = run.offset, Backoff(retries)
            except ConnectionLost as error:
                pause = backoff.delay(error, None)
                await self.say("connection lost; trying again (~. leaves)")
                await self._unless_left(asyncio.sleep(pause))

    async def say(self, text: str) -> None:
        """A line of our own between the program's."""
        await self._show(f"\r\n[immure: {text}]\r\n".encode())

    async def _drive(self, run: AsyncRun, sandbox: AsyncSandbox, exec: str | None) -> RunResult:
        sizes = self._loop.create_task(self._resizing(run, sandbox, exec))
        try:
            return await self._unless_left(self._showing(run))
        finally:
            sizes.cancel()
            await asyncio.wait([sizes])
            await run.close()

    async def _showing(self, run: AsyncRun) -> RunResult:
        async for _, data in run:
            self._local.shown(data)
            await self._show(data)
        return await run.result()

    async def _show(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._local.screen, view[:16384]) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except OSError:  # it hung up
                self._leave(int(signal.SIGHUP))
                return

    async def _ready(self, add: Callable[..., None], remove: Callable[[int], object]) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        add(self._local.screen, _resolve, future)
        try:
            await future
        finally:
            remove(self._local.screen)

    async def _resizing(self, run: AsyncRun, sandbox: AsyncSandbox, exec: str | None) -> None:
        """Tells of a new size, one at a time: of many in between the last one counts."""
        with contextlib.suppress(ConnectionLost):  # whoever shows the output learns it too
            while True:
                await self._resized.wait()
                named = exec or run.exec
                if named is None:
                    await asyncio.sleep(0.02)  # it has not been said yet
                    continue
                self._resized.clear()
                if self._local.shape != self._sent:
                    await self._tell_size(sandbox.find(named))

    async def _tell_size(self, exec: AsyncExec) -> None:
        self._sent = self._local.shape
        with contextlib.suppress(Refusal):  # it is over by now
            await exec.resize(self._sent.rows, self._sent.columns)

    async def _unless_left(self, work: Awaitable[T]) -> T:
        """What `work` comes to. Raises Left as soon as the person leaves."""
        task = asyncio.ensure_future(work)
        either: list[asyncio.Future[Any]] = [task, self._left]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._left.result()
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _keys(self) -> AsyncIterator[bytes]:
        while True:
            while not self._typed:
                self._more.clear()
                await self._more.wait()
            data = self._typed.popleft()
            self._waiting -= len(data)
            self._listen(on=True)
            yield data

    def _listen(self, *, on: bool) -> None:
        if on == self._reading:
            return
        self._reading = on
        if on:
            self._loop.add_reader(self._local.keys, self._key)
        else:
            self._loop.remove_reader(self._local.keys)

    def _key(self) -> None:
        try:
            data = os.read(self._local.keys, 4096)
        except InterruptedError:
            return
        except OSError:
            data = b""
        if not data:  # it hung up
            self._listen(on=False)
            self._leave(int(signal.SIGHUP))
            return
        for one in self._filter.feed(data):
            if isinstance(one, Wish):
                self._wished(one)
            else:
                self._typed.append(one)
                self._waiting += len(one)
        self._more.set()
        if self._waiting > _TYPED_AHEAD:
            self._listen(on=False)

    def _wished(self, wish: Wish) -> None:
        if wish is Wish.LEAVE:
            self._leave(None)
        elif wish is Wish.SUSPEND:
            self._suspend()
        else:
            with contextlib.suppress(OSError):
                os.write(self._local.screen, f"\r\n{_HELP}\r\n".encode())

    def _leave(self, number: int | None) -> None:
        if not self._left.done():
            self._left.set_exception(Left(number))

    def _suspend(self) -> None:
        self._local.suspend()
        self._resized.set()

    def _continued(self) -> None:
        """After a stop that nobody asked us about, the shell has made the terminal its own."""
        self._local.take()
        self._resized.set()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
