"""The witness over HTTP: who may take how much of it, and which request is which of its answers.

    POST /add-checkpoint                     c2sp.org/tlog-witness
    GET  /<SHA-256 of an origin>/checkpoint

Nobody is asked who he is: a submission is worth what the log's signature on it is worth. So a stranger can cost it
time, and everything that costs is bounded: connections, altogether and of one address; requests of one address; the
bytes of a request, and the seconds that it may take; the checkpoints of a log that are written, and the lines of its
log. The addresses of one IPv6 network (/64) count as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Final

from immured.ledger.timestamps import timestamp
from immured.ledger.witness import Answer, Witness
from immured.ledger.witness_http import CONTINUE, HttpError, Reader, Request, response

__all__ = ["Bounds", "Server"]

_CHECKPOINT: Final = re.compile(r"/([0-9a-f]{64})/checkpoint")
_CHUNK: Final = 16 * 1024
_THREADS: Final = 8
_STOP_S: Final = 5.0
_MAX_ADDRESSES: Final = 4096
_TEXT: Final = "text/plain; charset=utf-8"


class Bounds:
    """How much there may be. Tests take smaller ones."""

    connections = 256
    of_one_address = 64
    idle_s = 60.0
    """A connection without a request."""
    request_s = 10.0
    """From the first byte of a request to its last, and for the reading of an answer."""
    requests_per_s = 200.0
    requests_at_once = 400.0
    said_per_s = 20.0
    """Lines in the log of what anybody may cause."""


class _Bucket:
    """So much at once, and so much a second."""

    __slots__ = ("at", "left")

    def __init__(self, left: float, now: float) -> None:
        self.left, self.at = left, now

    def takes(self, now: float, rate: float, most: float) -> bool:
        self.left = min(most, self.left + (now - self.at) * rate)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Server:
    """Serves one witness, on one event loop."""

    def __init__(
        self, witness: Witness, *, bounds: Bounds | None = None, say: Callable[[str], None] | None = None
    ) -> None:
        """`say` takes the lines of the log; stderr by default."""
        self._witness, self._bounds = witness, bounds or Bounds()
        self._say = say or _to_stderr
        self._tasks: set[asyncio.Task[None]] = set()
        self._there: dict[str, int] = {}
        self._asked: OrderedDict[str, _Bucket] = OrderedDict()
        self._said = _Bucket(self._bounds.said_per_s, time.monotonic())
        self._unsaid = 0
        self._threads = ThreadPoolExecutor(_THREADS, "witness")
        self._stopping = False

    async def serve(self, listening: asyncio.Server | None, stop: asyncio.Event) -> None:
        """Until `stop`: then nobody is let in any more, and who is being answered is answered."""
        await stop.wait()
        self._stopping = True
        if listening is not None:
            listening.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What a listening socket is given for each connection."""
        peer = writer.get_extra_info("peername")
        address = _address(str(peer[0])) if isinstance(peer, tuple) else "local"
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it is what runs this
        if self._stopping or len(self._tasks) >= self._bounds.connections or self._is_crowded(address):
            writer.write(response(503, b"too many connections\n", _TEXT, keep=False, more=("Retry-After: 5",)))
            await _end(writer)
            return
        self._tasks.add(task)
        self._there[address] = self._there.get(address, 0) + 1
        try:
            with contextlib.suppress(OSError, TimeoutError):
                await self._converse(reader, writer, address)
        finally:
            self._tasks.discard(task)
            self._there[address] -= 1
            if not self._there[address]:
                del self._there[address]
            await _end(writer)

    def _is_crowded(self, address: str) -> bool:
        return address != "local" and self._there.get(address, 0) >= self._bounds.of_one_address

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        """Requests, one after the other, until one is the last."""
        parsed = Reader()
        while not self._stopping:
            request = await self._request(parsed, reader, writer, address)
            if request is None:
                return
            answer = await self._answered(request, address)
            keep = request.keep and not self._stopping
            more = ("Retry-After: 1",) if answer.status == 429 else ()
            body = b"" if request.method == "HEAD" else answer.body
            writer.write(response(answer.status, body, answer.content_type, keep=keep, more=more))
            async with asyncio.timeout(self._bounds.request_s):
                await writer.drain()
            if not keep:
                return

    async def _request(
        self, parsed: Reader, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str
    ) -> Request | None:
        """The next one; None: there is none. Bytes of one that came with the one before are in `parsed`."""
        try:
            for request in parsed.feed(b""):
                return request
            deadline = None
            while True:
                if parsed.begun and deadline is None:
                    deadline = asyncio.get_running_loop().time() + self._bounds.request_s
                idle = asyncio.get_running_loop().time() + self._bounds.idle_s
                async with asyncio.timeout_at(idle if deadline is None else deadline):
                    data = await reader.read(_CHUNK)
                if not data:
                    return None
                for request in parsed.feed(data):
                    return request
                if parsed.expects:
                    parsed.expects = False
                    writer.write(CONTINUE)
        except HttpError as error:
            self._log(address, Answer(error.status, b"", f"no request: {error}"))
            writer.write(response(error.status, f"{error}\n".encode(), _TEXT, keep=False))
            return None

    async def _answered(self, request: Request, address: str) -> Answer:
        if address != "local" and not self._may_ask(address):
            answer = Answer(429, b"too many requests\n", "too many requests")
        elif request.target == "/add-checkpoint":
            if request.method != "POST":
                answer = Answer(405, b"POST\n", f"{request.method} of add-checkpoint")
            else:
                answer = await self._in_thread(self._witness.add_checkpoint, request.body)
        elif (found := _CHECKPOINT.fullmatch(request.target)) is not None:
            if request.method not in ("GET", "HEAD"):
                answer = Answer(405, b"GET\n", f"{request.method} of a checkpoint")
            else:
                answer = await self._in_thread(self._witness.checkpoint, found[1])
        else:
            answer = Answer(404, b"nothing is here\n", "another path")
        self._log(address, answer)
        return answer

    async def _in_thread(self, work: Callable[..., Answer], argument: object) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, argument)

    def _may_ask(self, address: str) -> bool:
        now = time.monotonic()
        bucket = self._asked.pop(address, None) or _Bucket(self._bounds.requests_at_once, now)
        self._asked[address] = bucket
        while len(self._asked) > _MAX_ADDRESSES:
            self._asked.popitem(last=False)
        return bucket.takes(now, self._bounds.requests_per_s, self._bounds.requests_at_once)

    def _log(self, address: str, answer: Answer) -> None:
        """A line of what was cosigned always; of the rest, what anybody may cause, only so many."""
        if not answer.grew and not self._said.takes(time.monotonic(), self._bounds.said_per_s, self._bounds.said_per_s):
            self._unsaid += 1
            return
        if self._unsaid:
            self._say(f"{timestamp(time.time_ns())} - {self._unsaid} other answers were not written down")
            self._unsaid = 0
        said = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in answer.said[:512])
        self._say(f"{timestamp(time.time_ns())} {answer.status} {address} {said}")


def _address(text: str) -> str:
    """Whom to count it to: an IPv4 address, an IPv6 network."""
    try:
        one = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(one, IPv4Address):
        return text
    return str(one.ipv4_mapped or IPv6Network((one.packed[:8] + bytes(8), 64)))


async def _end(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            if writer.can_write_eof():
                writer.write_eof()
            await writer.drain()
    writer.close()


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
