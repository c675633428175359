"""Both clients with a real daemon."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured import AsyncClient, Client
from immured.client import Refusal
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as serving:
        yield serving


@pytest.fixture(scope="module")
def client(daemon: ThrowawayDaemon) -> Iterator[Client]:
    with Client(daemon.socket, daemon.admin_key, timeout=PATIENCE_S) as connected:
        yield connected


def asynchronous(daemon: ThrowawayDaemon) -> AsyncClient:
    return AsyncClient(daemon.socket, daemon.admin_key, timeout=PATIENCE_S)


def test_output_beyond_what_a_reply_carries_is_cut_and_says_so(client: Client) -> None:
    result = client.run(["/usr/bin/head", "-c", "1000000", "/dev/zero"])
    record = result.streams["stdout"]
    assert (len(result.stdout), record.length, record.truncated) == (262_144, 1_000_000, True)


def test_streamed_output_is_whole(client: Client) -> None:
    result = client.run(["/usr/bin/head", "-c", "10000000", "/dev/zero"], stream=True)
    assert result.stdout == bytes(10_000_000)


def test_output_comes_while_the_command_runs(client: Client) -> None:
    read, write = os.pipe()
    command = ["/bin/sh", "-c", "echo ready; cat"]
    with open(read, "rb") as file, open(write, "wb") as end, client.start(command, stdin=file) as run:
        first = next(iter(run))
        end.close()
        assert (first, run.result.exit_code) == (("stdout", b"ready\n"), 0)


def test_large_input_goes_through_and_comes_back(client: Client) -> None:
    data = os.urandom(5_000_000)
    assert client.run(["/bin/cat"], stdin=data).stdout == data


def test_input_that_is_not_read_hinders_nobody(client: Client) -> None:
    assert client.run(["/bin/true"], stdin=bytes(5_000_000)).ok


def test_a_plan_with_passed_descriptors_is_told(client: Client, daemon: ThrowawayDaemon) -> None:
    async def asked() -> object:
        async with asynchronous(daemon) as other:
            return (await other.plan(["/bin/true"], fds={0: 0}))["steps"]

    assert client.plan(["/bin/true"], fds={0: 0})["steps"] == asyncio.run(asked())


def test_files_go_in_and_come_back(client: Client) -> None:
    result = client.run(
        ["/bin/cp", "/tmp/in", "/tmp/out"], files={"/tmp/in": b"content"}, collect=["/tmp/out", "/tmp/no"]
    )
    assert result.files == {"/tmp/out": b"content"}


def test_a_collected_file_larger_than_a_frame_comes_whole(client: Client) -> None:
    made = ["/bin/sh", "-c", "head -c 3000000 /dev/urandom > /tmp/big; sha256sum < /tmp/big"]
    result = client.run(made, collect=["/tmp/big"])
    assert hashlib.sha256(result.files["/tmp/big"]).hexdigest().encode() == result.stdout.split()[0]


def test_passed_descriptors_are_the_command_s_own(client: Client, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        result = client.run(["/bin/echo", "hello"], fds={1: out})
    assert ((tmp_path / "out").read_bytes(), result.streams["stdout"].passed) == (b"hello\n", True)


def test_a_directory_is_not_passed(client: Client, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(Refusal, match="bad_descriptor"):
        client.run(["/bin/cat"], fds={0: fd})
    os.close(fd)


def test_a_connected_socket_is_passed(client: Client) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"through")
        ours.shutdown(socket.SHUT_WR)
        client.run(["/bin/cat"], fds={0: theirs, 1: theirs})
        assert ours.recv(100) == b"through"


def test_words_and_variables_that_are_not_utf_8_arrive_as_they_are(client: Client) -> None:
    assert client.run(["/usr/bin/printf", b"%s", b"\xff\xfe"]).stdout == b"\xff\xfe"


def test_threads_share_one_client(client: Client) -> None:
    found: dict[int, bytes] = {}

    def ask(number: int) -> None:
        found[number] = client.run(["/bin/echo", str(number)]).stdout

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == {number: f"{number}\n".encode() for number in range(12)}


def test_tasks_share_one_client(daemon: ThrowawayDaemon) -> None:
    async def work() -> list[bytes]:
        async with asynchronous(daemon) as connected:
            results = await asyncio.gather(*(connected.run(["/bin/echo", str(number)]) for number in range(24)))
        return [result.stdout for result in results]

    assert asyncio.run(work()) == [f"{number}\n".encode() for number in range(24)]


def test_asynchronous_input_and_output_are_whole(daemon: ThrowawayDaemon) -> None:
    data = os.urandom(3_000_000)

    async def work() -> bytes:
        async with asynchronous(daemon) as connected:
            return (await connected.run(["/bin/cat"], stdin=data)).stdout

    assert asyncio.run(work()) == data


def test_a_live_sandbox_can_be_ended(daemon: ThrowawayDaemon, client: Client) -> None:
    with client.start(["/bin/sh", "-c", "echo ready; sleep 600"]) as run:
        assert next(iter(run)) == ("stdout", b"ready\n")
        runs = client.status()["runs"]
        assert isinstance(runs, list)
        for one in runs:
            client.kill(one["sandbox"])
        assert run.result.cause == "killed"


def test_a_plan_runs_nothing(client: Client) -> None:
    planned = client.plan(["/bin/true"])
    assert {"steps", "enforcement"} <= planned.keys()


def test_a_runner_may_run_and_no_more(daemon: ThrowawayDaemon, client: Client, tmp_path: Path) -> None:
    key = PrivateKey.generate()
    client.key_add("runner", key.public, role="runner")
    with Client(daemon.socket, key, timeout=PATIENCE_S) as runner:
        assert runner.run(["/bin/true"]).ok
        with pytest.raises(Refusal, match="denied") as refused:
            runner.key_list()
    assert refused.value.receipt is not None


def test_receipts_are_lines_of_the_ledger(daemon: ThrowawayDaemon, client: Client) -> None:
    result = client.run(["/bin/true"])
    lines = (daemon.state / "ledger" / "current.jsonl").read_bytes().splitlines()
    said = [hashlib.sha256(b"\0" + lines[receipt.seq]).digest() for receipt in (result.intent, result.receipt)]
    assert said == [result.intent.leaf, result.receipt.leaf]


def test_openssl_verifies_a_reply_s_signature(daemon: ThrowawayDaemon, tmp_path: Path) -> None:
    from immured.client.session import sign
    from immured.wire.envelope import decode_envelope, pae
    from immured.wire.frames import FrameReader, encode_frame
    from immured.wire.keys import PublicKey
    from immured.wire.sockets import receive_some

    daemon_key = PublicKey.from_pem(daemon.daemon_key.read_bytes())
    admin = PrivateKey.from_pem(daemon.admin_key.read_bytes())
    request = sign(admin, daemon_key.id, "status", {}, now_ms=time.time_ns() // 1_000_000)
    reader = FrameReader()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        sock.sendall(encode_frame(request.body))
        bodies: list[bytes] = []
        while len(bodies) < 2:
            frame = receive_some(sock, reader)
            if frame is not None:
                bodies.append(frame.body)
    envelope = decode_envelope(bodies[1])
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(pae(envelope.type, envelope.payload))
    signature.write_bytes(envelope.signatures[0][1])
    command = f"openssl pkeyutl -verify -pubin -inkey {daemon.daemon_key} -rawin -in {message} -sigfile {signature}"
    checked = subprocess.run(command.split(), check=False, capture_output=True, timeout=PATIENCE_S)
    assert checked.returncode == 0, checked
