"""What the asyncio client opens can be awaited, entered, and scheduled."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, ParamSpec, Self

import pytest

from immured import AsyncClient
from immured.client.opening import Opening
from immured.client.throwaway import ThrowawayDaemon
from tests.patience import PATIENCE_S

P = ParamSpec("P")


def within(acts: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test, in a loop of its own; it fails rather than hangs."""

    @functools.wraps(acts)
    def test(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(acts(*args, **kwargs), PATIENCE_S))

    return test


class Thing:
    def __init__(self) -> None:
        self.told: list[str] = []

    async def __aenter__(self) -> Self:
        self.told.append("entered")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.told.append("left" if kind is None else kind.__name__)


def opening(thing: Thing) -> Opening[Thing]:
    async def opened() -> Thing:
        await asyncio.sleep(0)
        return thing

    return Opening(opened())


@within
async def test_awaited_it_is_not_entered() -> None:
    thing = Thing()
    assert await opening(thing) is thing
    assert thing.told == []


@within
async def test_a_block_enters_and_leaves_it() -> None:
    thing = Thing()
    async with opening(thing) as entered:
        assert entered is thing
        assert thing.told == ["entered"]
    assert thing.told == ["entered", "left"]


@within
async def test_it_is_told_what_went_wrong_in_the_block() -> None:
    thing = Thing()
    with pytest.raises(ValueError, match="why"):
        async with opening(thing):
            raise ValueError("why")
    assert thing.told == ["entered", "ValueError"]


@within
async def test_it_can_be_a_task() -> None:
    thing = Thing()
    assert await asyncio.create_task(opening(thing)) is thing
    assert list(await asyncio.gather(opening(thing), opening(thing))) == [thing, thing]
    assert await asyncio.wait_for(opening(thing), PATIENCE_S) is thing


@within
async def test_a_task_can_be_cancelled() -> None:
    never = asyncio.Event()

    async def opened() -> Thing:
        await never.wait()
        return Thing()

    task = asyncio.create_task(Opening(opened()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running


@pytest.mark.needs_root
@within
async def test_a_sandbox_and_a_run_are_opened_so(daemon: ThrowawayDaemon) -> None:
    async with AsyncClient(daemon.socket, daemon.admin_key, daemon.daemon_key.read_bytes()) as client:
        async with client.sandbox() as sandbox:
            assert (await sandbox.exec(["/bin/echo", "made"])).stdout == b"made\n"
        assert await client.sandboxes() == []
        async with client.start(["/bin/echo", "run"]) as run:
            assert (await run.result()).ok
        async with await client.sandbox() as sandbox:
            assert (await sandbox.exec(["/bin/true"])).ok
