"""The way of one run through the service: intent before the first instruction, outcome before the reply."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

from immured.errors import Refused
from immured.isolation.abi import Cause, Stage
from immured.isolation.messages import Failed
from immured.wire.messages import Reply
from tests.descriptors import descriptors
from tests.service.harness import Harness, closed_but, serving, until

NONCE = b"n" * 16


def result_of(reply: Reply | None) -> dict[str, Any]:
    assert reply is not None
    assert reply.error is None, reply.error
    return dict(reply.result or {})


def code_of(reply: Reply | None) -> str:
    assert reply is not None
    assert reply.error is not None, reply.result
    return str(reply.error["code"])


def test_a_run_is_two_entries_and_two_receipts(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        reply = await harness.connect().run("/bin/true")
        [accepted] = harness.of_type("run.accepted")
        [finished] = harness.of_type("run.finished")
        assert reply.intent is not None
        assert reply.receipt is not None
        assert (reply.intent.seq, reply.receipt.seq) == (accepted["seq"], finished["seq"])
        assert finished["data"]["intent"] == accepted["seq"]

    serving(tmp_path, scenario)


def test_nothing_runs_before_its_intent_is_durable(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        seen: list[int] = []
        go = harness.launcher.go

        def watched(run: int) -> None:
            seen.append(len(harness.of_type("run.accepted")))
            go(run)

        harness.launcher.go = watched  # type: ignore[method-assign]
        await harness.connect().run("/bin/true")
        assert seen == [1]

    serving(tmp_path, scenario)


def test_the_output_is_captured_and_signed(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        result = result_of(await harness.connect().run("/bin/sh", "-c", "echo out; echo err >&2; exit 3"))
        assert (result["cause"], result["exit_code"]) == ("exited", 3)
        assert (result["stdout"], result["stderr"]) == (b"out\n", b"err\n")
        assert result["streams"]["stdout"] == {"length": 4, "sha256": hashlib.sha256(b"out\n").digest()}

    serving(tmp_path, scenario)


def test_a_long_output_is_cut_and_digested_whole(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        result = result_of(await harness.connect().run("/usr/bin/head", "-c", "1000000", "/dev/zero"))
        assert len(result["stdout"]) == 262_144
        assert result["streams"]["stdout"] == {
            "length": 1_000_000, "sha256": hashlib.sha256(bytes(1_000_000)).digest(), "truncated": True
        }  # fmt: skip

    serving(tmp_path, scenario)


@pytest.mark.parametrize("size", [0, 1, 65_536, 700_000])
def test_inline_input_arrives_whole(tmp_path: Path, size: int) -> None:
    async def scenario(harness: Harness) -> None:
        data = os.urandom(size)
        result = result_of(await harness.connect().run("/usr/bin/sha256sum", stdin=data))
        assert result["stdout"].split()[0].decode() == hashlib.sha256(data).hexdigest()

    serving(tmp_path, scenario)


def test_without_input_there_is_none(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        assert result_of(await harness.connect().run("/bin/cat"))["stdout"] == b""

    serving(tmp_path, scenario)


def test_data_frames_feed_a_streamed_run(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.send(client.envelope("run", {"argv": ["/usr/bin/tac"], "stream": True}, nonce=NONCE))
        for line in (b"one\n", b"two\n"):
            await client.feed(NONCE, line)
        await client.feed(NONCE, b"")
        result = result_of(await client.reply())
        assert b"".join(data.data for data in client.data if data.stream == "stdout") == b"two\none\n"
        assert "stdout" not in result
        assert result["streams"]["stdin"]["length"] == 8

    serving(tmp_path, scenario)


def test_streamed_output_ends_with_an_empty_frame(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        result_of(await client.run("/bin/echo", "hello", stream=True, stdin=b""))
        assert [data.data for data in client.data if data.stream == "stdout"] == [b"hello\n", b""]
        assert [data.data for data in client.data if data.stream == "stderr"] == [b""]

    serving(tmp_path, scenario)


def test_data_for_nobody_is_dropped(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.feed(NONCE, b"x")
        assert (await client.ask("status", {})).ok

    serving(tmp_path, scenario)


def test_input_that_nobody_reads_holds_up_its_connection_alone(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        stalled, other = harness.connect(), harness.connect()
        await stalled.send(stalled.envelope("run", {"argv": ["/bin/sleep", "60"], "stream": True}, nonce=NONCE))
        for _ in range(5):
            await stalled.feed(NONCE, bytes(65_536))
        [channel] = [one for one, _ in harness.service.feeds]
        await until(lambda: channel._holds == 1)
        assert (await other.ask("status", {})).ok
        for run in harness.service.registry:
            run.kill()
        assert result_of(await stalled.reply())["cause"] == "killed"
        assert (await stalled.ask("status", {})).ok

    serving(tmp_path, scenario)


def test_a_run_may_close_its_input_early(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.send(client.envelope("run", {"argv": ["/usr/bin/head", "-c", "1"], "stream": True}, nonce=NONCE))
        for _ in range(20):
            await client.feed(NONCE, b"x" * 65_536)
        assert result_of(await client.reply())["exit_code"] == 0

    serving(tmp_path, scenario)


def test_passed_descriptors_are_the_payloads_own(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as source:
            source.write(b"through")
            source.seek(0)
            args = {"argv": ["/bin/cat"], "fds": [0, 1]}
            result = result_of(await harness.connect().ask("run", args, fds=[source.fileno(), out.fileno()]))
            out.seek(0)
            assert out.read() == b"through"
            assert result["streams"]["stdout"] == {"passed": True}
            assert "stdout" not in result

    serving(tmp_path, scenario)


def unsuitable(kind: str) -> int:
    if kind == "a directory":
        return os.open("/", os.O_RDONLY)
    if kind == "an O_PATH descriptor":
        return os.open("/etc/hostname", os.O_PATH)
    if kind == "a terminal":
        return os.openpty()[1]
    if kind == "a character device":
        return os.open("/dev/zero", os.O_RDWR)
    if kind == "a socket that is no stream":
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].detach()
    if kind == "a socket that is not connected":
        return socket.socket(socket.AF_UNIX).detach()
    if kind == "a namespace":
        return os.open("/proc/self/ns/net", os.O_RDONLY)
    return os.pidfd_open(os.getpid())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    "kind",
    [
        "a directory",
        "an O_PATH descriptor",
        "a terminal",
        "a character device",
        "a socket that is no stream",
        "a socket that is not connected",
        "a namespace",
        "a pidfd",
    ],
)
def test_what_is_no_stream_of_bytes_cannot_be_passed(tmp_path: Path, kind: str) -> None:
    async def scenario(harness: Harness) -> None:
        fd = unsuitable(kind)
        try:
            reply = await harness.connect().ask("run", {"argv": ["/bin/true"], "fds": [1]}, fds=[fd])
        finally:
            os.close(fd)
        assert code_of(reply) == "bad_descriptor"
        assert harness.launcher.gone == []

    serving(tmp_path, scenario)


@pytest.mark.parametrize("kind", ["a pipe", "a regular file", "a connected stream"])
def test_streams_of_bytes_can_be_passed(tmp_path: Path, kind: str) -> None:
    async def scenario(harness: Harness) -> None:
        held: list[int] = []
        if kind == "a pipe":
            held += os.pipe()
        elif kind == "a regular file":
            held.append(os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT))
        else:
            held += [one.detach() for one in socket.socketpair()]
        try:
            reply = await harness.connect().ask("run", {"argv": ["/bin/true"], "fds": [1]}, fds=[held[-1]])
        finally:
            for fd in held:
                os.close(fd)
        assert result_of(reply)["exit_code"] == 0

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    "args",
    [
        {"argv": ["/bin/true"], "fds": [1, 2]},
        {"argv": ["/bin/true"], "fds": [1, 1]},
        {"argv": ["/bin/true"], "fds": [3]},
        {"argv": ["/bin/true"], "fds": [True]},
    ],
)
def test_the_list_of_descriptors_must_fit_what_came(tmp_path: Path, args: dict[str, object]) -> None:
    async def scenario(harness: Harness) -> None:
        with tempfile.TemporaryFile() as file:
            reply = await harness.connect().ask("run", args, fds=[file.fileno()])
        assert code_of(reply) in ("bad_descriptor", "bad_argument")

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({}, "bad_argument"),
        ({"argv": []}, "bad_argument"),
        ({"argv": [""]}, "bad_argument"),
        ({"argv": "true"}, "bad_argument"),
        ({"argv": [1]}, "bad_argument"),
        ({"argv": ["a\0b"]}, "bad_argument"),
        ({"argv": ["x" * 200_000]}, "bad_argument"),
        ({"argv": ["true"], "cdw": "/"}, "unknown_field"),
        ({"argv": ["true"], "cwd": "relative"}, "bad_argument"),
        ({"argv": ["true"], "env": {"A=B": "c"}}, "bad_argument"),
        ({"argv": ["true"], "limits": {"wall": "100000h"}}, "bad_argument"),
        ({"argv": ["true"], "limits": {"wal": "1s"}}, "unknown_field"),
        ({"argv": ["true"], "manifest": "sha256:00"}, "unknown_manifest"),
        ({"argv": ["true"], "manifest": {"schema": 2}}, "manifest_invalid"),
        ({"argv": ["true"], "manifest": 1}, "bad_argument"),
        ({"argv": ["true"], "files": {"/tmp/a": "text"}}, "bad_argument"),
        ({"argv": ["true"], "collect": [b"/tmp/a"]}, "bad_argument"),
        ({"argv": ["true"], "stdin": "text"}, "bad_argument"),
        ({"argv": ["true"], "idle": 1}, "unknown_field"),
    ],
)
def test_a_bad_argument_is_a_denial_in_the_ledger(tmp_path: Path, args: dict[str, object], code: str) -> None:
    async def scenario(harness: Harness) -> None:
        reply = await harness.connect().ask("run", args)
        assert code_of(reply) == code
        [denied] = harness.of_type("command.denied")
        assert denied["data"]["code"] == code
        assert reply.receipt is not None
        assert reply.receipt.seq == denied["seq"]
        assert len(harness.service.registry) == 0

    serving(tmp_path, scenario)


def test_too_much_output_ends_the_run(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        result = result_of(await harness.connect().run("/usr/bin/yes", limits={"output": "100K"}))
        assert result["cause"] == "output_limit"
        assert result["streams"]["stdout"]["length"] == 100 * 1024

    serving(tmp_path, scenario)


def test_too_much_output_of_a_run_that_ends_at_once_is_told(tmp_path: Path) -> None:
    """It has fitted the pipe, and is read when the run is over: cut there, it must not look like all that there was."""

    async def scenario(harness: Harness) -> None:
        for _ in range(20):
            result = result_of(
                await harness.connect().run("/usr/bin/head", "-c", "50000", "/dev/zero", limits={"output": 1000})
            )
            assert result["streams"]["stdout"]["length"] == 1000
            assert result["cause"] == "output_limit"

    serving(tmp_path, scenario)


def test_a_client_that_vanishes_takes_its_run_along(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.send(client.envelope("run", {"argv": ["/bin/sleep", "60"]}))
        await until(lambda: harness.launcher.gone == [1])
        client.close()
        await until(lambda: len(harness.service.registry) == 0)
        [finished] = harness.of_type("run.finished")
        assert finished["data"]["cause"] == "killed"

    serving(tmp_path, scenario)


def test_a_client_that_vanishes_before_the_start_takes_its_run_along(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        harness.launcher.hold_prepare = True
        client = harness.connect()
        await client.send(client.envelope("run", {"argv": ["/bin/sleep", "60"]}))
        await until(lambda: len(harness.launcher.runs) == 1)
        client.close()
        await until(lambda: len(harness.service.registry) == 0)
        assert harness.launcher.gone == []
        [finished] = harness.of_type("run.finished")
        assert finished["data"]["cause"] == "killed"

    serving(tmp_path, scenario)


def test_a_detached_run_outlives_its_client(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        body = client.envelope("run", {"argv": ["/bin/sh", "-c", "sleep 0.3; echo done"], "detach": True})
        await client.send(body)
        await until(lambda: harness.launcher.gone == [1])
        client.close()
        await until(lambda: len(harness.service.registry) == 0)
        later = harness.connect()
        await later.send(body)
        assert result_of(await later.reply())["stdout"] == b"done\n"

    serving(tmp_path, scenario)


def test_a_cell_that_cannot_be_made_is_a_result(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        harness.launcher.fail = Failed(Stage.EXEC, None, 2, "/bin/none")
        result = result_of(await harness.connect().run("/bin/none"))
        assert result["cause"] == "setup_failed"
        assert result["failure"]["code"] == "executable_not_found"
        [finished] = harness.of_type("run.finished")
        assert finished["data"]["failure"]["code"] == "executable_not_found"

    serving(tmp_path, scenario)


def test_a_lost_launcher_is_recorded_for_every_run(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        for _ in range(3):
            await client.send(client.envelope("run", {"argv": ["/bin/sleep", "60"]}))
        await until(lambda: len(harness.launcher.gone) == 3)
        harness.launcher.die()
        for _ in range(3):
            reply = await client.reply()
            assert code_of(reply) == "internal"
            assert reply is not None
            assert reply.receipt is not None
        assert len(harness.of_type("run.lost")) == 3

    serving(tmp_path, scenario)


def test_live_runs_are_bounded(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.send(client.envelope("run", {"argv": ["/bin/sleep", "60"]}))
        await until(lambda: harness.launcher.gone == [1])
        body = client.envelope("run", {"argv": ["/bin/true"]})
        await client.send(body)
        assert code_of(await client.reply()) == "busy"
        for run in harness.service.registry:
            run.kill()
        result_of(await client.reply())
        await client.send(body)
        assert result_of(await client.reply())["exit_code"] == 0

    serving(tmp_path, scenario, max_runs=1)


def test_a_stopping_daemon_takes_no_runs(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        harness.service.stopping = True
        assert code_of(await harness.connect().run("/bin/true")) == "stopping"

    serving(tmp_path, scenario)


def test_without_a_ledger_nothing_runs(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        harness.ledger.failed(OSError(5, "Input/output error"))
        client = harness.connect()
        assert code_of(await client.run("/bin/true")) == "ledger_unavailable"
        assert harness.launcher.gone == []
        assert len(harness.service.registry) == 0

    serving(tmp_path, scenario)


def test_an_intent_that_never_becomes_durable_never_runs(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        entry = harness.ledger.entry

        class Never:
            def is_durable(self) -> bool:
                return False

            async def durable(self) -> None:
                raise Refused("ledger_unavailable", "the disk is gone")

        def broken(kind: str, *arguments: Any, **more: Any) -> Any:
            return Never() if kind == "run.accepted" else entry(kind, *arguments, **more)

        harness.ledger.entry = broken  # type: ignore[method-assign,assignment]
        client = harness.connect()
        body = client.envelope("run", {"argv": ["/bin/true"]})
        await client.send(body)
        assert code_of(await client.reply()) == "ledger_unavailable"
        assert harness.launcher.gone == []
        assert [cause for _, cause in harness.launcher.kills] == [Cause.KILLED]
        harness.ledger.entry = entry  # type: ignore[method-assign]
        await client.send(body)
        assert result_of(await client.reply())["exit_code"] == 0

    serving(tmp_path, scenario)


def test_an_outcome_that_cannot_be_recorded_is_no_reason_to_run_again(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        entry = harness.ledger.entry

        def broken(kind: str, *arguments: Any, **more: Any) -> Any:
            if kind == "run.finished":
                raise Refused("ledger_unavailable", "the disk is gone")
            return entry(kind, *arguments, **more)

        harness.ledger.entry = broken  # type: ignore[method-assign,assignment]
        client = harness.connect()
        body = client.envelope("run", {"argv": ["/bin/true"]})
        for _ in range(2):
            await client.send(body)
            assert code_of(await client.reply()) == "ledger_unavailable"
        assert harness.launcher.gone == [1]

    serving(tmp_path, scenario)


def test_a_file_comes_back_with_the_reply(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        source = tmp_path / "made"
        source.write_bytes(b"made inside")
        harness.launcher.collected = {1: os.open(source, os.O_RDONLY)}
        result = result_of(await harness.connect().run("/bin/true", collect=["/tmp/absent", "/tmp/made"]))
        assert result["files"] == {"/tmp/made": b"made inside"}
        [finished] = harness.of_type("run.finished")
        assert finished["data"]["files"]["/tmp/made"]["sha256"] == hashlib.sha256(b"made inside").hexdigest()

    serving(tmp_path, scenario)


def test_a_large_file_comes_back_as_data(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        source = tmp_path / "made"
        source.write_bytes(os.urandom(3_000_000))
        harness.launcher.collected = {0: os.open(source, os.O_RDONLY)}
        client = harness.connect()
        result = result_of(await client.run("/bin/true", collect=["/tmp/made"]))
        assert b"".join(data.data for data in client.data if data.stream == "file:/tmp/made") == source.read_bytes()
        assert result["streams"]["file:/tmp/made"]["length"] == 3_000_000

    serving(tmp_path, scenario)


def test_no_descriptor_is_left_of_a_run(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.run("/bin/true")
        await until(lambda: len(harness.service.registry) == 0)
        before = descriptors()
        for stream in (False, True):
            await client.run("/bin/cat", stdin=b"x", stream=stream)
            await client.run("/bin/cat", limits={"wall": "1000h"})
        await closed_but(before)

    serving(tmp_path, scenario)


def test_values_of_the_environment_stay_out_of_the_ledger(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        result = result_of(await harness.connect().run("/bin/sh", "-c", "echo $TOKEN", env={"TOKEN": "s3cr3t"}))
        assert result["stdout"] == b"s3cr3t\n"
        assert b"s3cr3t" not in (harness.state.paths.ledger / "current.jsonl").read_bytes()
        [accepted] = harness.of_type("run.accepted")
        assert accepted["data"]["env"] == ["TOKEN"]

    serving(tmp_path, scenario)
