"""The asyncio client."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar, Unpack

from immured.client import sandbox_questions as questions
from immured.client.aiobatch import AsyncBatch
from immured.client.aiolink import AsyncLink, connect_socket
from immured.client.aiosandbox import AsyncSandbox
from immured.client.batch_questions import BatchOptions, OneRun, Part, parts
from immured.client.elevation import PROPOSING, propose
from immured.client.errors import ConnectionLost, NoReply, Proposed
from immured.client.manifests import AsyncManifests
from immured.client.opening import Opening
from immured.client.order import Order, Readable, RunOptions, Stdin, Text, arguments, chunks_of
from immured.client.outcome import Answer, Collector, RunResult, Sink
from immured.client.preflight import Preflight, preflight
from immured.client.question import Asked, Progress, Question, Taken
from immured.client.reading import StoppableReader
from immured.client.retry import Backoff
from immured.client.sandbox_facts import SandboxFacts
from immured.client.sandbox_questions import CreateOptions
from immured.client.session import Behalf, Call, Request, sign
from immured.client.trust import Chain, ChainSource, KeySource, PublicKeySource, certificates, public_key, resolve
from immured.errors import ImmuredError
from immured.wire.keys import PrivateKey
from immured.wire.messages import Data, Hello, Reply, data_body

if TYPE_CHECKING:
    from immured.client.ledger import LedgerHead
    from immured.ledger.checkpoint import CosignKey, VerifierKey
    from immured.ledger.entry import Entry
    from immured.ledger.key_rotation import KeyHistory
    from immured.ledger.proof import Proven
    from immured.wire.messages import Receipt

__all__ = ["AsyncClient", "AsyncRun"]

T = TypeVar("T")


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
        project: str | None = None,
        session: str | None = None,
        certificate: ChainSource | None = None,
        propose: str | None = None,
    ) -> None:
        self._trust: Final = resolve(socket, key, daemon_key, insecure=insecure)
        self._chain = certificates(certificate)
        self._timeout = timeout
        self._behalf = Behalf(persona, tenant, sub, project, session)
        self._propose = propose
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

    @property
    def manifests(self) -> AsyncManifests:
        """As `Client.manifests`."""
        return AsyncManifests(self)

    async def connect(self) -> Hello:
        """As `Client.connect`."""
        async with self._bounded(None):
            return await (await self._connected()).hello()

    async def close(self) -> None:
        """As `Client.close`."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    async def renew(self, certificate: ChainSource) -> None:
        """As `Client.renew`."""
        self._chain = certificates(certificate)
        if self._link is not None and self._link.usable:
            await self._present(self._link, self._chain)

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
        order = arguments(argv, stream=stream or on_stdout is not None or on_stderr is not None, **options)
        return await self.execute(order, on_stdout, on_stderr, timeout=timeout, retries=retries)

    async def execute(
        self,
        order: Order,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the same surface as Client's
        retries: int = 0,
    ) -> RunResult:
        """As `Client.execute`."""
        await self._check_done(order.cmd, order.args)
        sinks = {name: sink for name, sink in (("stdout", on_stdout), ("stderr", on_stderr)) if sink is not None}
        kept = {"stdout", "stderr"} - sinks.keys()
        backoff = Backoff(retries if order.repeatable else 0)
        request: Request | None = None
        async with self._bounded(timeout):
            while True:
                try:
                    link = await self._connected()
                    request = request or await self._sign(link, order.cmd, order.args)
                    async with AsyncRun(link, request, order, keep=kept, retried=backoff.used) as run:
                        async for name, data in run:
                            await _feed(sinks.get(name), data)
                        return await run.result()
                except ImmuredError as error:
                    await asyncio.sleep(backoff.delay(error, request))

    def start(self, argv: Sequence[Text], **options: Unpack[RunOptions]) -> Opening[AsyncRun]:
        """As `Client.start`:

        async with client.start(["make"]) as run:
            async for stream, data in run:
                ...
        print((await run.result()).cause)
        """
        return Opening(self.begin(arguments(argv, stream=True, **options)))

    async def begin(self, order: Order) -> AsyncRun:
        """As `Client.begin`."""
        await self._check_done(order.cmd, order.args)
        link = await self._connected()
        return AsyncRun(link, await self._sign(link, order.cmd, order.args), order)

    def batch(
        self,
        runs: Iterable[Sequence[Text] | OneRun],
        *,
        concurrency: int | None = None,
        **options: Unpack[BatchOptions],
    ) -> AsyncBatch:
        """As `Client.batch`; bound it with `asyncio.timeout`:

        async for index, result in client.batch([["/bin/true"]] * 1000):
            ...
        """

        async def sign_part(part: Part) -> tuple[AsyncLink, Request]:
            await self._check_done("run.batch", part.args)
            link = await self._connected()
            return link, await self._sign(link, "run.batch", part.args)

        return AsyncBatch(parts(runs, concurrency=concurrency, **options), sign_part)

    async def plan(self, argv: Sequence[Text], **options: Unpack[RunOptions]) -> Mapping[str, object]:
        """As `Client.plan`."""
        order = arguments(argv, **options)
        return (await self.call("plan", order.args)).result

    def sandbox(self, *, keep: bool = False, **options: Unpack[CreateOptions]) -> Opening[AsyncSandbox]:
        """As `Client.sandbox`: `async with client.sandbox() as sandbox:`, or `sandbox = await client.sandbox()`."""
        return Opening(self._sandbox(questions.create(**options), keep))

    async def _sandbox(self, question: Question[tuple[SandboxFacts, ...]], keep: bool) -> AsyncSandbox:
        (facts,) = await self.ask(question)
        return AsyncSandbox(self, facts, keep=keep)

    async def create(self, count: int, **options: Unpack[CreateOptions]) -> list[AsyncSandbox]:
        """As `Client.create`."""
        return [AsyncSandbox(self, facts) for facts in await self.ask(questions.create(count=count, **options))]

    async def open(self, word: str) -> AsyncSandbox:
        """As `Client.open`."""
        return AsyncSandbox(self, await self.ask(questions.show(word)), keep=True)

    def at(self, word: str) -> AsyncSandbox:
        """As `Client.at`."""
        return AsyncSandbox(self, SandboxFacts.unasked(word), keep=True)

    async def sandboxes(
        self, *, labels: Mapping[str, str] | None = None, state: str | None = None
    ) -> list[AsyncSandbox]:
        """As `Client.sandboxes`."""
        found: list[AsyncSandbox] = []
        after: str | None = None
        while True:
            rows, after = await self.ask(questions.page(labels=labels, state=state, after=after))
            found += [AsyncSandbox(self, facts, keep=True) for facts in rows]
            if after is None:
                return found

    async def prune(self, *, alive: bool = False, labels: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """As `Client.prune`."""
        return await self.ask(questions.prune(alive=alive, labels=labels))

    async def status(self) -> Mapping[str, object]:
        """As `Client.status`."""
        return (await self.call("status")).result

    async def preflight(
        self,
        *,
        manifest: str | Mapping[str, object] | None = None,
        raw: bytes | None = None,
        signatures: bytes | None = None,
        argv: Sequence[Text] | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Preflight:
        """As `Client.preflight`."""
        asked = preflight(manifest=manifest, raw=raw, signatures=signatures, argv=argv, parameters=parameters)
        return await self.ask(asked)

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

    async def whoami(self) -> Mapping[str, object]:
        """As `Client.whoami`."""
        return (await self.call("whoami")).result

    async def daemon_rotate(self, *, overlap_ms: int | None = None) -> Mapping[str, object]:
        """As `Client.daemon_rotate`."""
        return (await self.call("daemon.rotate", {} if overlap_ms is None else {"overlap_ms": overlap_ms})).result

    async def prove(
        self,
        entry: Receipt | int,
        *,
        keys: Iterable[VerifierKey] | KeyHistory | None = None,
        witnesses: Iterable[CosignKey] = (),
        require: int = 0,
    ) -> Proven:
        """As `Client.prove`."""
        from immured.client.ledger import prove

        return await self.ask(prove(entry, keys, witnesses, require))

    async def ledger_checkpoint(self, *, keys: Iterable[VerifierKey] | None = None) -> LedgerHead:
        """As `Client.ledger_checkpoint`."""
        from immured.client.ledger import ledger_checkpoint

        return await self.ask(ledger_checkpoint(keys))

    async def metrics(self) -> Mapping[str, object]:
        """As `Client.metrics`."""
        return (await self.call("metrics")).result

    async def ledger_query(
        self,
        *,
        types: Collection[str] = (),
        actor: str = "",
        sandbox: str = "",
        since: str = "",
        until: str = "",
        tenant: str | None = None,
        first: int = 0,
    ) -> AsyncIterator[Entry]:
        """As `Client.ledger_query`."""
        from immured.client.ledger_query import ledger_query

        asked = first or None
        while True:
            page = await self.ask(ledger_query(types, actor, sandbox, since, until, tenant, asked))
            for entry in page.entries:
                yield entry
            if page.next is None:
                return
            asked = page.next

    async def ledger_rotate_key(self) -> Mapping[str, object]:
        """As `Client.ledger_rotate_key`."""
        return (await self.call("ledger.rotate_key")).result

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
        question = Question(cmd, args or {}, lambda said: said, tuple(fds))
        return await self.ask(question, timeout=timeout, retries=retries)

    async def ask(
        self,
        question: Question[T],
        *,
        sink: Taken | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the same surface as Client's
        retries: int = 0,
    ) -> T:
        """As `Client.ask`; `sink` may be a coroutine function."""
        await self._check_done(question.cmd, question.args)
        backoff = Backoff(retries if question.repeatable else 0)
        request: Request | None = None
        async with self._bounded(timeout):
            while True:
                try:
                    link = await self._connected()
                    request = request or await self._sign(link, question.cmd, question.args)
                    return await _converse(link, request, question, Asked(question, sink, progress))
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

    async def _sign(self, link: AsyncLink, cmd: str, args: Mapping[str, object]) -> Request:
        now_ms, key = time.time_ns() // 1_000_000, self._trust.key
        signing = partial(sign, key, link.session.audience, cmd, args, now_ms=now_ms, behalf=self._behalf)
        # An agent may ask a person first; a key at hand signs sooner than a thread is found.
        return signing() if isinstance(key, PrivateKey) else await asyncio.to_thread(signing)

    async def _connected(self) -> AsyncLink:
        async with self._lock:
            if self._link is not None and not self._link.usable:
                self._link.close()
                self._link = None
            if self._link is None:
                self._link = await self._opened()
            link = self._link
        if self._trust.daemon is None:
            await link.hello()  # it alone says whom commands are for
        return link

    async def _opened(self) -> AsyncLink:
        link = AsyncLink(await connect_socket(self._trust.socket), self._trust.daemon)
        try:
            await self._present(link, self._chain)
        except BaseException:
            link.close()
            raise
        return link

    @staticmethod
    async def _present(link: AsyncLink, chain: Chain) -> None:
        link.session.present(envelope for _, envelope in chain)
        for body, _ in chain:
            await link.send(body)

    async def _check_done(self, cmd: str, args: Mapping[str, object]) -> None:
        """As `Client._check_done`."""
        if self._propose is not None and not cmd.startswith(PROPOSING):
            raise Proposed(await self.ask(propose(cmd, args, self._propose)))


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

    @property
    def exec(self) -> str | None:
        """As `Run.exec`."""
        return self._collector.exec

    @property
    def offset(self) -> int | None:
        """As `Run.offset`."""
        return self._collector.offset

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
        order = self._order
        await _send(self._link, call, order.fds, order.source, "stdin", self._collector.sending)


async def _send(
    link: AsyncLink, call: Call, fds: Sequence[int], source: Stdin | None, stream: str, sending: Callable[[bytes], None]
) -> None:
    """The command, then what travels as data; `sending` is told each piece before. What fails is found at the call."""
    try:
        await link.send(call.request.body, fds)
        if source is None:
            return
        async with contextlib.aclosing(_chunks(source)) as chunks:
            async for chunk in chunks:
                sending(chunk)
                await link.send(data_body(call.request.nonce, stream, chunk))
        await link.send(data_body(call.request.nonce, stream, b""))
    except Exception as error:  # noqa: BLE001 - whatever a caller's input raises is the caller's to see
        link.spoil(call, error)


async def _converse(link: AsyncLink, request: Request, question: Question[T], asked: Asked[T]) -> T:
    call = link.open(request)
    pump: asyncio.Task[None] | None = None
    try:
        if question.source is None:
            await link.send(request.body, question.fds)
        else:
            sending = _send(link, call, question.fds, question.source, question.into, asked.sending)
            pump = asyncio.get_running_loop().create_task(sending, name=f"immured-{question.into}")
        while True:
            event = await link.next(call)
            if isinstance(event, Reply):
                return asked.finish(event)
            waits = asked.data(event)
            if inspect.isawaitable(waits):
                await waits
    finally:
        link.forget(call)
        if pump is not None:
            pump.cancel()
            await asyncio.wait([pump])


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
