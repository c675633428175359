"""`run.batch` against a real daemon: each run its own walls, end and entry; all of them one signature."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from immured import AsyncClient, Client
from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from tests.entries import entries_in
from tests.patience import PATIENCE_S, until

pytestmark = pytest.mark.needs_root

SH = "/bin/sh"
WAIT_S = 0.05
"""So long an outcome waits for others, before an entry is made of them."""


def entries(daemon: ThrowawayDaemon, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in entries_in(daemon.state) if entry["type"] == kind]


def outcomes(daemon: ThrowawayDaemon, batch: str) -> dict[int, dict[str, Any]]:
    """Run to its row, and to where it stands."""
    return {
        row["run"]: {**row, "seq": entry["seq"]}
        for entry in entries(daemon, "batch.progress")
        if entry["data"]["batch"] == batch
        for row in entry["data"]["outcomes"]
    }


def test_each_run_has_an_outcome_of_its_own(client: Client) -> None:
    runs = [
        {"argv": ["/bin/true"]},
        {"argv": ["/bin/false"]},
        {"argv": [SH, "-c", "kill -TERM $$"]},
        {"argv": [SH, "-c", "cat; echo $WHO >&2"], "stdin": b"in", "env": {"WHO": "me"}},
        {"argv": ["/bin/sleep", "30"], "limits": {"wall": "200ms"}},
        {"argv": ["/no/such/program"]},
        {"argv": [SH, "-c", "cat < put"], "files": {"/tmp/put": b"put in"}, "cwd": "/tmp"},
        {"argv": ["/usr/bin/head", "-c", "2000000", "/dev/zero"], "limits": {"output": "1000"}},
    ]
    found = client.batch(runs).results  # type: ignore[arg-type]
    assert [one.cause for one in found] == [
        *["exited"] * 2, "signaled", "exited", "timeout", "setup_failed", "exited", "output_limit"
    ]  # fmt: skip
    assert (found[0].exit_code, found[1].exit_code, found[2].signal) == (0, 1, signal.SIGTERM)
    assert (found[3].stdout, found[3].stderr) == (b"in", b"me\n")
    assert found[5].failure is not None
    assert found[5].failure["code"] == "executable_not_found"
    assert found[6].stdout == b"put in"
    assert len(found[7].stdout) == 1000


def test_what_all_share_is_said_once_and_a_runs_own_stands_in_its_place(client: Client) -> None:
    runs = [{}, {"stdin": b"2"}, {"argv": ["/usr/bin/rev"]}]
    found = client.batch(runs, argv=["/bin/cat"], stdin=b"10", limits={"wall": "60s"}).results  # type: ignore[arg-type]
    assert [one.stdout for one in found] == [b"10", b"2", b"01\n"] or found[2].stdout == b"01"


def test_outcomes_are_few_entries_and_each_run_s_receipt_is_the_one_that_holds_it(
    client: Client, daemon: ThrowawayDaemon
) -> None:
    began = time.monotonic()
    batch = client.batch([[SH, "-c", f"exit {index % 7}"] for index in range(60)])
    found = batch.results
    took = time.monotonic() - began
    (summary,) = batch.summaries
    rows = outcomes(daemon, summary.batch)
    assert sorted(rows) == list(range(60))
    for index, one in enumerate(found):
        assert one.exit_code == rows[index]["exit_code"] == index % 7
        assert one.receipt.seq == rows[index]["seq"]
        assert one.intent == summary.intent
        assert one.sandbox == f"s{summary.batch[1:]}{index:04x}"
    assert len({row["seq"] for row in rows.values()}) <= 2 + took / WAIT_S
    (intent,) = [one for one in entries(daemon, "batch.accepted") if one["seq"] == summary.intent.seq]
    assert [row["argv"][2] for row in intent["data"]["commands"]] == [f"exit {index % 7}" for index in range(60)]
    (last,) = [one for one in entries(daemon, "batch.finished") if one["seq"] == summary.receipt.seq]
    assert last["data"]["causes"] == {"exited": 60} == dict(summary.causes)
    assert intent["seq"] < min(row["seq"] for row in rows.values()) <= max(
        row["seq"] for row in rows.values()
    ) < last["seq"]  # fmt: skip


def test_commands_that_no_entry_holds_take_several_and_are_one_intent(client: Client, daemon: ThrowawayDaemon) -> None:
    word = "x" * 900
    batch = client.batch([["/bin/true", word, str(index)] for index in range(300)])
    assert all(one.ok for one in batch.results)
    (summary,) = batch.summaries
    told = [one for one in entries(daemon, "batch.accepted") if one["data"]["batch"] == summary.batch]
    assert len(told) > 4
    assert [one["data"].get("nonce") is not None for one in told] == [True, *[False] * (len(told) - 1)]
    assert [row["argv"][2] for one in told for row in one["data"]["commands"]] == [str(n) for n in range(300)]
    assert [one["data"].get("from", 0) for one in told] == [
        sum(len(before["data"]["commands"]) for before in told[:index]) for index in range(len(told))
    ]
    first = min(row["seq"] for row in outcomes(daemon, summary.batch).values())
    assert told[-1]["seq"] < first


def test_walls_are_a_run_s_and_a_violation_is_told(client: Client, daemon: ThrowawayDaemon) -> None:
    batch = client.batch([[SH, "-c", "echo > /etc/x"], [SH, "-c", "echo $$ > /tmp/mine"], [SH, "-c", "ls /tmp"]])
    first, second, third = batch.results
    assert (first.exit_code, second.exit_code, third.stdout) == (2, 0, b"")
    assert first.violations[0].path == "/etc/x"
    rows = outcomes(daemon, batch.summaries[0].batch)
    assert rows[0]["violations"][0]["path"] == "/etc/x"
    assert "violations" not in rows[1]


def test_files_come_back_small_and_large(client: Client, daemon: ThrowawayDaemon) -> None:
    line = "head -c 3000000 /dev/urandom > /tmp/large; sha256sum < /tmp/large; echo -n small > /tmp/small"
    batch = client.batch([[SH, "-c", line]] * 3, collect=["/tmp/large", "/tmp/small", "/tmp/none"])
    for index, one in enumerate(batch.results):
        assert one.files["/tmp/small"] == b"small"
        assert len(one.files["/tmp/large"]) == 3_000_000
        assert one.streams["file:/tmp/large"].sha256.hex() == one.stdout.split()[0].decode()
        row = outcomes(daemon, batch.summaries[0].batch)[index]
        assert row["streams"]["file:/tmp/large"]["sha256"] == one.stdout.split()[0].decode()
        assert row["files"]["/tmp/small"]["length"] == 5


def test_one_run_that_cannot_be_refuses_all_of_them_and_is_named(client: Client, daemon: ThrowawayDaemon) -> None:
    before = len(entries(daemon, "batch.accepted"))
    with pytest.raises(Refusal) as refused:
        _ = client.batch([["/bin/true"], {"argv": ["/bin/true"], "limits": {"wall": "9999h"}}]).results
    assert refused.value.code == "bad_argument"
    assert "run 1" in refused.value.message
    with pytest.raises(Refusal, match=r"args.runs\[1\].argv is missing"):
        _ = client.batch([["/bin/true"], {"stdin": b""}]).results
    with pytest.raises(Refusal, match=r"denied|allow"):
        _ = client.batch(
            [["/bin/true"], ["/bin/sh"]],
            manifest={"schema": 1, "command": {"allow": ["/bin/true"]}},
        ).results
    assert len(entries(daemon, "batch.accepted")) == before


def test_a_volume_is_one_sandboxs_and_no_batchs(client: Client) -> None:
    manifest = {"schema": 1, "filesystem": {"volumes": [{"name": "cache", "target": "/cache"}]}}
    with pytest.raises(Refusal, match="volume"):
        _ = client.batch([["/bin/true"]], manifest=manifest).results


def test_a_batch_is_ended_by_its_name_and_what_had_not_begun_never_does(
    client: Client, daemon: ThrowawayDaemon
) -> None:
    batch = client.batch([["/bin/sleep", "600"]] * 40, concurrency=3)
    taken: list[Any] = []
    thread = threading.Thread(target=lambda: taken.extend(batch))
    thread.start()
    with daemon.client() as other:
        until(lambda: sum(one.startswith("s") for one in _live(other)) == 3)
        live = _live(other)
        (name,) = [one for one in live if one.startswith("b")]
        assert sum(one.startswith("s") for one in live) == 3
        other.kill(name)
        until(lambda: not [one for one in _live(other) if one[1:].startswith(name[1:])])
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    (summary,) = batch.summaries
    assert (summary.ended, summary.unstarted, summary.causes) == ("killed", 37, {"killed": 3})
    assert not batch.whole
    (last,) = [one for one in entries(daemon, "batch.finished") if one["data"]["batch"] == summary.batch]
    assert (last["data"]["ended"], last["data"]["unstarted"]) == ("killed", 37)


def _live(client: Client) -> list[str]:
    runs: Any = client.status()["runs"]
    return [run["sandbox"] for run in runs]


def test_a_batch_ends_with_its_connection(client: Client, daemon: ThrowawayDaemon) -> None:
    with daemon.client() as leaving:
        batch = leaving.batch([["/bin/true"], *[["/bin/sleep", "600"]] * 20], concurrency=4)
        next(iter(batch))
    until(lambda: not _live(client))
    name = entries(daemon, "batch.accepted")[-1]["data"]["batch"]
    (last,) = [one for one in entries(daemon, "batch.finished") if one["data"]["batch"] == name]
    assert last["data"]["ended"] == "connection"


def test_more_runs_than_one_command_holds_are_several(client: Client) -> None:
    batch = client.batch([["/bin/true"]] * 1100)
    seen = [index for index, one in batch if one.ok]
    assert sorted(seen) == list(range(1100))
    assert [one.runs for one in batch.summaries] == [1024, 76]


def test_asyncio_takes_them_as_they_end(daemon: ThrowawayDaemon) -> None:
    async def whole() -> list[int]:
        async with AsyncClient(daemon.socket, daemon.admin_key, daemon.daemon_key) as client:
            batch = client.batch([["/bin/sleep", "600"], ["/bin/true"], ["/bin/true"]], concurrency=3)
            order: list[int] = []
            async for index, one in batch:
                order.append(index)
                assert one.ok == (index > 0)
                if len(order) == 2:  # the first goes on until it is ended
                    runs: Any = (await client.status())["runs"]
                    (live,) = [run["sandbox"] for run in runs if run["sandbox"].startswith("s")]
                    await client.kill(live)
            assert batch.whole
            assert [one.ok for one in await client.batch([["/bin/false"]]).results()] == [False]
            return order

    order = asyncio.run(whole())
    assert sorted(order[:2]) == [1, 2]
    assert order[2:] == [0]


def test_a_batch_that_a_crash_cuts_off_is_told_at_the_next_start(tmp_path: Path) -> None:
    state = tmp_path / "state"
    ThrowawayDaemon.immure("init", "--state", str(state))
    daemon = ThrowawayDaemon(state=state).start()
    try:
        with daemon.client() as client:
            batch = client.batch([["/bin/true"]] * 20 + [["/bin/sleep", "600"]] * 20, concurrency=8)
            known = {index for index, _ in (next(batch) for _ in range(20))}
            daemon.kill()
    finally:
        daemon.kill()
    daemon.start()
    try:
        (lost,) = entries(daemon, "batch.lost")
        rows = outcomes(daemon, lost["data"]["batch"])
        assert known <= rows.keys()
        assert lost["data"]["unknown"] == "20-39"
    finally:
        daemon.stop()
    daemon.start()
    try:
        assert len(entries(daemon, "batch.lost")) == 1
    finally:
        daemon.stop()
