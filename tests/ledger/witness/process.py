"""A real `immure ledger witness`, as a user without rights, and what may be said to it."""

from __future__ import annotations

import contextlib
import http.client
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from immured.ledger.checkpoint import CosignKey
from tests.patience import PATIENCE_S

__all__ = ["USER", "Process", "immure", "serving"]

USER = 64_390


def immure(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The command line."""
    called = [sys.executable, "-m", "immured.cli", *words]
    return subprocess.run(called, capture_output=True, text=True, timeout=PATIENCE_S, check=check)


class Process:
    """One that serves `state` at an address of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state
        if not (state / "witness.pem").exists():
            immure("ledger", "witness", "init", "--state", str(state), "--name", "witness.example/w1")
        if os.geteuid() == 0:
            give(state)
        self.key = CosignKey.parse((state / "witness.vkey").read_text().strip())
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self._log = state.with_name(state.name + ".log")

    def start(self, listen: str = "127.0.0.1:0") -> Process:
        """Serve, at the port that it had before."""
        if self.port and listen.endswith(":0"):
            listen = f"127.0.0.1:{self.port}"
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "immured.cli",
                    "ledger",
                    "witness",
                    "--state",
                    str(self.state),
                    "--listen",
                    listen,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            said = self._said()
        except BaseException:
            self.kill()
            raise
        if not listen.startswith("unix:"):
            self.port = int(said.rpartition(":")[2])
        return self

    def _said(self) -> str:
        """Where it listens."""
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            assert selector.select(PATIENCE_S), "it does not say that it listens"
        said = self._process.stdout.readline()
        assert "listens at" in said, self.log
        return said

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        """At once, with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._gone()

    def stop(self) -> int:
        """As an init asks it to; the exit status."""
        if self._process is None:
            return 0
        self._process.terminate()
        return self._gone()

    def _gone(self) -> int:
        assert self._process is not None
        status = self._process.wait(PATIENCE_S)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        return status

    def ask(self, body: bytes) -> tuple[int, bytes]:
        """One submission, by a connection of its own."""
        return self.request("POST", "/add-checkpoint", body)

    def request(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request(method, target, body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def connect(self) -> socket.socket:
        """Bytes as one likes."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def until_said(self, words: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while words not in self.log:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)


def give(state: Path) -> None:
    """Have the directory be the witness's user's."""
    for place in (state, *state.rglob("*")):
        os.chown(place, USER, USER)


@contextlib.contextmanager
def serving(state: Path) -> Iterator[Process]:
    """One that is stopped afterwards."""
    process = Process(state)
    process.start()
    try:
        yield process
    finally:
        process.stop()
