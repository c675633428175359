"""OpenSSH's own ssh-agent, for tests, and its tools."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.patience import PATIENCE_S, until


class SshAgent:
    """A running agent. `environment` points a program at it."""

    def __init__(self, path: Path) -> None:
        assert shutil.which("ssh-agent"), "install openssh-client"
        self.path = path
        self.environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(self.path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            until(self._listens)
        except BaseException:
            self.stop()
            raise

    def _listens(self) -> bool:
        """Whether it accepts: between bind() and listen() its socket is there, and refuses."""
        assert self._process is not None
        assert self._process.poll() is None, "ssh-agent ended"
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.path)) == 0

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(PATIENCE_S)
        self.path.unlink(missing_ok=True)

    def add(self, key: Path, *options: str) -> None:
        self.tell("ssh-add", *options, str(key))

    def tell(self, *command: str, given: str = "") -> None:
        subprocess.run(
            command, check=True, env=self.environment, input=given, text=True, capture_output=True, timeout=PATIENCE_S
        )


@contextlib.contextmanager
def ssh_agent(directory: Path) -> Iterator[SshAgent]:
    """One that is ended when it is left."""
    agent = SshAgent(directory / "agent.sock")
    try:
        yield agent
    finally:
        agent.stop()


def make_key(path: Path, *, kind: str = "ed25519", comment: str = "") -> Path:
    """A private key as ssh-keygen makes it; its .pub stands beside it."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment or path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_S)
    return path
