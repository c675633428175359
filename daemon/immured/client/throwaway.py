"""A real daemon on a throw-away state directory: what the demo, the tests and the benchmarks start.

Nothing here is a stand-in: `immured` runs in its own process, as root, on a real socket. Only its state is temporary.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from immured.client.sync import Client
from immured.errors import ConfigurationError
from immured.ledger.disk import set_append_only

__all__ = ["ThrowawayDaemon"]

START_SECONDS = 120.0  # a virtual machine without hardware help takes several, and on a busy host ten times that
STOP_SECONDS = 120.0


class ThrowawayDaemon:
    """`with ThrowawayDaemon() as daemon:` gives a serving daemon; leaving stops it and removes what it had.

    `state` is the state directory, `socket` the socket, `admin_key` the key that may do everything. With `state` given,
    that directory is used as it is (it must have been initialised) and is kept.
    """

    def __init__(self, *, state: Path | None = None, options: Sequence[str] = (), keep: bool = False) -> None:
        self._made = state is None
        self._keep = keep or not self._made
        if state is None:
            # Callers of any uid reach the socket, so no 0700 parent.
            parent = Path(tempfile.mkdtemp(prefix="immured-"))
            parent.chmod(0o711)
            state = parent / "state"
            self.immure("init", "--state", str(state))
        self.state = state
        self.socket = state / "immured.sock"
        self.admin_key = state / "keys" / "admin.pem"
        self.daemon_key = state / "keys" / "daemon.pub"
        self.log = state.parent / f"{state.name}.log"
        self._options = list(options)
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def immure(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the `immure` of this very interpreter."""
        return subprocess.run(
            [sys.executable, "-m", "immured.cli", *arguments],
            check=check,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            stdin=subprocess.DEVNULL,
        )

    @property
    def pid(self) -> int:
        return self._started().pid

    def client(self, key: Path | None = None) -> Client:
        """A client of it that pins its key; by default with the key that may do everything."""
        return Client(socket=str(self.socket), key=str(key or self.admin_key), daemon_key=str(self.daemon_key))

    def start(self) -> ThrowawayDaemon:
        """Start and wait until it accepts connections."""
        read, write = os.pipe()
        with self.log.open("ab") as log, os.fdopen(read, "rb") as ready:
            options = ["--state", str(self.state), "--ready-fd", str(write), *self._options]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "immured.service", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write,),
                start_new_session=True,
            )
            os.close(write)
            os.set_blocking(ready.fileno(), False)
            deadline = time.monotonic() + START_SECONDS
            while not ready.read():
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    said = self.log.read_text(errors="replace")[-4000:]
                    last = said.strip().rsplit("\n", 1)[-1] or f"nothing was said in {START_SECONDS:g} s"
                    raise ConfigurationError(
                        "daemon_not_started",
                        f"immured did not begin to serve: {last}",
                        f"read {self.log}",
                        details={"log": said},
                    )
                time.sleep(0.005)
        return self

    def stop(self) -> int:
        """Ask for a graceful stop, wait for it, and return the exit status."""
        process = self._started()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        status: int = process.returncode
        return status

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise ConfigurationError("daemon_not_started", "this daemon was not started", "use it in a with statement")
        return self.process

    def kill(self) -> None:
        """End it as a power failure of the process would: SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)

    def __enter__(self) -> ThrowawayDaemon:
        try:
            return self.start()
        except BaseException:
            self._remove()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self._let_go()
            self._remove()

    def _let_go(self) -> None:
        """What is sealed of a ledger cannot be removed while it is append-only: not by who gave the directory."""
        for path in (self.state / "ledger").glob("*.jsonl"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                set_append_only(file.fileno(), wanted=False)

    def _remove(self) -> None:
        if not self._keep:
            shutil.rmtree(self.state.parent, ignore_errors=True)
