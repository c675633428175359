"""Digests of files that only root can change: each state of a file is read once, and never believed too early."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured.isolation.launcher_runs import Pinned
from immured.isolation.messages import PinnedFile
from immured.service import executables as module
from immured.service.executables import Digests
from tests.service.ticks import tick

pytestmark = pytest.mark.needs_root

LATER = 10 * 10**9


@pytest.fixture
def program(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    path = tmp_path / "program"
    path.write_bytes(b"one")
    fd = os.open(path, os.O_RDONLY)
    tick(path, path.with_name("probe"))
    yield path, fd
    os.close(fd)


def just_after(path: Path) -> Callable[[], int]:
    """A clock that stands still a second after the file was changed."""
    at = path.stat().st_ctime_ns + 10**9
    return lambda: at


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_once(program: tuple[Path, int]) -> None:
    digests = Digests(lambda: time.time_ns() + LATER)

    async def act() -> None:
        for _ in range(3):
            assert await digests.digest(program[1]) == (sha(b"one"), 3)
        assert digests.reads == 1

    asyncio.run(act())


def test_a_file_that_changed_is_read_again(program: tuple[Path, int]) -> None:
    path, fd = program
    digests = Digests(lambda: time.time_ns() + LATER)

    async def act() -> None:
        assert await digests.digest(fd) == (sha(b"one"), 3)
        path.write_bytes(b"two")
        assert await digests.digest(fd) == (sha(b"two"), 3)

    asyncio.run(act())


def test_one_that_has_just_changed_is_not_remembered(program: tuple[Path, int]) -> None:
    digests = Digests(just_after(program[0]))

    async def act() -> None:
        for _ in range(2):
            assert await digests.digest(program[1]) == (sha(b"one"), 3)
        assert digests.reads == 2

    asyncio.run(act())


def test_a_time_that_was_set_back_does_not_make_it_old(program: tuple[Path, int]) -> None:
    path, fd = program
    os.utime(path, ns=(0, 0))
    digests = Digests(just_after(path))

    async def act() -> None:
        for _ in range(2):
            await digests.digest(fd)
        assert digests.reads == 2

    asyncio.run(act())


def test_one_of_anybody_elses_is_not_remembered(program: tuple[Path, int]) -> None:
    path, fd = program
    os.chown(path, 4242, 4242)
    digests = Digests(lambda: time.time_ns() + LATER)

    async def act() -> None:
        for _ in range(2):
            await digests.digest(fd)
        assert digests.reads == 2

    asyncio.run(act())


def test_who_asks_at_once_is_answered_at_once(program: tuple[Path, int]) -> None:
    digests = Digests(lambda: time.time_ns() + LATER)

    async def act() -> None:
        found = await asyncio.gather(*[digests.digest(program[1]) for _ in range(20)])
        assert set(found) == {(sha(b"one"), 3)}
        assert digests.reads == 1

    asyncio.run(act())


def test_who_goes_away_takes_nobody_along(program: tuple[Path, int]) -> None:
    """The first who asked closes his descriptor, and the number is another file's by then."""
    path, fd = program
    path.write_bytes(b"x" * (64 << 20))
    digests = Digests(lambda: time.time_ns() + LATER)

    async def act() -> None:
        own = os.dup(fd)
        first = asyncio.ensure_future(digests.digest(own))
        second = asyncio.ensure_future(digests.digest(fd))
        await asyncio.sleep(0)
        first.cancel()
        os.close(own)
        other = os.open("/etc/hostname", os.O_RDONLY)
        assert await second == (sha(b"x" * (64 << 20)), 64 << 20)
        os.close(other)
        assert first.cancelled()

    asyncio.run(act())


def test_a_new_version_that_is_renamed_over_it_is_no_change(
    program: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fd = program
    really = module._read
    times: list[int] = []

    def read(copy: int, identity: module._Identity) -> str | None:
        if not times:
            path.unlink()
        times.append(1)
        return really(copy, identity)

    monkeypatch.setattr(module, "_read", read)
    assert asyncio.run(Digests().digest(fd)) == (sha(b"one"), 3)
    assert len(times) == 2


def test_one_that_changes_all_the_time_has_no_digest(
    program: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fd = program
    really = module._read

    def read(copy: int, identity: module._Identity) -> str | None:
        path.write_bytes(os.urandom(3))
        tick(path, path.with_name("probe"))
        return really(copy, identity)

    monkeypatch.setattr(module, "_read", read)
    assert asyncio.run(Digests().digest(fd)) is None


def test_only_so_many_are_remembered(tmp_path: Path) -> None:
    digests = Digests(lambda: time.time_ns() + LATER)

    async def act() -> None:
        for number in range(module._KNOWN + 8):
            path = tmp_path / str(number)
            path.write_bytes(b"%d" % number)
            fd = os.open(path, os.O_RDONLY)
            await digests.digest(fd)
            os.close(fd)
        assert len(digests._known) == module._KNOWN

    asyncio.run(act())


def test_what_was_told_in_the_moment_of_the_end_is_closed(program: tuple[Path, int]) -> None:
    async def act() -> None:
        telling: asyncio.Future[Pinned | None] = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(module.executables(Digests(), None, telling))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        copy = os.dup(program[1])
        telling.set_result(Pinned((PinnedFile(b"/x", b"", None, 0),), {0: copy}))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(copy)

    asyncio.run(act())
