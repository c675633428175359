"""A connection that follows a kept exec: its output from an offset on, as data frames, and what it types."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from immured.errors import Refused
from immured.isolation.launcher import LauncherLostError
from immured.service.channel import Channel
from immured.service.context import Service
from immured.service.request import Request
from immured.service.sandboxes.exec import Exec
from immured.service.sandboxes.logs import Log, Page
from immured.wire.data_frames import DataFrames
from immured.wire.messages import MAX_DATA, StreamRecord, data_body

__all__ = ["Attachment"]

_PAGE: Final = 256 * 1024


class _Sent:
    """What went to the connection. `at`: where it goes on; `begin`: where it really began."""

    def __init__(self, channel: Channel, nonce: bytes, start: int, names: Iterable[str]) -> None:
        self.at = start
        self.begin: int | None = None
        self.lost = 0
        self._channel = channel
        self._nonce = nonce
        self._frames = {name: DataFrames(nonce, name) for name in names}
        self._digests = {name: hashlib.sha256() for name in self._frames}
        self._lengths = dict.fromkeys(self._frames, 0)

    def take(self, page: Page) -> bool:
        """Send it. False where it is empty."""
        if self.begin is None or page.lost:  # who loses the connection knows from where on to attach again
            self._channel.send(data_body(self._nonce, "from", str(page.start).encode()))
        self.begin = page.start if self.begin is None else self.begin
        self.at, self.lost = page.next, self.lost + page.lost
        for stream, pieces in itertools.groupby(page.pieces, lambda piece: piece.stream):
            data = b"".join(piece.data for piece in pieces)  # one that writes byte by byte is not a frame a byte
            self._digests[stream].update(data)
            self._lengths[stream] += len(data)
            for start in range(0, len(data), MAX_DATA):
                self._channel.send_parts(self._frames[stream].parts(data[start : start + MAX_DATA]))
        return bool(page.pieces)

    def records(self) -> list[tuple[str, int, bytes]]:
        """Name, length and digest of each stream."""
        return [(name, self._lengths[name], digest.digest()) for name, digest in self._digests.items()]

    def finish(self) -> dict[str, StreamRecord]:
        """There is no more: end every stream."""
        for frames in self._frames.values():
            self._channel.send_parts(frames.parts(b""))
        return {name: StreamRecord(length, digest) for name, length, digest in self.records()}


def _names(one: Exec) -> tuple[str, ...]:
    return ("stdout",) if one.terminal else ("stdout", "stderr")


class Attachment:
    """One of them. Made before anything is waited for; `close` it."""

    def __init__(self, service: Service, request: Request, one: Exec, log: Log, start: int, *, output: bool) -> None:
        self._service = service
        self._request = request
        self._exec = one
        self._log = log
        self._start = start
        self._output = output
        self._wake = asyncio.Event()
        self._length = 0
        self._fed: hashlib._Hash | None = None
        self._end_stdin: Callable[[], None] | None = None
        self._closed = False
        one.attached += 1

    def feed_by(self, end_stdin: Callable[[], None]) -> None:
        """This connection's data frames are its input from now on; an empty one ends that, by `end_stdin`.

        Raises Refused `wrong_state` where nothing that is typed would arrive.
        """
        keyboard = self._exec.keyboard
        if keyboard is None or not keyboard.takes:
            self.close()
            raise Refused(
                "wrong_state",
                f"the exec {self._exec.id} takes no input",
                "attach without `input`; begin one without `stdin` to feed it",
            )
        self._fed = hashlib.sha256()
        self._end_stdin = end_stdin
        self._service.feeds[self._request.channel, self._request.command.nonce] = self
        keyboard.held_by(self._request.channel)

    def feed(self, data: bytes) -> None:
        """A data frame of stdin."""
        keyboard = self._exec.keyboard
        if keyboard is None or self._fed is None:
            return
        self._fed.update(data)
        self._length += len(data)
        keyboard.feed(data)
        if not data and not self._exec.terminal and self._end_stdin is not None:
            with contextlib.suppress(LauncherLostError):
                self._end_stdin()

    async def follow(self) -> tuple[Mapping[str, object], Mapping[str, object]]:
        """Until the exec is over. What the reply says, and what the ledger does.

        Raises Refused `detached` where the connection is closed first.
        """
        one, channel = self._exec, self._request.channel
        channel.on_closed[self] = self._wake.set
        self._log.listen(self, self._wake.set)
        sent = _Sent(channel, self._request.command.nonce, self._start, _names(one) if self._output else ())
        while True:
            over = one.over.is_set()
            self._wake.clear()
            if channel.closed:
                raise Refused("detached", "the connection was closed; the exec goes on", "attach again")
            if self._output and sent.take(self._log.read(sent.at, _PAGE, following=True)):
                await self._until_drained()
            elif over:
                break
            else:
                await self._wake.wait()
        streams = {name: record.to_map() for name, record in sent.finish().items()}
        said: dict[str, object] = {"exec": one.id, "from": sent.begin or 0, "lost": sent.lost}
        done = {**said, "streams": {name: {"length": n, "sha256": d.hex()} for name, n, d in sent.records()}}
        if self._fed is not None:
            streams["stdin"] = StreamRecord(self._length, self._fed.digest()).to_map()
            done["input"] = {"length": self._length, "sha256": self._fed.hexdigest()}
        return {**one.result, **said, "streams": streams}, done

    def close(self) -> None:
        """Twice is once."""
        self._log.forget(self)
        channel = self._request.channel
        channel.on_closed.pop(self, None)
        if self._fed is not None:
            self._fed = None
            self._service.feeds.pop((channel, self._request.command.nonce), None)
            if self._exec.keyboard is not None:
                self._exec.keyboard.released(channel)
        if not self._closed:
            self._closed = True
            self._exec.attached -= 1
            self._exec.let_go_of_log()

    async def _until_drained(self) -> None:
        channel = self._request.channel
        if not channel.congested or channel.closed:
            return
        drained = asyncio.Event()
        channel.when_drained(drained.set)
        await drained.wait()
