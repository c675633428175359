"""What anybody may cost a witness, with bounds that are reached at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from immured.ledger.witness_server import Bounds, Server
from immured.ledger.witness_state import origin_hash
from tests.ledger.witness.logs import Log, made
from tests.patience import PATIENCE_S

Ask = Callable[[bytes], Awaitable[bytes]]


def served(place: Path, bounds: Bounds, log: Log, test: Callable[[Ask], Awaitable[None]]) -> list[str]:
    """Run it against a server of this process; the lines of its log."""
    said: list[str] = []

    async def whole() -> None:
        server, stop = Server(made(place, log)[0], bounds=bounds, say=said.append), asyncio.Event()
        listening = await asyncio.start_server(server.connected, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        serving = asyncio.ensure_future(server.serve(listening, stop))

        async def ask(request: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                async with asyncio.timeout(PATIENCE_S):
                    return await reader.read()
            finally:
                writer.close()

        try:
            await test(ask)
        finally:
            stop.set()
            await serving

    asyncio.run(whole())
    return said


def post(body: bytes) -> bytes:
    head = b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def get(log: Log) -> bytes:
    return f"GET /{origin_hash(log.origin)}/checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n".encode()


def test_who_repeats_himself_fills_no_log(tmp_path: Path) -> None:
    log, bounds = Log().grow(9), Bounds()
    bounds.said_per_s = 0.001

    async def test(ask: Ask) -> None:
        assert b" 200 " in await ask(post(log.body(0, 3)))
        for _ in range(20):
            assert b" 200 " in await ask(post(log.body(3, 3)))
            assert b" 200 " in await ask(get(log))
            assert b" 409 " in await ask(post(log.body(0, 3)))
            assert b" 400 " in await ask(b"nothing\r\n\r\n")
        assert b" 200 " in await ask(post(log.body(3, 9)))

    said = [line.split(" ", 1)[1] for line in served(tmp_path, bounds, log, test)]
    assert said == [
        "200 127.0.0.1 log.example/one: 0 -> 3: cosigned",
        "- 80 other answers were not written down",
        "200 127.0.0.1 log.example/one: 3 -> 9: cosigned",
    ]


def test_who_asks_too_often_is_told_to_wait(tmp_path: Path) -> None:
    log, bounds = Log().grow(3), Bounds()
    bounds.requests_per_s, bounds.requests_at_once = 0.001, 3.0

    async def test(ask: Ask) -> None:
        answers = [await ask(get(log)) for _ in range(5)]
        assert [answer.split(b" ")[1] for answer in answers] == [b"404"] * 3 + [b"429"] * 2
        assert b"\r\nRetry-After: 1\r\n" in answers[-1]

    served(tmp_path, bounds, log, test)


def test_what_takes_too_long_is_let_go_and_what_is_idle_too(tmp_path: Path) -> None:
    log, bounds = Log().grow(3), Bounds()
    bounds.request_s = bounds.idle_s = 2.0

    async def test(ask: Ask) -> None:
        assert await ask(b"") == b""
        assert await ask(b"POST /add-checkpoint HTT") == b""
        assert await ask(post(log.body(0))[:-9]) == b""
        bounds.request_s = bounds.idle_s = PATIENCE_S
        assert b" 200 " in await ask(post(log.body(0)))

    served(tmp_path, bounds, log, test)
