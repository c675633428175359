"""An exec that is over, and forgotten sooner than its own end is told, or than who reads its log is done with it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from immured.errors import Refused
from immured.service.sandboxes.exec import Exec
from immured.service.sandboxes.execs import LiveExec
from immured.service.sandboxes.logs import Log
from immured.service.templates.making import _until_ready
from tests.service.harness import Harness, serving, until
from tests.service.test_runs import result_of
from tests.service.test_sandboxes import create


def kept() -> tuple[Exec, LiveExec]:
    one = Exec(1, "e1", "key", 0, "true", 0, kept=True)
    one.log = Log.make()
    sandbox: Any = SimpleNamespace(id="s1", execs={"e1": one})
    return one, LiveExec(cast("Any", SimpleNamespace(clock=lambda: 1)), sandbox, one, detach=True)


def test_its_log_stays_until_its_end_is_told() -> None:
    async def forgotten_too_soon() -> Log:
        one, live = kept()
        log = cast("Log", one.log)
        one.forget()
        assert log.totals == (0, 0)  # still to be read, for the entry of its end
        live.close(None)
        return log

    log = asyncio.run(forgotten_too_soon())
    assert (log.fd, log.event) == (-1, -1)


def test_a_template_whose_sandbox_is_removed_as_it_starts_says_so() -> None:
    async def removed() -> Exec:
        one, live = kept()
        starting = asyncio.create_task(_until_ready(one))
        await asyncio.sleep(0)  # it listens
        one.forget()
        live.close(None)
        with pytest.raises(Refused) as refused:
            await starting
        assert refused.value.code == "template_failed"
        return one

    log = asyncio.run(removed()).log
    assert log is not None
    assert log.fd < 0


def test_its_log_stays_until_who_reads_it_has_been_told(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, name = await create(harness)
        begun = result_of(await client.ask("sandbox.exec", {"sandbox": name, "argv": ["true"], "detach": True}))
        asked = {"sandbox": name, "exec": begun["exec"]}
        result_of(await client.ask("sandbox.attach", asked))
        [sandbox] = harness.service.sandboxes
        one = sandbox.execs[begun["exec"]]
        log = cast("Log", one.log)
        with harness.ledger.turn():  # the intent of reading it is on its way until then
            await client.send(client.envelope("sandbox.logs", asked))
            await until(lambda: harness.service.at_work)
            sandbox.execs.pop(one.id).forget()  # as the oldest of many that are over
        reply = await client.reply()
        assert result_of(reply)["records"] == []
        await until(lambda: log.fd < 0)

    serving(tmp_path, scenario)
