"""The asyncio client."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from types import TracebackType
from typing import Final, Self, Unpack

from immured.client.aiolink import AsyncLink, connect_socket
from immured.client.errors import ConnectionLost, NoReply
from immured.client.order import Order, Readable, RunOptions, Stdin, Text, arguments, chunks_of
from immured.client.outcome import Answer, Collector, RunResult, Sink, answer
from immured.client.reading import StoppableReader
from immured.client.retry import Backoff
from immured.client.session import Behalf, Call, Request, sign
from immured.client.trust import KeySource, PublicKeySource, public_key, resolve
from immured.errors import ImmuredError
from immured.wire.messages import Data, Hello, Reply, data_body

__all__ = ["AsyncClient", "AsyncRun"]


class AsyncClient:
    """`Client` for asyncio, with the same surface: what waits there is awaited here, and callbacks may be coroutines.

        async with AsyncClient() as client:
            results = await asyncio.gather(*(client.run(["/bin/true"]) for _ in range(100)))

    Of one event loop. Standard input may also be an async iterable of bytes; a file is read in a thread.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        key: KeySource | None = None,
        daemon_key: PublicKeySource | None = None,
        *,
        timeout: float | None = None,
        insecure: bool = False,
        persona: str | None = None,
        tenant: str | None = None,
        sub: str | None = None,
    ) -> None:
        self._trust: Final = resolve(socket, key, daemon_key, insecure=insecure)
        self._timeout = timeout
        self._behalf = Behalf(persona, tenant, sub)
        self._lock = asyncio.Lock()
        self._link: AsyncLink | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._trust.socket}, {self._trust.key.id})"

    @property
    def key_id(self) -> str:
        """The id of the key that signs."""
        return self._trust.key.id

    async def connect(self) -> Hello:
        """As `Client.connect`."""
        async with self._bounded(None):
            return await (await self._connected()).hello()

    async def close(self) -> None:
        """As `Client.close`."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    async def run(
        self,
        argv: Sequence[Text],
        *,
        stream: bool = False,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the same surface as Client's
        retries: int = 0,
        **options: Unpack[RunOptions],
    ) -> RunResult:
        """As `Client.run`."""
        sinks = {name: sink for name, sink in (("stdout", on_stdout), ("stderr", on_stderr)) if sink is not None}
        order = arguments(argv, stream=stream or bool(sinks), **options)
        kept = {"stdout", "stderr"} - sinks.keys()
        backoff = Backoff(retries if order.repeatable else 0)
        request: Request | None = None
        async with self._bounded(timeout):
            while True:
                try:
                    link = await self._connected()
                    request = request or self._sign(link, "run", order.args)
                    async with AsyncRun(link, request, order, keep=kept, retried=backoff.used) as run:
                        async for name, data in run:
                            await _feed(sinks.get(name), data)
                        return await run.result()
                except ImmuredError as error:
                    await asyncio.sleep(backoff.delay(error, request))

    async def start(self, argv: Sequence[Text], **options: Unpack[RunOptions]) -> AsyncRun:
        """As `Client.start`:

        async with await client.start(["make"]) as run:
            async for stream, data in run:
                ...
        print((await run.result()).cause)
        """
        order = arguments(argv, stream=True, **options)
        link = await self._connected()
        return AsyncRun(link, self._sign(link, "run", order.args), order)

    async def plan(self, argv: Sequence[Text], **options: Unpack[RunOptions]) -> Mapping[str, object]:
        """As `Client.plan`."""
        order = arguments(argv, **options)
        return (await self.call("plan", order.args)).result

    async def status(self) -> Mapping[str, object]:
        """As `Client.status`."""
        return (await self.call("status")).result

    async def kill(self, sandbox: str) -> Mapping[str, object]:
        """As `Client.kill`."""
        return (await self.call("kill", {"sandbox": sandbox})).result

    async def key_add(
        self, name: str, public: PublicKeySource, *, role: str = "runner", **bindings: object
    ) -> Mapping[str, object]:
        """As `Client.key_add`."""
        args = {"name": name, "public": public_key(public).raw, "role": role, **bindings}
        return (await self.call("key.add", args)).result

    async def key_list(self) -> Mapping[str, object]:
        """As `Client.key_list`."""
        return (await self.call("key.list")).result

    async def call(
        self,
        cmd: str,
        args: Mapping[str, object] | None = None,
        *,
        fds: Sequence[int] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - the same surface as Client's
        retries: int = 0,
    ) -> Answer:
        """As `Client.call`."""
        backoff = Backoff(retries)
        request: Request | None = None
        async with self._bounded(timeout):
            while True:
                try:
                    link = await self._connected()
                    request = request or self._sign(link, cmd, args or {})
                    return answer(await _exchange(link, request, fds))
                except ImmuredError as error:
                    await asyncio.sleep(backoff.delay(error, request))

    @contextlib.asynccontextmanager
    async def _bounded(self, own: float | None) -> AsyncIterator[None]:
        seconds = self._timeout if own is None else own
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise NoReply(seconds or 0.0) from None

    def _sign(self, link: AsyncLink, cmd: str, args: Mapping[str, object]) -> Request:
        now_ms = time.time_ns() // 1_000_000
        return sign(self._trust.key, link.session.audience, cmd, args, now_ms=now_ms, behalf=self._behalf)

    async def _connected(self) -> AsyncLink:
        async with self._lock:
            if self._link is not None and not self._link.usable:
                self._link.close()
                self._link = None
            if self._link is None:
                self._link = AsyncLink(await connect_socket(self._trust.socket), self._trust.daemon)
            link = self._link
        if self._trust.daemon is None:
            await link.hello()  # it alone says whom commands are for
        return link


class AsyncRun:
    """`Run` for asyncio: iterate it with `async for`, then await `result()`."""

    def __init__(
        self, link: AsyncLink, request: Request, order: Order, *, keep: Collection[str] = (), retried: bool = False
    ) -> None:
        self._link = link
        self._retried = retried
        self._order = order
        self._collector = Collector(order, keep=keep)
        self._result: RunResult | None = None
        call = link.open(request)
        self._call: Call | None = call
        self._pump = asyncio.get_running_loop().create_task(self._send(call), name="immured-stdin")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        while self._call is not None:
            try:
                event = await self._link.next(self._call)
            except BaseException:
                await self.close()
                raise
            if isinstance(event, Data):
                if self._collector.data(event):
                    yield event.stream, event.data
                continue
            await self.close()
            self._result = self._collector.finish(event, retried=self._retried)

    async def result(self) -> RunResult:
        """The result; waits for it, and passes over output that was not iterated."""
        async for _ in self:
            pass
        if self._result is None:
            raise ConnectionLost("the run was left before its result came", "iterate it to its end")
        return self._result

    async def close(self) -> None:
        """Stops taking part. The run itself ends with the connection, or by `AsyncClient.kill`."""
        call, self._call = self._call, None
        if call is not None:
            self._link.forget(call)
        self._pump.cancel()
        await asyncio.wait([self._pump])

    async def _send(self, call: Call) -> None:
        """The command, then its standard input."""
        try:
            await self._link.send(call.request.body, self._order.fds)
            if self._order.source is None:
                return
            async with contextlib.aclosing(_chunks(self._order.source)) as chunks:
                async for chunk in chunks:
                    self._collector.sending(chunk)
                    await self._link.send(data_body(call.request.nonce, "stdin", chunk))
            await self._link.send(data_body(call.request.nonce, "stdin", b""))
        except Exception as error:  # noqa: BLE001 - whatever a caller's input raises is the caller's to see
            self._link.spoil(call, error)


async def _exchange(link: AsyncLink, request: Request, fds: Sequence[int]) -> Reply:
    call = link.open(request)
    try:
        await link.send(request.body, fds)
        while True:
            event = await link.next(call)
            if isinstance(event, Reply):
                return event
    finally:
        link.forget(call)


async def _feed(sink: Sink | None, data: bytes) -> None:
    waits = sink(data) if sink is not None else None
    if inspect.isawaitable(waits):
        await waits


async def _chunks(source: Stdin) -> AsyncGenerator[bytes, None]:
    if isinstance(source, bytes | bytearray | memoryview):
        for chunk in chunks_of(source):
            yield chunk
    elif isinstance(source, AsyncIterable):
        async for piece in source:
            for chunk in chunks_of(piece):
                yield chunk
    elif isinstance(source, Readable):
        reader = StoppableReader(source)
        try:
            while chunk := await asyncio.to_thread(reader.read):
                yield chunk
        finally:
            reader.stop()
    else:
        raise TypeError("stdin is bytes, a binary file or an async iterable of bytes")
