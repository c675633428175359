"""Copies by threads: what is digested is what is written, room comes before it, and nothing waits for good."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.errors import Refused
from immured.service.copying import BLOCK, Copied, copy

SIZES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def of(content: bytes) -> Copied:
    return Copied(len(content), hashlib.sha256(content).digest())


@pytest.mark.parametrize("size", SIZES)
def test_file_to_file(tmp_path: Path, target: int, size: int) -> None:
    content = secrets.token_bytes(size)
    (tmp_path / "source").write_bytes(content)
    with (tmp_path / "source").open("rb") as source:
        source.seek(3)  # by position from the beginning, wherever the caller's offset stands
        assert asyncio.run(copy(source.fileno(), target, most=size)) == of(content)
        assert source.tell() == 3
    assert (tmp_path / "target").read_bytes() == content


@pytest.mark.parametrize("size", SIZES)
def test_through_pipes(tmp_path: Path, target: int, size: int) -> None:
    content = secrets.token_bytes(size)
    reader, writer = os.pipe()

    def fill() -> None:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(content)

    threading.Thread(target=fill).start()
    assert asyncio.run(copy(reader, target, most=1 << 40)) == of(content)
    os.close(reader)
    assert (tmp_path / "target").read_bytes() == content


def test_no_more_than_asked_for(tmp_path: Path, target: int) -> None:
    content = secrets.token_bytes(3 * BLOCK)
    (tmp_path / "source").write_bytes(content)
    with (tmp_path / "source").open("rb") as source:
        assert asyncio.run(copy(source.fileno(), target, most=BLOCK + 5)) == of(content[: BLOCK + 5])


def test_a_source_that_shrank_is_as_long_as_it_is(tmp_path: Path, target: int) -> None:
    (tmp_path / "source").write_bytes(b"short")
    reserved: list[tuple[int, int]] = []

    async def reserve(start: int, size: int) -> None:
        reserved.append((start, size))

    with (tmp_path / "source").open("rb") as source:
        assert asyncio.run(copy(source.fileno(), target, most=1 << 30, reserve=reserve)) == of(b"short")
    assert reserved[0] == (0, 64 << 20)


def test_nothing_is_written_before_there_is_room(tmp_path: Path, target: int) -> None:
    (tmp_path / "source").write_bytes(b"content")
    sizes: list[int] = []

    async def reserve(start: int, size: int) -> None:
        await asyncio.sleep(0.2)
        sizes.append(os.fstat(target).st_size)

    with (tmp_path / "source").open("rb") as source:
        asyncio.run(copy(source.fileno(), target, most=7, reserve=reserve))
    assert sizes == [0]
    assert os.fstat(target).st_size == 7


def test_where_there_is_no_room_that_is_the_answer(tmp_path: Path, target: int) -> None:
    (tmp_path / "source").write_bytes(b"content")

    async def reserve(start: int, size: int) -> None:
        raise Refused("no_space", "full", "")

    with (tmp_path / "source").open("rb") as source, pytest.raises(Refused) as refused:
        asyncio.run(copy(source.fileno(), target, most=7, reserve=reserve))
    assert refused.value.code == "no_space"
    assert os.fstat(target).st_size == 0


def test_who_takes_no_more_ends_it(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(1 << 20))
    reader, writer = os.pipe()
    os.close(reader)
    with (tmp_path / "source").open("rb") as source, pytest.raises(Refused) as refused:
        asyncio.run(copy(source.fileno(), writer, most=1 << 20))
    os.close(writer)
    assert refused.value.code == "cut_short"


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    full = os.open("/dev/full", os.O_WRONLY)
    with (tmp_path / "source").open("rb") as source, pytest.raises(Refused) as refused:
        asyncio.run(copy(source.fileno(), full, most=1))
    os.close(full)
    assert refused.value.code == "no_space"


def test_called_off_it_is_over_before_that_returns(tmp_path: Path, target: int) -> None:
    reader, writer = os.pipe()

    async def work() -> None:
        copying = asyncio.ensure_future(copy(reader, target, most=1 << 40))
        await asyncio.sleep(0.05)
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
        assert not [one for one in threading.enumerate() if one.name in ("immured-copy", "immured-digest")]

    asyncio.run(work())
    os.close(reader)
    os.close(writer)
