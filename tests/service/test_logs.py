"""The log of a kept exec, read by many at once."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Sequence

from immured.isolation import abi
from immured.service.sandboxes import attachment
from immured.service.sandboxes.logs import Log
from tests.patience import PATIENCE_S

COUNT = 5000


def written(pieces: Sequence[tuple[int, bytes]]) -> Log:
    """A log as a warden leaves it."""
    log = Log.make()
    at, totals = 0, {1: 0, 2: 0}
    for stream, data in pieces:
        record = struct.pack("=QII", 0, stream, len(data)) + data
        os.pwrite(log.fd, record, abi.LOG_PAGE + at)
        at += -(-len(record) // 16) * 16
        totals[stream] += len(data)
    os.pwrite(log.fd, struct.pack("=QQQQ", 0, at, totals[1], totals[2]), 8)
    return log


class Recorder:
    """What is sent, and nothing else of a channel."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, body: bytes) -> None:
        self.frames.append(body)

    def send_parts(self, parts: Sequence[bytes]) -> None:
        self.frames.append(b"".join(parts))


def test_one_that_writes_byte_by_byte_is_not_sent_a_frame_a_byte() -> None:
    async def follow() -> tuple[int, int]:
        log = written([(1, b"x")] * COUNT + [(2, b"y")] * COUNT)
        channel = Recorder()
        sent = attachment._Sent(channel, b"n" * 16, 0, ("stdout", "stderr"))  # type: ignore[arg-type]
        assert sent.take(log.read(0, 1 << 20))
        log.close()
        return len(channel.frames), sum(length for _, length, _ in sent.records())

    frames, length = asyncio.run(follow())
    assert length == 2 * COUNT
    assert frames <= 4


def test_offsets_of_pages_meet_wherever_they_begin() -> None:
    async def read() -> None:
        log = written([(1 + i % 2, bytes([i % 251]) * (i % 7)) for i in range(1000)])
        whole = b"".join(piece.data for piece in log.read(0, 1 << 20).pieces)
        for start in range(0, len(whole) + 2, 13):
            at, found = start, b""
            while (page := log.read(at, 50)).pieces:
                assert (page.start, page.lost) == (at, 0)
                found += b"".join(piece.data for piece in page.pieces)
                at = page.next
            assert found == whole[start:]
        log.close()

    asyncio.run(read())


def test_a_piece_that_is_counted_and_not_there_yet_is_not_passed_over() -> None:
    """The writer stopped between the two: on one processor that is where a reader finds it."""

    async def read() -> None:
        log = written([(1, b"one\n")])
        ready = os.pread(log.fd, 32, 8)
        os.pwrite(log.fd, struct.pack("=QQQQ", *struct.unpack("=QQ", ready[:16]), 8, 0), 8)
        page = log.read(0, 1 << 20)
        assert (page.start, page.next, page.lost) == (0, 4, 0)
        log.close()

    asyncio.run(read())


def test_who_follows_finds_what_wakes_him_and_who_asks_finds_all() -> None:
    """However many follow, a log is looked through once for each wake-up."""

    async def read() -> None:
        log = written([(1, b"first")])
        woken = asyncio.Event()
        log.listen(log, woken.set)
        assert log.read(0, 100, following=True).next == 5
        record = struct.pack("=QII", 0, 1, 6) + b"second"
        os.pwrite(log.fd, record, abi.LOG_PAGE + 32)
        os.pwrite(log.fd, struct.pack("=QQQ", 0, 64, 11), 8)
        assert log.read(0, 100, following=True).next == 5
        assert log.read(0, 100).next == 11
        os.eventfd_write(log.event, 1)
        await asyncio.wait_for(woken.wait(), PATIENCE_S)
        assert log.read(0, 100, following=True).next == 11
        log.close()

    asyncio.run(read())
