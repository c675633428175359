"""The asyncio client: the same promises, many at once on one loop, and cancellation."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import BinaryIO, TypeVar

import pytest

from immured import AsyncClient
from immured.client import ConnectionLost, NoReply, Refusal, StreamMismatch, UntrustedReply
from immured.client.session import QUEUE_BYTES
from immured.wire.frames import MAX_FRAME
from immured.wire.messages import MAX_DATA
from tests.client.conftest import Serving
from tests.client.peer import USER, Peer, Served, record, result_of
from tests.client.test_client import (
    STRANGER,
    answering,
    flood,
    says_much_before_it_reads,
    streaming_echo,
    until_closed,
)
from tests.patience import PATIENCE_S

T = TypeVar("T")


def client(peer: Peer) -> AsyncClient:
    return AsyncClient(peer.socket, USER, timeout=PATIENCE_S)


def within(work: Coroutine[None, None, T]) -> T:
    """Runs it, and fails rather than hangs."""

    async def bounded() -> T:
        async with asyncio.timeout(2 * PATIENCE_S):
            return await work

    return asyncio.run(bounded())


def test_a_run_is_awaited(serving: Serving) -> None:
    async def work() -> int | None:
        async with client(serving(answering(result_of(exit_code=3)))) as connected:
            return (await connected.run(["/bin/true"])).exit_code

    assert within(work()) == 3


def test_many_runs_share_one_connection(serving: Serving) -> None:
    count = 64

    def script(served: Served) -> None:
        served.hello()
        for command, digest, _ in reversed([served.command() for _ in range(count)]):
            argv = command.args["argv"]
            assert isinstance(argv, list)
            served.reply(command, digest, result_of(stdout=argv[1].encode()))
        until_closed(served)

    async def work() -> list[bytes]:
        async with client(serving(script)) as connected:
            results = await asyncio.gather(*(connected.run(["/bin/echo", str(number)]) for number in range(count)))
        return [result.stdout for result in results]

    assert within(work()) == [str(number).encode() for number in range(count)]


def test_a_refusal_is_raised(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        served.refuse("denied", re=command.nonce, req=digest)
        until_closed(served)

    async def work() -> None:
        async with client(serving(script)) as connected:
            await connected.status()

    with pytest.raises(Refusal, match="denied"):
        within(work())


def test_a_reply_signed_by_another_key_is_not_believed(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        served.reply(command, digest, key=STRANGER)
        until_closed(served)

    async def work() -> None:
        async with client(serving(script)) as connected:
            await connected.run(["/bin/true"])

    with pytest.raises(UntrustedReply):
        within(work())


def test_output_that_is_not_what_was_signed_is_an_error(serving: Serving) -> None:
    said = result_of(streams={"stdout": record(b"out")})

    async def work() -> None:
        async with client(serving(answering(said, ("stdout", b"in")))) as connected:
            await connected.run(["/bin/true"], stream=True)

    with pytest.raises(StreamMismatch):
        within(work())


def test_input_and_output_larger_than_any_buffer_pass_each_other(serving: Serving) -> None:
    data = os.urandom(8 << 20)

    async def work() -> bytes:
        async with client(serving(streaming_echo)) as connected:
            return (await connected.run(["/bin/cat"], stdin=data)).stdout

    assert within(work()) == data


def test_input_may_be_an_async_iterable(serving: Serving) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield b"x" * 100_000

    async def work() -> int:
        async with client(serving(streaming_echo)) as connected:
            return len((await connected.run(["/bin/cat"], stdin=pieces())).stdout)

    assert within(work()) == 300_000


def test_input_may_be_a_file(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"abc")

    async def work() -> bytes:
        async with client(serving(streaming_echo)) as connected:
            with (tmp_path / "input").open("rb") as file:
                return (await connected.run(["/bin/cat"], stdin=file)).stdout

    assert within(work()) == b"abc"


def test_a_command_may_end_before_it_has_read_its_input(serving: Serving) -> None:
    read, write = os.pipe()  # nobody ever writes

    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        served.reply(command, digest)
        until_closed(served)

    async def work(file: BinaryIO) -> bool:
        async with client(serving(script)) as connected:
            return (await connected.run(["/bin/true"], stdin=file)).ok

    with open(read, "rb") as file, open(write, "wb"):
        assert within(work(file))


def test_what_the_input_raises_the_caller_sees(serving: Serving) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise RuntimeError("the input is broken")

    def script(served: Served) -> None:
        served.hello()
        until_closed(served)

    async def work() -> None:
        async with client(serving(script)) as connected:
            await connected.run(["/bin/cat"], stdin=broken())

    with pytest.raises(RuntimeError, match="the input is broken"):
        within(work())


def test_callbacks_may_be_coroutines(serving: Serving) -> None:
    said = result_of(streams={"stdout": record(b"out")})
    heard: list[bytes] = []

    async def sink(data: bytes) -> None:
        await asyncio.sleep(0)
        heard.append(data)

    async def work() -> None:
        async with client(serving(answering(said, ("stdout", b"out")))) as connected:
            await connected.run(["/bin/true"], on_stdout=sink)

    within(work())
    assert heard == [b"out"]


def test_a_callback_may_make_calls_of_its_own(serving: Serving) -> None:
    asked: list[object] = []

    async def work() -> None:
        async with client(serving(flood)) as connected:

            async def sink(data: bytes) -> None:
                if not asked:
                    asked.append(await connected.status())

            await connected.run(["/bin/yes"], on_stdout=sink)

    within(work())
    assert asked == [{}]


def test_output_that_nobody_takes_does_not_fill_the_memory(serving: Serving) -> None:
    async def work() -> tuple[int, bool]:
        async with client(serving(flood)) as connected, await connected.start(["/bin/yes"]) as run:
            other = asyncio.create_task(connected.status())
            await asyncio.wait([other], timeout=0.5)
            assert run._call is not None
            queued = run._call.queued
            ok = (await run.result()).ok
            await other
            return queued, ok

    queued, ok = within(work())
    assert queued <= QUEUE_BYTES + MAX_DATA
    assert ok


def test_a_run_can_be_iterated(serving: Serving) -> None:
    said = result_of(streams={"stdout": record(b"out"), "stderr": record(b"err")})

    async def work() -> list[tuple[str, bytes]]:
        peer = serving(answering(said, ("stdout", b"out"), ("stderr", b"err")))
        async with client(peer) as connected, await connected.start(["/bin/true"]) as run:
            return [piece async for piece in run]

    assert within(work()) == [("stdout", b"out"), ("stderr", b"err")]


def test_a_cancelled_call_leaves_the_connection_whole(serving: Serving) -> None:
    release = threading.Event()

    def script(served: Served) -> None:
        served.hello()
        release.wait(PATIENCE_S)
        while True:
            command, digest, _ = served.command()
            if command.cmd == "status":
                served.reply(command, digest, {})
                break
        until_closed(served)

    async def work() -> object:
        async with client(serving(script)) as connected:
            with pytest.raises(NoReply):  # a frame far larger than the socket's buffer: it is cut off inside
                await connected.call("big", {"x": bytes(MAX_FRAME - 4096)}, timeout=0.1)
            release.set()
            return await connected.status()

    assert within(work()) == {}


def test_a_lost_reply_is_asked_for_with_the_very_same_bytes(serving: Serving) -> None:
    bodies: list[bytes] = []

    def script(served: Served) -> None:
        served.hello()
        command, digest, frame = served.command()
        bodies.append(frame.body)
        if served.number == 2:
            served.reply(command, digest)
            until_closed(served)

    async def work() -> bool:
        async with client(serving(script)) as connected:
            return (await connected.run(["/bin/true"], retries=1)).ok

    assert within(work())
    assert len(bodies) == 2
    assert len(set(bodies)) == 1


def test_close_wakes_whoever_waits(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        until_closed(served)

    async def work() -> None:
        connected = client(serving(script))
        asking = asyncio.create_task(connected.status())
        await connected.connect()
        await connected.close()
        await asking

    with pytest.raises(ConnectionLost):
        within(work())


def test_a_call_made_amid_output_waits_for_no_input_that_waits_for_it(serving: Serving) -> None:
    async def work() -> list[Mapping[str, object]]:
        answers: list[Mapping[str, object]] = []
        async with client(serving(says_much_before_it_reads)) as connected:
            async with await connected.start(["/bin/cat"], stdin=bytes(2 * QUEUE_BYTES)) as run:
                async for _ in run:
                    if not answers:
                        answers.append(await connected.status())
            assert (await run.result()).ok
        return answers

    assert within(work()) == [{"which": "within"}]


def test_descriptors_ride_with_the_command(serving: Serving) -> None:
    read, write = os.pipe()
    seen: list[bool] = []

    def script(served: Served) -> None:
        served.hello()
        command, digest, frame = served.command()
        seen.extend(os.path.sameopenfile(fd, write) for fd in frame.fds)
        for fd in frame.fds:
            os.close(fd)
        served.reply(command, digest, result_of(streams={"stdout": {"passed": True}}))
        until_closed(served)

    async def work() -> None:
        async with client(serving(script)) as connected:
            await connected.run(["/bin/true"], fds={1: write})

    within(work())
    os.close(read)
    os.close(write)
    assert seen == [True]


def test_a_daemon_that_says_nothing_is_left(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immured.client.aiolink.HELLO_SECONDS", 0.2)

    async def work() -> None:
        async with client(serving(until_closed)) as silent:
            await silent.run(["/bin/true"])

    with pytest.raises(ConnectionLost, match="no hello"):
        within(work())
