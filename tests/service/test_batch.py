"""A batch through the service, with a launcher that can be held up: order, bounds, and what comes before what."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from immured.isolation.abi import Stage
from immured.isolation.messages import Failed
from immured.service.batches import journal
from immured.wire.messages import Reply
from immured.wire.strict_msgpack import unpack
from tests.patience import PATIENCE_S
from tests.service.harness import Client, Harness, serving, until


def results_in(client: Client) -> list[dict[str, Any]]:
    """The records that have come as data so far."""
    data = b"".join(one.data for one in client.data if one.stream == "results")
    found: list[dict[str, Any]] = []
    while data:
        length = int.from_bytes(data[:4], "big")
        record: Any = unpack(data[4 : 4 + length])
        found.append(record)
        data = data[4 + length :]
    return found


def ok(reply: Reply | None) -> dict[str, Any]:
    assert reply is not None
    assert reply.error is None, reply.error
    return dict(reply.result or {})


def runs(*lines: str) -> list[dict[str, object]]:
    return [{"argv": ["/bin/sh", "-c", line]} for line in lines]


def once(there: Path) -> str:
    """A line that waits until that file is there."""
    return f"while [ ! -e {there} ]; do sleep 0.01; done"


def test_the_reply_signs_the_digest_of_all_that_came(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        result = ok(await client.ask("run.batch", {"runs": runs("echo 1", "exit 3", "echo 2 >&2")}))
        data = b"".join(one.data for one in client.data if one.stream == "results")
        record = result["streams"]["results"]
        assert (record["length"], record["sha256"]) == (len(data), hashlib.sha256(data).digest())
        assert client.data[-1].data == b""
        head, *rows = results_in(client)
        assert (head["batch"], head["runs"]) == (result["batch"], 3)
        by_run = {row["run"]: row for row in rows}
        assert (by_run[0]["stdout"], by_run[1]["exit_code"], by_run[2]["stderr"]) == (b"1\n", 3, b"2\n")
        [finished] = harness.of_type("batch.finished")
        assert finished["data"]["results"]["sha256"] == record["sha256"].hex()
        assert all("violations" not in row and "enforcement" not in row for row in rows)

    serving(tmp_path, scenario)


def test_nothing_runs_before_the_intent_is_durable(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        with harness.ledger.turn():
            await client.send(client.envelope("run.batch", {"runs": runs("true")}))
            await until(lambda: len(harness.service.registry) == 1)
            await asyncio.sleep(0.05)
            assert harness.launcher.runs == {}
        ok(await client.reply())

    serving(tmp_path, scenario)


def test_a_result_is_given_only_once_its_outcome_is_durable(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, over = harness.connect(), tmp_path / "over"
        await client.send(client.envelope("run.batch", {"runs": runs(f"{once(over)}; echo done")}))
        await until(lambda: bool(harness.launcher.gone))
        with harness.ledger.turn():
            over.touch()
            await until(lambda: not harness.launcher.runs)
            await asyncio.sleep(0.2)
            client.sock.setblocking(False)
            waiting = client.sock.recv(1 << 20)  # the hello, and the stream's head
            assert b"done" not in waiting
            client.sock.settimeout(PATIENCE_S)
        reply = await client.reply()
        assert ok(reply)["causes"] == {"exited": 1}
        assert any(b"done" in one.data for one in client.data)

    serving(tmp_path, scenario)


def test_so_many_at_a_time_and_the_last_quarter_is_left_to_others(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, other = harness.connect(), harness.connect()
        await client.send(client.envelope("run.batch", {"runs": runs(*["sleep 60"] * 30), "concurrency": 30}))
        await until(lambda: len(harness.launcher.runs) == 12)
        await asyncio.sleep(0.1)
        assert len(harness.launcher.runs) == 12
        assert ok(await other.run("/bin/true"))["cause"] == "exited"
        client.close()
        await until(lambda: not len(harness.service.registry))

    serving(tmp_path, scenario, max_runs=16)


def test_concurrency_is_kept(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, over = harness.connect(), tmp_path / "over"
        await client.send(client.envelope("run.batch", {"runs": runs(*[once(over)] * 9), "concurrency": 2}))
        await until(lambda: len(harness.launcher.gone) == 2)
        await asyncio.sleep(0.1)
        most = len(harness.launcher.runs)
        over.touch()
        while not harness.of_type("batch.finished"):
            most = max(most, len(harness.launcher.runs))
            await asyncio.sleep(0.005)
        assert most == 2

    serving(tmp_path, scenario)


def test_one_place_is_enough(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        assert ok(await harness.connect().ask("run.batch", {"runs": runs("true", "true")}))["causes"] == {"exited": 2}

    serving(tmp_path, scenario, max_runs=1)


def test_a_client_that_does_not_read_holds_up_the_batch_and_nobodys_memory(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        big = runs(*["head -c 250000 /dev/zero"] * 150)
        await client.send(client.envelope("run.batch", {"runs": big, "concurrency": 4}))
        await until(lambda: len(harness.launcher.gone) > 10)
        begun = -1
        while begun != len(harness.launcher.gone):
            begun = len(harness.launcher.gone)
            await asyncio.sleep(0.7)
        assert begun < 60
        assert harness.server.waiting.taken < 8 << 20
        assert ok(await client.reply())["causes"] == {"exited": 150}
        assert len(results_in(client)) == 151

    serving(tmp_path, scenario)


def test_what_cannot_be_prepared_is_that_runs_outcome(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        harness.launcher.fail = Failed(Stage.OPEN, None, 2, "/srv/x")
        client = harness.connect()
        assert ok(await client.ask("run.batch", {"runs": runs("true", "true")}))["causes"] == {"setup_failed": 2}
        [progress] = harness.of_type("batch.progress")
        assert progress["data"]["outcomes"][0]["failure"]["stage"] == "open"

    serving(tmp_path, scenario)


def test_the_launchers_death_is_told_with_the_runs_that_nothing_is_known_of(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.send(client.envelope("run.batch", {"runs": runs("true", "sleep 60", "sleep 60")}))
        await until(lambda: len(harness.launcher.runs) == 2 and bool(harness.of_type("batch.progress")))
        harness.launcher.die()
        reply = await client.reply()
        assert reply is not None
        assert reply.error is not None
        [lost] = harness.of_type("batch.lost")
        assert lost["data"]["unknown"] == "1-2"
        assert reply.receipt is not None
        assert reply.receipt.seq == lost["seq"]
        assert harness.ledger.status().outstanding == 0

    serving(tmp_path, scenario)


def test_a_stopping_daemon_begins_no_more(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, over = harness.connect(), tmp_path / "over"
        await client.send(client.envelope("run.batch", {"runs": runs(*[once(over)] * 9), "concurrency": 2}))
        await until(lambda: len(harness.launcher.gone) == 2)
        harness.service.stopping = True
        over.touch()
        result = ok(await client.reply())
        assert (result["ended"], result["unstarted"], result["causes"]) == ("stopping", 7, {"exited": 2})
        again = await client.ask("run.batch", {"runs": runs("true")})
        assert again.error is not None
        assert again.error["code"] == "stopping"

    serving(tmp_path, scenario)


def test_a_ledger_that_fails_midway_ends_the_batch_and_says_so(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, over = harness.connect(), tmp_path / "over"
        lines = [once(over)] * 2 + ["sleep 4"] * 7
        await client.send(client.envelope("run.batch", {"runs": runs(*lines), "concurrency": 2}))
        await until(lambda: len(harness.launcher.gone) == 2)
        harness.ledger.failed(OSError(5, "Input/output error"))
        over.touch()
        reply = await client.reply()
        assert reply is not None
        assert reply.error is not None
        assert reply.error["code"] == "ledger_unavailable"
        assert len(harness.launcher.gone) <= 4
        assert not harness.launcher.runs
        assert reply.intent is not None

    serving(tmp_path, scenario)


def test_the_same_bytes_again_get_the_same_reply_and_run_nothing(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        body = client.envelope("run.batch", {"runs": runs("true")})
        await client.send(body)
        first = await client.reply()
        await client.send(body)
        assert await client.reply() == first
        assert len(harness.launcher.gone) == 1

    serving(tmp_path, scenario)


def test_one_after_the_other_is_few_entries_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_WAIT_S", 1.0)  # many take less, however slow the machine

    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        ok(await client.ask("run.batch", {"runs": runs(*["true"] * 40), "concurrency": 1}))
        told = harness.of_type("batch.progress")
        assert sum(len(entry["data"]["outcomes"]) for entry in told) == 40
        assert len(told) < 20

    serving(tmp_path, scenario)


def test_outcomes_wait_for_each_other_but_not_long() -> None:
    assert 0 < journal._WAIT_S <= 0.1
