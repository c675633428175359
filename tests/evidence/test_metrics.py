"""METRIC-AUDIT-OK of live daemons: whole while all is well, and lower as soon as something went by the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import Any

import pytest
from click.testing import CliRunner

from immured import Client
from immured.cli.app import app
from immured.cli.metrics import prometheus
from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from immured.isolation.launcher import Connection, Launcher
from immured.isolation.messages import Exited
from tests.launcher.harness import plan_for
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root


def audit(client: Client) -> dict[str, Any]:
    found: Any = client.metrics()["audit_ok"]
    return dict(found)


async def by_hand(daemon: ThrowawayDaemon) -> None:
    """A payload, started by whoever reaches the launcher's socket, and no ledger told."""
    came: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
    control = daemon.state / "launcher.sock"
    found = await Launcher.find(control, on_connection=came.set_result, on_lost=lambda _: None)
    assert found is not None
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(found.close)
        null = os.open(os.devnull, os.O_RDWR)
        stack.callback(os.close, null)
        caller = stack.enter_context(socket.socket(socket.AF_UNIX))
        caller.connect(str(daemon.socket))
        connection = await asyncio.wait_for(came, PATIENCE_S)
        stack.callback(connection.sock.close)
        number = found.new_number()
        ending = found.prepare(number, connection.number, plan_for("/bin/true"), [null] * 3)
        found.go(number)
        report = (await asyncio.wait_for(asyncio.ensure_future(ending), PATIENCE_S)).report
    assert isinstance(report, Exited)


def test_all_that_is_done_is_there(client: Client) -> None:
    before = audit(client)
    for argv in (["/bin/true"], ["/bin/false"], ["/no/such/program"]):
        client.run(argv)
    with client.sandbox() as made:
        made.exec(["/bin/true"])
        made.start(["/bin/true"]).wait()
    for _ in client.batch([["/bin/true"], ["/no/such/program"], ["/bin/true"]]):
        pass
    with pytest.raises(Refusal):
        client.call("kill", {"sandbox": "s-nobodys"})
    with pytest.raises(Refusal):
        client.call("no.such.command")
    found = audit(client)
    assert found["recorded"] == found["counted"]
    assert found["incomplete"] == 0
    assert found["executions"]["counted"] - before["executions"]["counted"] == 6
    assert found["executions"]["never_ran"] - before["executions"]["never_ran"] == 2
    assert found["decisions"]["counted"] - before["decisions"]["counted"] == 11
    assert "problem" not in found["ledger"]
    assert found["ledger"]["entries"] > before["ledger"]["entries"]


def test_what_is_under_way_is_not_missing(client: Client) -> None:
    with client.sandbox() as made:
        begun = made.start(["/bin/sleep", "1000"])
        found = audit(client)
        assert found["recorded"] == found["counted"]
        assert found["executions"]["open"] == 1
        begun.signal(9)
        begun.wait()
    assert audit(client)["executions"]["open"] == 0


def test_the_command_line_prints_it(daemon: ThrowawayDaemon, client: Client) -> None:
    client.run(["/bin/true"])
    words = ["metrics", "--state", str(daemon.state), "--socket", str(daemon.socket)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "METRIC-AUDIT-OK  1.0000000" in done.output
    assert "METRIC-SEC-INC" in done.output
    text = CliRunner().invoke(app, [*words, "--prometheus"], catch_exceptions=False).output
    assert "immured_audit_ok 1.0\n" in text
    assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in text.splitlines())


def test_a_payload_that_was_started_by_hand_is_missing(mortal: ThrowawayDaemon) -> None:
    with mortal.client() as client:
        client.sandbox(name="kept")
        client.run(["/bin/true"])
        assert audit(client)["executions"]["missing"] == 0
    os.kill(mortal.pid, signal.SIGKILL)
    assert mortal.process is not None
    mortal.process.wait(PATIENCE_S)
    asyncio.run(by_hand(mortal))
    mortal.start()
    with mortal.client() as client:
        found: Any = client.metrics()
        assert found["audit_ok"]["executions"]["missing"] == 1
        assert found["audit_ok"]["recorded"] < found["audit_ok"]["counted"]
        assert found["sec_inc"][0] == {"class": "unrecorded", "severity": "critical", "count": 1}
        assert 'immured_audit_recorded{kind="executions"} 1' in list(prometheus(found))
        client.run(["/bin/true"])  # nothing that comes later makes up for it
        assert audit(client)["executions"]["missing"] == 1
    words = ["metrics", "--state", str(mortal.state), "--socket", str(mortal.socket)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 1
    assert "MISSING 1" in done.output


def test_lines_that_are_gone_from_the_file_are_no_record(mortal: ThrowawayDaemon) -> None:
    """Whatever the daemon believes to have written."""
    with mortal.client() as client:
        client.run(["/bin/true"])
        log = mortal.state / "ledger" / "current.jsonl"
        at = log.read_bytes().rindex(b'"run.accepted"')
        with open(log, "r+b") as file:
            os.pwrite(file.fileno(), b'"run.refused_"', at)
        found = audit(client)
        with open(log, "r+b") as file:
            os.pwrite(file.fileno(), b'"run.accepted"', at)
    assert "altered_line" in found["ledger"]["problem"]
    assert found["recorded"] < found["counted"]
