"""A daemon that dies, is replaced or stops, and the sandboxes that live on. Everything here is real."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.host.cgroup import cgroup2_mount
from tests.entries import entries_in
from tests.patience import PATIENCE_S

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(cgroup2_mount() is None, reason="no cgroup v2; remedy: mount it"),
]


@pytest.fixture
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running
        end_launcher(running.state)


def end_launcher(state: Path) -> None:
    """Of a daemon that left it alive."""
    holders = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if os.fsencode(state) in words(pid)]
    for pid in holders:
        with contextlib.suppress(ProcessLookupError):  # without sandboxes it ends of itself
            os.kill(pid, signal.SIGTERM)


def words(pid: int) -> bytes:
    """Of a launcher's command line; nothing of any other process."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
    return line if line.startswith(b"immured-launcher\0") else b""


def entries(state: Path, *kinds: str) -> list[dict[str, Any]]:
    return [entry for entry in entries_in(state) if entry["type"] in kinds]


def test_sandboxes_outlive_a_daemon_that_was_killed(daemon: ThrowawayDaemon) -> None:
    with daemon.client() as client:
        sandbox = client.sandbox(name="box")
        sandbox.exec(["/bin/sh", "-c", "echo kept > /tmp/note"])
        ticking = sandbox.start(["/bin/sh", "-c", "while :; do echo tick; sleep 0.1; done"])
    for _ in range(3):
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            box = client.open("box")
            assert box.exec(["/bin/cat", "/tmp/note"]).stdout == b"kept\n"
    with daemon.client() as client:
        client.open("box").kill()
    [adopted, *_] = entries(daemon.state, "exec.adopted")
    assert adopted["data"]["exec"] == ticking.id
    assert len(entries(daemon.state, "sandbox.adopted")) == 3
    assert len(entries(daemon.state, "sandbox.ended")) == 1
    assert entries(daemon.state, "sandbox.lost", "exec.lost") == []


def test_a_daemon_that_found_its_launcher_leaves_it_when_it_stops(daemon: ThrowawayDaemon) -> None:
    with daemon.client() as client:
        client.sandbox(name="box")
    daemon.kill()
    daemon.process = patient(daemon.state)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(PATIENCE_S) == 0
    daemon.start()
    with daemon.client() as client:
        assert client.open("box").exec(["/bin/echo", "here"]).stdout == b"here\n"
        client.open("box").kill()
    assert entries(daemon.state, "sandbox.lost") == []


_PATIENT = (
    "import sys; from immured.service import daemon; daemon._KILLED_WAIT_S = 600\n"
    "from immured.service.main import main; sys.exit(main(sys.argv[1:]))"
)


def patient(state: Path) -> subprocess.Popen[bytes]:
    """One that serves, and would wait very long for what does not end."""
    ready, write = os.pipe()
    command = [sys.executable, "-c", _PATIENT, "--state", str(state), "--ready-fd", str(write)]
    try:
        process = subprocess.Popen(command, pass_fds=(write,), start_new_session=True)
    finally:
        os.close(write)
        with os.fdopen(ready, "rb") as said:
            words = said.read()
    assert words == b"READY\n"
    return process


def test_a_daemon_that_started_its_launcher_ends_all_when_it_stops(daemon: ThrowawayDaemon) -> None:
    with daemon.client() as client:
        client.sandbox(name="box")
    assert daemon.stop() == 0
    assert len(entries(daemon.state, "sandbox.ended")) == 1
    assert not (daemon.state / "launcher.sock").exists()
    daemon.start()
    with daemon.client() as client:
        assert client.sandboxes() == []


# -- the launcher as a service of its own


class Service:
    """A launcher that stands by itself, and the brokers that come."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        ThrowawayDaemon.immure("init", "--state", str(self.state))
        self.brokers: list[subprocess.Popen[bytes]] = []
        with contextlib.ExitStack() as unfinished:
            self.notified = unfinished.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            self.notified.bind(os.fspath(directory / "notify"))
            self.notified.settimeout(PATIENCE_S)
            # A word a second: what waits here is ten words, and those that come then are lost.
            environment = {**os.environ, "NOTIFY_SOCKET": os.fspath(directory / "notify"), "WATCHDOG_USEC": "2000000"}
            self.launcher = self._start("--launcher-only", environment=environment)
            unfinished.pop_all()

    def _start(self, *options: str, environment: dict[str, str] | None = None, fd: int = -1) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "immured.service", "--state", str(self.state), *options]
        return subprocess.Popen(command, env=environment, pass_fds=() if fd < 0 else (fd,))

    def broker(self) -> subprocess.Popen[bytes]:
        """One that serves."""
        ready, write = os.pipe()
        self.brokers.append(self._start("--join", "--ready-fd", str(write), fd=write))
        os.close(write)
        with os.fdopen(ready, "rb") as said:
            assert said.read() == b"READY\n"
        return self.brokers[-1]

    def client(self) -> Client:
        return Client(socket=os.fspath(self.state / "immured.sock"), key=os.fspath(self.state / "keys" / "admin.pem"))

    def close(self) -> None:
        self.launcher.terminate()
        for process in (self.launcher, *self.brokers):
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.notified.close()


@pytest.fixture
def service() -> Iterator[Service]:
    """In a directory that others may pass; pytest's own are shut again by whoever else begins to test."""
    with tempfile.TemporaryDirectory(prefix="immured-") as made:
        Path(made).chmod(0o711)
        service = Service(Path(made))
        yield service
        service.close()


def test_the_service_manager_is_told_when_brokers_may_come(service: Service) -> None:
    assert service.notified.recv(100) == b"READY=1"
    assert [service.notified.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2
    service.launcher.terminate()
    while (said := service.notified.recv(100)) == b"WATCHDOG=1":
        pass
    assert said == b"STOPPING=1"
    assert service.launcher.wait(PATIENCE_S) == 0


def test_brokers_and_launcher_are_replaced_under_a_sandbox(service: Service) -> None:
    first = service.broker()
    with service.client() as client:
        client.sandbox(name="box").exec(["/bin/sh", "-c", "echo kept > /tmp/note"])
    first.terminate()
    assert first.wait(PATIENCE_S) == 0
    second = service.broker()
    with service.client() as client:
        os.kill(service.launcher.pid, signal.SIGHUP)
        box = client.open("box")
        assert box.exec(["/bin/cat", "/tmp/note"]).stdout == b"kept\n"
        assert client.run(["/bin/echo", "run"]).stdout == b"run\n"
    second.kill()
    second.wait()
    service.broker()
    with service.client() as client:
        assert client.open("box").exec(["/bin/cat", "/tmp/note"]).stdout == b"kept\n"
    assert entries(service.state, "sandbox.lost", "sandbox.ended", "run.lost") == []


def test_who_connects_between_two_brokers_is_served_by_the_second(service: Service) -> None:
    service.broker().kill()
    service.brokers[-1].wait()
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(os.fspath(service.state / "immured.sock"))
        service.broker()
        early.settimeout(PATIENCE_S)
        assert early.recv(4)  # the length of its hello


def test_without_a_launcher_nobody_joins(tmp_path: Path) -> None:
    state = tmp_path / "state"
    ThrowawayDaemon.immure("init", "--state", str(state))
    command = [sys.executable, "-c", _JOIN, str(state)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert refused.returncode == 1
    assert "no_launcher" in refused.stderr
    assert "immured --launcher-only" in refused.stderr


_JOIN = (
    "import sys; from immured.service import launching; launching._JOIN_WAIT_S = 0.2\n"
    "from immured.service.main import main; sys.exit(main(['--state', sys.argv[1], '--join']))"
)


def test_a_second_launcher_waits_for_the_first(service: Service) -> None:
    assert service.notified.recv(100) == b"READY=1"
    command = [sys.executable, "-c", _ALONE, str(service.state)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert refused.returncode == 1
    assert "launcher_busy" in refused.stderr


_ALONE = (
    "import sys; from immured.service import launching; launching._LAUNCHER_WAIT_S = 0.2\n"
    "from immured.service.main import main; sys.exit(main(['--state', sys.argv[1], '--launcher-only']))"
)
