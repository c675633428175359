"""An installed immured: what systemd and the kernel say of it, and its command line."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from immured import Client
from tests.entries import entries_in
from tests.patience import PATIENCE_S

__all__ = ["BROKER", "LAUNCHER", "SOCKET", "STATE", "System"]

SOCKET: Final = "immured.socket"
LAUNCHER: Final = "immured-launcher.service"
BROKER: Final = "immured.service"
STATE: Final = Path("/var/lib/immured")
LISTENING: Final = Path("/run/immured/immured.sock")
CGROUP: Final = Path("/sys/fs/cgroup/system.slice") / LAUNCHER


class System:
    """`make` is the installer."""

    def __init__(self, make: Callable[..., None]) -> None:
        self.make = make

    def systemctl(self, *words: str, check: bool = True) -> str:
        """What systemctl says."""
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert not check or done.returncode == 0, done.stdout + done.stderr + self.journal()
        return done.stdout

    def shown(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "-P", name, unit).strip()

    def active(self, unit: str) -> str:
        """`active`, `inactive`, `failed`, ..."""
        return self.shown(unit, "ActiveState")

    def pid(self, unit: str) -> int:
        """Its main process."""
        return int(self.shown(unit, "MainPID"))

    def journal(self) -> str:
        """The last that both said."""
        words = ["journalctl", "--no-pager", "-n", "60", "-u", LAUNCHER, "-u", BROKER, "-u", SOCKET]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE_S).stdout

    def immure(self, *words: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """The installed command line; the system's socket and keys by itself, but for root's key."""
        prefix = [] if user is None else ["runuser", "-u", user, "--"]
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("IMMURE", "SUDO_", "PYTHON"))
        }
        clean |= {"IMMURE_KEY": str(STATE / "keys/admin.pem")} if user is None else {"HOME": f"/home/{user}"}
        return subprocess.run(
            [*prefix, "/usr/local/bin/immure", *words], capture_output=True, text=True, check=False,
            timeout=PATIENCE_S, cwd="/", env=clean,
        )  # fmt: skip

    def client(self) -> Client:
        """The admin's."""
        return Client(LISTENING, STATE / "keys/admin.pem", "/run/immured/daemon.pub", timeout=PATIENCE_S)

    def ledger(self, *kinds: str) -> list[dict[str, Any]]:
        """Entries of these types."""
        return [entry for entry in entries_in(STATE) if entry["type"] in kinds]

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.journal()
            time.sleep(0.05)

    @staticmethod
    def status(pid: int) -> dict[str, str]:
        """/proc/PID/status."""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @staticmethod
    def cgroup(pid: int) -> str:
        """Where a process is."""
        return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")

    @staticmethod
    def members() -> list[int]:
        """Every process of the launcher's unit, sandboxes too; what goes while it is looked at has none."""
        found: list[int] = []
        for place, _, _ in os.walk(CGROUP):
            with contextlib.suppress(OSError):
                found += map(int, Path(place, "cgroup.procs").read_text().split())
        return found
