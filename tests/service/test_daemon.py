"""The daemon as a process: start, lock, stop in order, death and return. Everything here is real."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from immured.wire.envelope import decode_envelope, seal
from immured.wire.frames import encode_frame
from immured.wire.keys import PrivateKey, PublicKey
from immured.wire.messages import COMMAND, REPLY, Command, Reply, new_nonce, parse_reply
from tests.entries import entries_in
from tests.patience import PATIENCE_S, until

pytestmark = pytest.mark.needs_root


@pytest.fixture
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running


def entries(daemon: ThrowawayDaemon, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in entries_in(daemon.state) if entry["type"] == kind]


LONG = {"schema": 1, "limits": {"wall": "10m"}}


def in_background(work: Callable[[], object]) -> threading.Thread:
    def quietly() -> None:
        try:
            work()
        except (ImmuredError, OSError, EOFError):
            return

    thread = threading.Thread(target=quietly)
    thread.start()
    return thread


def immured(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "immured.service", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_second_daemon_is_refused_at_once(daemon: ThrowawayDaemon) -> None:
    second = immured("--state", str(daemon.state))
    assert second.returncode == 1
    assert "state_in_use" in second.stderr
    assert str(daemon.pid) in second.stderr
    with daemon.client() as client:
        assert client.run(["/bin/true"]).ok


def test_what_is_no_state_directory_is_refused_with_the_remedy(tmp_path: Path) -> None:
    refused = immured("--state", str(tmp_path))
    assert refused.returncode == 1
    assert "immure init" in refused.stderr


def test_two_daemons_serve_side_by_side(daemon: ThrowawayDaemon) -> None:
    with ThrowawayDaemon() as other, daemon.client() as one, other.client() as two:
        assert one.run(["/bin/echo", "one"]).stdout == b"one\n"
        assert two.run(["/bin/echo", "two"]).stdout == b"two\n"
        ids = [client.status()["host"]["slot_base"] for client in (one, two)]  # type: ignore[index]
        assert ids[0] != ids[1]


def configured(daemon: ThrowawayDaemon, default: str, name: str, seconds: int) -> None:
    """Have it start again with that line of its configuration."""
    daemon.stop()
    config = daemon.state / "config.toml"
    before = config.read_text()
    assert f"# {name} = {default} " in before
    config.write_text(before.replace(f"# {name} = {default} ", f"{name} = {seconds} "))
    daemon.start()


def stops_after(daemon: ThrowawayDaemon, seconds: int) -> None:
    """A daemon that lets live runs go on so long after it was told to stop. One that does not stop in time is killed,
    and its exit status is not 0."""
    configured(daemon, "10", "stop_deadline_s", seconds)


def test_a_stop_lets_live_runs_end_and_records_all(daemon: ThrowawayDaemon) -> None:
    stops_after(daemon, 600)
    with daemon.client() as client:
        results = []
        thread = in_background(lambda: results.append(client.run(["/bin/sh", "-c", "sleep 1; echo done"])))
        until(lambda: entries(daemon, "run.accepted"))
        assert daemon.stop() == 0
        thread.join(PATIENCE_S)
    assert [result.stdout for result in results] == [b"done\n"]
    assert [entry["data"]["cause"] for entry in entries(daemon, "run.finished")] == ["exited"]
    assert len(entries(daemon, "daemon.stopped")) == 2  # and the one before
    assert ThrowawayDaemon.immure("ledger", "verify", "--state", str(daemon.state)).returncode == 0


def test_a_stop_ends_by_its_deadline(daemon: ThrowawayDaemon) -> None:
    stops_after(daemon, 1)
    with daemon.client() as client:
        results = []
        thread = in_background(lambda: results.append(client.run(["/bin/sleep", "590"], manifest=LONG)))
        until(lambda: entries(daemon, "run.accepted"))
        assert daemon.stop() == 0
        thread.join(PATIENCE_S)
    assert [result.cause for result in results] == ["killed"]
    assert [entry["data"]["cause"] for entry in entries(daemon, "run.finished")] == ["killed"]


def test_nothing_new_begins_while_it_stops(daemon: ThrowawayDaemon) -> None:
    stops_after(daemon, 600)
    with daemon.client() as client:
        thread = in_background(lambda: client.run(["/bin/sleep", "590"], manifest=LONG))
        until(lambda: entries(daemon, "run.accepted"))
        with daemon.client() as late:
            late.status()
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGTERM)
            until(lambda: late.status()["stopping"])
            with pytest.raises(ImmuredError) as caught:
                late.run(["/bin/true"])
        assert caught.value.code == "stopping"
        assert daemon.stop() == 0  # by a second signal: see below
        thread.join(PATIENCE_S)


def test_a_second_signal_hurries(daemon: ThrowawayDaemon) -> None:
    stops_after(daemon, 600)
    with daemon.client() as client, daemon.client() as late:
        thread = in_background(lambda: client.run(["/bin/sleep", "590"], manifest=LONG))
        until(lambda: entries(daemon, "run.accepted"))
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        until(lambda: late.status()["stopping"])  # or the two may be one
        assert daemon.stop() == 0
        thread.join(PATIENCE_S)


class Wire:
    """A connection by hand, so that the very same bytes can be sent again."""

    def __init__(self, daemon: ThrowawayDaemon) -> None:
        with contextlib.ExitStack() as unfinished:
            self.sock = unfinished.enter_context(socket.socket(socket.AF_UNIX))
            self.sock.settimeout(PATIENCE_S)
            self.sock.connect(str(daemon.socket))
            self.file = self.sock.makefile("rb")
            unfinished.pop_all()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def send(self, body: bytes) -> None:
        self.sock.sendall(encode_frame(body))

    def reply(self) -> Reply:
        while True:
            header = self.file.read(4)
            envelope = decode_envelope(self.file.read(int.from_bytes(header, "big")))
            if envelope.type == REPLY:
                return parse_reply(envelope.payload)

    def ask(self, body: bytes) -> Reply:
        self.send(body)
        return self.reply()


def order(daemon: ThrowawayDaemon, *argv: str, **args: object) -> bytes:
    key = PrivateKey.from_pem(daemon.admin_key.read_bytes())
    aud = PublicKey.from_pem(daemon.daemon_key.read_bytes()).id
    now = time.time_ns() // 1_000_000
    command = Command(aud, "run", {"argv": list(argv), **args}, new_nonce(), now, now + 120_000)
    return seal(COMMAND, command.to_payload(), [key])


def test_a_command_of_before_a_crash_is_already_done_after_it(daemon: ThrowawayDaemon) -> None:
    body = order(daemon, "/bin/true")
    with Wire(daemon) as wire:
        first = wire.ask(body)
    daemon.kill()
    daemon.start()
    with Wire(daemon) as wire:
        again = wire.ask(body)
    assert again.error is not None
    assert again.error["code"] == "already_done"
    assert (again.receipt, again.intent) == (first.receipt, first.intent)


def test_a_run_that_a_crash_cut_short_is_recorded_as_lost(daemon: ThrowawayDaemon) -> None:
    body = order(daemon, "/bin/sleep", "55")
    with Wire(daemon) as wire:
        wire.send(body)
        until(lambda: entries(daemon, "run.accepted"))
        daemon.kill()
    daemon.start()
    [accepted] = entries(daemon, "run.accepted")
    [lost] = entries(daemon, "run.lost")
    assert lost["data"]["sandbox"] == accepted["data"]["sandbox"]
    with Wire(daemon) as wire:
        again = wire.ask(body)
    assert again.error is not None
    assert again.error["code"] == "already_done"
    assert again.receipt is not None
    assert again.receipt.seq == lost["seq"]


def launcher_of(daemon: ThrowawayDaemon) -> int:
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def test_a_launcher_that_dies_takes_the_daemon_along_with_everything_recorded(daemon: ThrowawayDaemon) -> None:
    with daemon.client() as client:
        thread = in_background(lambda: client.run(["/bin/sleep", "55"]))
        until(lambda: entries(daemon, "run.accepted"))
        os.kill(launcher_of(daemon), signal.SIGKILL)
        assert daemon.process is not None
        assert daemon.process.wait(PATIENCE_S) == 1
        thread.join(PATIENCE_S)
    assert len(entries(daemon, "run.lost")) == 1
    assert len(entries(daemon, "daemon.stopped")) == 1
    daemon.start()
    assert len(entries(daemon, "run.lost")) == 1
    with daemon.client() as client:
        assert client.run(["/bin/true"]).ok


def test_an_added_key_outlives_the_daemon(daemon: ThrowawayDaemon) -> None:
    key = PrivateKey.generate()
    with daemon.client() as client:
        client.key_add("ci", key.public, role="runner")
    daemon.kill()
    daemon.start()
    with daemon.client() as client:
        keys: Any = client.key_list()["keys"]
    assert [record["name"] for record in keys] == ["admin", "ci"]


def test_an_older_ledger_beside_a_newer_keyring_is_refused(daemon: ThrowawayDaemon) -> None:
    older = daemon.state.parent / "older"
    daemon.stop()
    shutil.copytree(daemon.state / "ledger", older)
    daemon.start()
    with daemon.client() as client:
        for name in ("one", "two", "three", "four"):
            client.key_add(name, PrivateKey.generate().public, role="runner")
    daemon.stop()
    shutil.rmtree(daemon.state / "ledger")
    older.rename(daemon.state / "ledger")
    with pytest.raises(ImmuredError) as refused:
        daemon.start()
    assert "ledger_rolled_back" in str(refused.value.details["log"])


def test_strangers_leave_one_entry(daemon: ThrowawayDaemon) -> None:
    configured(daemon, "10", "misbehaviour_interval_s", 3600)
    for _ in range(20):
        with Wire(daemon) as wire:
            assert wire.ask(b"\xc1").error is not None
    daemon.stop()
    assert [entry["data"]["count"] for entry in entries(daemon, "peer.misbehaved")] == [20]


def test_nobody_reads_the_daemons_memory(daemon: ThrowawayDaemon) -> None:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert re.search(r"Max core file size +([01]) +\1 ", Path(f"/proc/{daemon.pid}/limits").read_text())


def test_systemd_is_told(daemon: ThrowawayDaemon, tmp_path: Path) -> None:
    daemon.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(PATIENCE_S)
        os.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        try:
            daemon.start()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert listener.recv(100) == b"READY=1"
        daemon.stop()
        assert listener.recv(100) == b"STOPPING=1"


def test_the_socket_may_be_elsewhere_with_the_daemons_key_beside_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    elsewhere = tmp_path / "run" / "immured.sock"
    with (
        ThrowawayDaemon(options=["--socket", str(elsewhere)]) as daemon,
        Client(socket=str(elsewhere), key=str(daemon.admin_key)) as client,
    ):
        assert client.run(["/bin/true"]).ok


def test_everybody_may_knock_and_only_keys_are_heard(daemon: ThrowawayDaemon) -> None:
    script = (
        "import socket, sys, os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'\\0\\0\\0\\1\\xc1')\n"
        "d = b''\n"
        "while b'bad_msgpack' not in d and (more := s.recv(65536)): d += more\n"
        "assert b'bad_msgpack' in d"
    )
    subprocess.run(["/usr/bin/python3", "-c", script, str(daemon.socket)], check=True, timeout=PATIENCE_S)
    daemon.stop()
    assert [entry["data"].get("uid") for entry in entries(daemon, "peer.misbehaved")] == [65534]
