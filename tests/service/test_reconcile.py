"""What a daemon does by itself with sandboxes that it finds is over before a client can be refused for it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from immured.service.limits import Limits
from immured.service.sandboxes import reconcile as reconciling
from immured.service.sandboxes.record import read_record
from immured.service.sandboxes.recovery import OpenEntries, OpenEntry
from immured.service.sandboxes.sandbox import Sandbox
from immured.service.state import init_state
from tests.service.harness import SCENARIO_S, Harness, until
from tests.service.test_runs import code_of, result_of

Scenario = Callable[[Harness, "Found"], Awaitable[None]]


class Found:
    """A sandbox that a daemon before made, and what is left of it for the one that is there now."""

    def __init__(self, sandbox: Sandbox) -> None:
        assert sandbox.record is not None
        assert sandbox.intent is not None
        self.id, self.number = sandbox.id, sandbox.number
        self.record = os.dup(sandbox.record.fd)
        data = {"sandbox": self.id, "number": str(self.number)}
        self._opened = OpenEntry(sandbox.intent, data, None, self.number, ready=True)

    def opened(self) -> OpenEntries:
        return OpenEntries(lambda _: None, {self._opened.seq: self._opened})

    @property
    def recorded_paused(self) -> bool:
        record, values = read_record(os.dup(self.record))
        record.close()
        return bool(values["paused"])


def found_again(directory: Path, scenario: Scenario, *, paused: bool = False) -> None:
    """One daemon makes a sandbox, pauses it or not, and dies; `scenario` is the next one's."""
    state = init_state(directory / "state")

    async def whole() -> None:
        async with asyncio.timeout(SCENARIO_S):
            async with Harness(state, Limits(), 16) as before:
                client = before.connect()
                [row] = result_of(await client.ask("sandbox.create", {}))["sandboxes"]
                if paused:
                    result_of(await client.ask("sandbox.pause", {"sandbox": row["sandbox"]}))
                found = Found(next(iter(before.service.sandboxes)))
            try:
                async with Harness(state, Limits(), 16) as now:
                    await scenario(now, found)
            finally:
                os.close(found.record)

    asyncio.run(whole())


def the(harness: Harness) -> Sandbox:
    return next(iter(harness.service.sandboxes))


def test_nobody_is_served_before_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "_GO_ON_S", 600.0)

    async def scenario(harness: Harness, found: Found) -> None:
        harness.launcher.keep(found.number, found.record, frozen=True)
        harness.launcher.freezes.clear()
        reconciled = asyncio.ensure_future(reconciling.reconcile(harness.service, found.opened()))
        await until(lambda: harness.launcher.frozen == [(found.number, False)])
        await until(lambda: len(harness.of_type("sandbox.adopted")) == 1)
        await asyncio.sleep(0.05)  # everything else is done by then
        assert not reconciled.done()
        harness.launcher.freezes.set()
        await reconciled
        reply = await harness.connect().ask("sandbox.exec", {"sandbox": found.id, "argv": ["/bin/true"]})
        assert result_of(reply)["exit_code"] == 0

    found_again(tmp_path, scenario)


def test_one_that_goes_on_too_slowly_keeps_nobody_else_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "_GO_ON_S", 0.05)

    async def scenario(harness: Harness, found: Found) -> None:
        harness.launcher.keep(found.number, found.record, frozen=True)
        harness.launcher.freezes.clear()
        await reconciling.reconcile(harness.service, found.opened())
        client = harness.connect()
        assert code_of(await client.ask("sandbox.exec", {"sandbox": found.id, "argv": ["/bin/true"]})) == "busy"
        harness.launcher.freezes.set()
        await until(lambda: the(harness).stilled is None)
        reply = await client.ask("sandbox.exec", {"sandbox": found.id, "argv": ["/bin/true"]})
        assert result_of(reply)["exit_code"] == 0

    found_again(tmp_path, scenario)


def test_one_that_the_kernel_does_not_let_go_on_is_paused(tmp_path: Path) -> None:
    async def scenario(harness: Harness, found: Found) -> None:
        harness.launcher.keep(found.number, found.record, frozen=True)
        harness.launcher.fail_freeze = errno.ETIMEDOUT
        await reconciling.reconcile(harness.service, found.opened())
        client = harness.connect()
        assert result_of(await client.ask("sandbox.show", {"sandbox": found.id}))["state"] == "paused"
        assert found.recorded_paused
        harness.launcher.fail_freeze = 0
        assert result_of(await client.ask("sandbox.resume", {"sandbox": found.id}))["state"] == "ready"

    found_again(tmp_path, scenario)


def test_a_resume_that_was_cut_off_before_its_note_is_noted(tmp_path: Path) -> None:
    """Else one that a later daemon finds standing still, to be saved, would be taken for paused."""

    async def scenario(harness: Harness, found: Found) -> None:
        assert found.recorded_paused
        harness.launcher.keep(found.number, found.record, frozen=False)
        await reconciling.reconcile(harness.service, found.opened())
        assert the(harness).state == "ready"
        assert not found.recorded_paused

    found_again(tmp_path, scenario, paused=True)
