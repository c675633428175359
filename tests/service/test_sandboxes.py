"""Sandboxes and execs in the broker alone: intent before effect, outcome before reply, and nothing kept by mistake."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path
from typing import Any

import msgpack
import pytest

from immured.errors import Refused
from immured.isolation import abi
from immured.isolation.abi import Cause, Clerk, Stage
from immured.isolation.messages import Failed
from immured.manifest.builtin import default_manifest, parse_map
from immured.manifest.parameters import fill
from immured.manifest.schema import Manifest, Program
from immured.service.sandboxes.lifecycle import until_over
from immured.service.sandboxes.logs import Log
from immured.service.sandboxes.plain import from_plain, to_plain
from immured.service.sandboxes.record import Record, RecordError, read_record, restore
from immured.service.sandboxes.sandbox import Sandbox
from immured.service.sandboxes.state import LIVE, MOVES, OVER, State
from tests.patience import PATIENCE_S
from tests.service.harness import Harness, serving, until
from tests.service.test_runs import code_of, result_of


async def create(harness: Harness, **args: Any) -> tuple[Any, str]:
    client = harness.connect()
    [row] = result_of(await client.ask("sandbox.create", args))["sandboxes"]
    return client, row["sandbox"]


def test_every_state_has_moves_and_what_is_over_has_none() -> None:
    assert set(MOVES) == set(State)
    assert all(not MOVES[state] for state in OVER)
    assert all(any(to in OVER for to in MOVES[state]) for state in LIVE)


def test_create_is_its_intent_and_its_cell_at_the_same_time(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        harness.launcher.hold_prepare = True
        client = harness.connect()
        await client.send(client.envelope("sandbox.create", {"name": "x"}))
        await until(lambda: len(harness.of_type("sandbox.created")) == 1)
        [cell] = harness.launcher.cells.values()
        assert harness.of_type("sandbox.ready") == []
        cell.created.set_result(True)
        reply = await client.reply()
        assert result_of(reply)["sandboxes"][0]["state"] == "ready"
        assert reply is not None
        assert reply.intent is not None
        assert reply.intent.seq == harness.of_type("sandbox.created")[0]["seq"]
        await until(lambda: len(harness.of_type("sandbox.ready")) == 1)

    serving(tmp_path, scenario)


def test_without_a_ledger_nothing_lives(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        harness.ledger.close()
        assert code_of(await client.ask("sandbox.create", {"count": 3})) == "ledger_unavailable"
        assert harness.launcher.cells == {}
        assert list(harness.service.sandboxes) == []
        assert harness.service.sandboxes.live == 0

    serving(tmp_path, scenario)


def test_who_ends_one_that_is_called_off_waits_until_it_is_and_no_longer(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        kill = harness.launcher.kill
        killed: list[int] = []
        harness.launcher.kill = lambda run, cause=Cause.KILLED: killed.append(run)  # type: ignore[method-assign]
        harness.ledger.close()
        asking = harness.connect()
        await asking.send(asking.envelope("sandbox.create", {}))
        await until(lambda: killed)  # and its cell is still there
        [sandbox] = harness.service.sandboxes
        waiting = asyncio.create_task(until_over([sandbox], PATIENCE_S))
        kill(sandbox.number)
        assert code_of(await asking.reply()) == "ledger_unavailable"
        assert await waiting == []

    serving(tmp_path, scenario)


def test_a_ledger_that_fails_keeps_nobody_from_ending_it(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, name = await create(harness)
        harness.ledger.close()
        reply = await client.ask("sandbox.kill", {"sandbox": name})
        assert result_of(reply) == {"sandbox": name, "ended": True}
        assert reply.receipt is None
        assert harness.launcher.cells == {}

    serving(tmp_path, scenario)


def test_what_never_lived_is_an_error_with_both_receipts(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        harness.launcher.fail = Failed(Stage.OPEN, None, 2, "/no/such")
        reply = await harness.connect().ask("sandbox.create", {})
        assert code_of(reply) == "path_missing"
        [ended] = harness.of_type("sandbox.ended")
        assert reply.receipt is not None
        assert reply.receipt.seq == ended["seq"]
        assert ended["data"]["intent"] == harness.of_type("sandbox.created")[0]["seq"]

    serving(tmp_path, scenario)


def test_more_than_there_are_places_for_is_busy_and_makes_none(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        assert code_of(await client.ask("sandbox.create", {"count": 17})) == "busy"  # 16 ranges of ids
        harness.service.sandboxes.most = 2
        assert code_of(await client.ask("sandbox.create", {"count": 3})) == "busy"
        assert harness.of_type("sandbox.created") == []

    serving(tmp_path, scenario)


def test_the_launcher_that_dies_takes_them_along_and_the_ledger_says_so(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, name = await create(harness)
        await client.send(client.envelope("sandbox.exec", {"sandbox": name, "argv": ["/bin/sleep", "60"]}))
        await until(lambda: len(harness.launcher.gone) == 1)
        harness.launcher.die()
        assert code_of(await client.reply()) == "internal"
        await until(lambda: len(harness.of_type("sandbox.lost")) == 1)
        assert len(harness.of_type("exec.lost")) == 1

    serving(tmp_path, scenario)


def test_an_exec_runs_after_its_intent_alone(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, name = await create(harness)
        seen: list[int] = []
        go = harness.launcher.go

        def watched(run: int) -> None:
            seen.append(len(harness.of_type("exec.accepted")))
            go(run)

        harness.launcher.go = watched  # type: ignore[method-assign]
        result = result_of(await client.ask("sandbox.exec", {"sandbox": name, "argv": ["/bin/echo", "hi"]}))
        assert result["stdout"] == b"hi\n"
        assert (result["sandbox"], result["exec"][0]) == (name, "e")
        assert seen == [1]

    serving(tmp_path, scenario)


def test_a_streamed_execs_id_comes_first(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, name = await create(harness)
        args = {"sandbox": name, "argv": ["/bin/echo", "hi"], "stream": True, "stdin": b""}
        result = result_of(await client.ask("sandbox.exec", args))
        assert (client.data[0].stream, client.data[0].data.decode()) == ("exec", result["exec"])

    serving(tmp_path, scenario)


def test_it_ends_of_itself(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, name = await create(harness, ttl_ms=60_000)
        [number] = harness.launcher.cells
        harness.launcher.end_cell(number, Cause.TIMEOUT)
        await until(lambda: len(harness.of_type("sandbox.ended")) == 1)
        row = result_of(await client.ask("sandbox.show", {"sandbox": name}))
        assert (row["state"], row["cause"]) == ("ended", "expired")
        assert code_of(await client.ask("sandbox.extend", {"sandbox": name, "ttl_ms": 1})) == "wrong_state"

    serving(tmp_path, scenario)


def test_a_clerk_that_dies_is_told_and_one_that_is_silent_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        _, name = await create(harness)
        [sandbox] = [one for one in harness.service.sandboxes if one.id == name]
        link = await harness.service.sandboxes.clerk(sandbox, Clerk.FILES, 1)
        *_, theirs = harness.launcher.asked[-1]
        asked = asyncio.get_running_loop().create_task(link.ask(b"question", [0]))
        _, fds, _, _ = await asyncio.to_thread(socket.recv_fds, theirs, 100, 4)
        assert len(fds) == 1
        os.close(fds[0])
        theirs.send(b"answer")
        assert await asked == (b"answer", [])
        theirs.close()
        with pytest.raises(Refused) as refused:
            await link.ask(b"again")
        assert refused.value.code == "clerk_lost"
        link = await harness.service.sandboxes.clerk(sandbox, Clerk.FILES, 1)
        with pytest.raises(Refused) as refused:
            await link.ask(b"question", within=0.1)
        assert refused.value.code == "path_timeout"
        harness.launcher.asked[-1][-1].close()

    serving(tmp_path, scenario)


def test_of_a_link_that_is_too_full_no_packet_is_lost(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        _, name = await create(harness)
        [sandbox] = list(harness.service.sandboxes)
        assert sandbox.id == name
        link = await harness.service.sandboxes.clerk(sandbox, Clerk.FILES, 1)
        *_, theirs = harness.launcher.asked[-1]

        async def send_all() -> None:
            for number in range(200):
                await link.send(struct.pack("=I", number) + bytes(8000))

        sending = asyncio.get_running_loop().create_task(send_all())
        await asyncio.sleep(0.05)
        assert not sending.done()
        got = [struct.unpack_from("=I", await asyncio.to_thread(theirs.recv, 9000))[0] for _ in range(200)]
        await sending
        assert got == list(range(200))
        link.close()
        theirs.close()

    serving(tmp_path, scenario)


# -- the record


def a_sandbox(manifest: Manifest) -> Sandbox:
    return Sandbox(
        number=7, id="s" + "0" * 20, tenant="default", key_id="ed25519:0", uid=1000, manifest=manifest, plan="sha256:0",
        enforcement={"memory": "x"}, created_ms=1, expires_ms=2, name="work", labels={"a": "b"}, env={b"A": b"\xff"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "manifest",
    [
        default_manifest(),
        parse_map(
            {
                "schema": 1, "name": "x", "class": "default", "command": {"allow": ["/bin/true"], "env": {"A": "b"}},
                "filesystem": {"read": ["/srv"], "protect": ["/tmp/x"], "hide": ["/usr/share"], "tmpfs": ["/work"]},
                "network": {"mode": "loopback"}, "limits": {"memory": "64M", "cores": "0", "strict": False},
            }
        ),
        fill(
            parse_map(
                {
                    "schema": 1, "command": {"allow": [{"program": "x", "arguments": [["${p}", "..."], []]}]},
                    "filesystem": {"read": ["${p}"]}, "limits": {"pids": "${n}", "swap": "0"},
                    "consent": {"required": True, "valid": "1h"},
                    "parameters": {
                        "p": {"type": "path", "within": ["/srv"]}, "n": {"type": "integer", "least": 1, "most": 9},
                        "t": {"type": "text", "pattern": "a-z", "longest": 9, "default": "x"},
                        "c": {"type": "choice", "values": ["a"], "default": "a"},
                    },
                }
            ),
            {"p": "/srv/x", "n": 3},
        ),
    ],
)  # fmt: skip
def test_a_record_is_the_sandbox_again(manifest: Manifest) -> None:
    assert from_plain(Manifest, to_plain(manifest)) == manifest
    record = Record.make()
    record.write(a_sandbox(manifest))
    again, values = read_record(os.dup(record.fd))
    found = restore(values, 7)
    assert (found.manifest, found.name, found.env, found.labels) == (manifest, "work", {b"A": b"\xff"}, {"a": "b"})
    record.close()
    again.close()


def test_whoever_is_killed_while_it_writes_leaves_the_older_record() -> None:
    record, sandbox = Record.make(), a_sandbox(default_manifest())
    for _ in range(3):
        record.write(sandbox)
    last = os.pread(record.fd, 28, 0)
    sandbox.name = "newer"
    record.write(sandbox)
    os.pwrite(record.fd, last, 0)  # the header was not reached
    again, values = read_record(os.dup(record.fd))
    assert values["name"] == "work"
    again.write(sandbox)  # and whoever follows does not write over what is whole
    third, values = read_record(os.dup(record.fd))
    assert values["name"] == "newer"
    for one in (record, again, third):
        one.close()


@pytest.mark.parametrize("damage", ["empty", "torn", "magic"])
def test_a_damaged_record_is_none(damage: str) -> None:
    record = Record.make()
    if damage != "empty":
        record.write(a_sandbox(default_manifest()))
        _, where, length, _ = struct.unpack("=8sQQI", os.pread(record.fd, 28, 0))
        os.pwrite(record.fd, b"X", 0 if damage == "magic" else where + length - 1)
    with pytest.raises(RecordError):
        read_record(os.dup(record.fd))
    record.close()


def test_a_record_of_a_broker_that_knew_programs_by_name_alone_is_taken_over() -> None:
    record = Record.make()
    record.write(a_sandbox(parse_map({"schema": 1, "command": {"allow": ["/bin/true", "make"], "pin": False}})))
    again, values = read_record(os.dup(record.fd))
    plain = msgpack.unpackb(values["manifest"], raw=False, strict_map_key=False)
    plain["command"]["allow"] = [one["name"] for one in plain["command"]["allow"]]
    for table, new in (("command", "pin"), ("limits", "swap"), *((None, one) for one in NEW)):
        del (plain if table is None else plain[table])[new]
    found = restore({**values, "manifest": msgpack.packb(plain)}, 7).manifest
    assert found.command.allow == (Program(b"/bin/true"), Program(b"make"))
    assert (found.command.pin, found.limits.swap, found.parameters) == (False, 0, ())
    record.close()
    again.close()


NEW = ("consent", "parameters", "given", "template")
"""What a manifest did not have before."""


def test_what_a_newer_version_enforces_an_older_one_does_not_take_over() -> None:
    plain = to_plain(default_manifest())
    assert isinstance(plain, dict)
    with pytest.raises(ValueError, match="no newer"):
        from_plain(Manifest, {**plain, "newer": 1})


# -- the log


class Writer:
    """Writes a log as a warden does."""

    def __init__(self, log: Log) -> None:
        self.fd = log.fd
        self.capacity = os.fstat(log.fd).st_size - abi.LOG_PAGE
        self.start = self.end = 0
        self.total = [0, 0]
        self.sizes: list[int] = []

    def write(self, stream: int, data: bytes) -> None:
        record = struct.pack("=QII", len(self.sizes), stream, len(data)) + data
        record += bytes(-len(record) % 16)
        while self.end + len(record) - self.start > self.capacity:
            self.start += self.sizes.pop(0)
        for index in range(0, len(record), 16):
            place = abi.LOG_PAGE + (self.end + index) % self.capacity
            os.pwrite(self.fd, record[index : index + 16], place)
        self.end += len(record)
        self.sizes.append(len(record))
        self.total[stream - 1] += len(data)
        os.pwrite(self.fd, struct.pack("=QQ2Q", self.start, self.end, *self.total), 8)


def test_a_log_is_read_across_its_end_and_past_what_was_overwritten() -> None:
    async def scenario() -> None:
        log = Log.make(abi.LOG_MIN)
        writer = Writer(log)
        whole = b""
        for number in range(3000):
            data = f"{number} ".encode() * 40
            whole += data
            writer.write(1 + number % 2, data)
            if number in (0, 1, 700, 1500, 2999):
                at, seen = 0, b""
                while (page := log.read(at, 50_000)).pieces:
                    seen += b"".join(piece.data for piece in page.pieces)
                    assert page.start - at == page.lost
                    at = page.next
                assert seen == whole[len(whole) - len(seen) :]
                assert at == len(whole)
                assert sum(log.totals) == len(whole)
        middle = len(whole) - 12_345
        page = log.read(middle, 10**9)
        assert (page.start, page.lost) == (middle, 0)
        assert b"".join(piece.data for piece in page.pieces) == whole[middle:]
        log.close()

    asyncio.run(scenario())
