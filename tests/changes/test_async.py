"""The asyncio twin: the same four questions, the same answers, and the same refusals."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from immured.client.aio import AsyncClient
from immured.client.changes import AsyncChanges
from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from tests.changes.project import CALLER, Captured
from tests.patience import PATIENCE_S
from tests.peers import connecting_as

T = TypeVar("T")


@pytest.fixture
def ask(
    daemon: ThrowawayDaemon, ground: Path, captured: Captured
) -> Callable[[Callable[[AsyncChanges], Awaitable[T]]], T]:
    """What a coroutine makes of the sandbox's changes, as the caller."""

    async def connected(work: Callable[[AsyncChanges], Awaitable[T]]) -> T:
        async with AsyncClient(daemon.socket, ground / "changes.pem", daemon.daemon_key, timeout=PATIENCE_S) as client:
            return await work(client.at(captured.sandbox.id).changes)

    def run(work: Callable[[AsyncChanges], Awaitable[T]]) -> T:
        os.chown(ground / "changes.pem", CALLER, CALLER)
        with connecting_as(CALLER):
            return asyncio.run(connected(work))

    return run


def test_list_and_diff(ask: Callable[..., object], captured: Captured) -> None:
    captured.sh("echo 3 >> a.txt; rm dir/b")

    async def work(changes: AsyncChanges) -> tuple[list[str], bool]:
        seen = await changes.list(captured.path)
        return [one.kind for one in seen], (await changes.diff(captured.inside("a.txt"))).text().endswith("+3")

    assert ask(work) == (["modified", "deleted"], True)


def test_accept_and_discard(ask: Callable[..., object], captured: Captured) -> None:
    captured.sh("echo 3 >> a.txt; rm dir/b; echo x > x; echo y > y")

    async def work(changes: AsyncChanges) -> tuple[int, int, int]:
        seen = await changes.list()
        accepted = await changes.accept(skip=(captured.inside("dir"), captured.inside("y")), as_listed=seen)
        discarded = await changes.discard(captured.inside("y"))
        return accepted.total, discarded.removed, len(await changes.list())

    assert ask(work) == (2, 1, 1)
    assert (captured.path / "a.txt").read_text() == "one\ntwo\n3\n"
    assert (captured.path / "x").exists()


def test_a_conflict(ask: Callable[..., object], captured: Captured) -> None:
    captured.sh("echo mine > a.txt")
    (captured.path / "a.txt").write_text("theirs\n")

    async def work(changes: AsyncChanges) -> str:
        with pytest.raises(Refusal) as caught:
            await changes.accept()
        await changes.accept(force=True)
        return caught.value.code

    assert ask(work) == "conflict"
    assert (captured.path / "a.txt").read_text() == "mine\n"
