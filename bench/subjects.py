"""What is measured: each subject starts `/bin/true` behind some walls, and says which walls."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import psutil

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.isolation.seccomp import compile_profile

COMMAND = "/bin/true"

#: What "equal isolation" means here: a subject that lacks one of these is named as unequal in the table.
WALLS = (
    "user",
    "mount",
    "pid",
    "network",
    "ipc",
    "uts",
    "cgroup",
    "no host root",
    "read-only /usr",
    "private /tmp, /dev, /proc",
    "no capabilities",
    "no new privileges",
    "seccomp: default class",
    "new session",
)
#: What the daemon does on top and nobody else here does.
BEYOND = ("time namespace", "signed", "ledgered", "own uid range", "cgroup of its own", "rlimits", "measured outcome")


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: `wall` and `cpu` in nanoseconds; `cpu` is None where only a total over many runs is known."""

    wall: int
    cpu: int | None


class Subject(Protocol):
    name: str
    walls: frozenset[str]

    def run(self) -> Sample: ...

    def cpu_total(self) -> int | None:
        """CPU nanoseconds of all its processes so far, where samples do not carry them."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Spawned:
    """A command started by a small C parent through vfork and exec: the floor, and every unsigned tool."""

    def __init__(self, name: str, command: Sequence[str], walls: Sequence[str], *, rewind: int | None = None) -> None:
        self.name = name
        self.walls = frozenset(walls)
        self._command = list(command)
        self._rewind = rewind
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [str(spawner()), "-" if self._rewind is None else str(self._rewind), *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            pass_fds=() if self._rewind is None else (self._rewind,),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)

    def run(self) -> Sample:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: {' '.join(self._command)} failed")
        wall, cpu = line.split()
        return Sample(int(wall), int(cpu))

    def cpu_total(self) -> int | None:
        return None


class Immured:
    """The daemon through one open connection: sign, send, wait for the signed and verified reply."""

    name = "immured"
    walls = frozenset((*WALLS, *BEYOND))

    def __init__(self) -> None:
        self._daemon = ThrowawayDaemon()
        self._client: Client | None = None

    def __enter__(self) -> Self:
        self._daemon.start()
        self._client = Client(
            socket=str(self._daemon.socket), key=str(self._daemon.admin_key), daemon_key=str(self._daemon.daemon_key)
        )
        self._client.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._client is not None
        self._client.__exit__(kind, error, trace)
        self._daemon.__exit__(kind, error, trace)

    def run(self) -> Sample:
        assert self._client is not None
        start = time.perf_counter_ns()
        result = self._client.run([COMMAND])
        wall = time.perf_counter_ns() - start
        if result.cause != "exited" or result.exit_code != 0:
            raise RuntimeError(f"immured: {COMMAND} ended with {result}")
        return Sample(wall, None)

    def cpu_total(self) -> int | None:
        """Broker, launcher, parker, wardens and all that they have waited for, and this client's own."""
        own = time.process_time_ns()
        tree = psutil.Process(self._daemon.pid)
        total = 0.0
        for process in (tree, *tree.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return own + round(total * 1e9)


@functools.cache
def spawner() -> Path:
    """Compile bench/spawn.c once per run of the suite."""
    target = Path(tempfile.mkdtemp(prefix="immured-bench-")) / "spawn"
    source = Path(__file__).with_name("spawn.c")
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(target), str(source)], check=True)
    atexit.register(shutil.rmtree, target.parent)
    return target


def floor() -> Spawned:
    return Spawned("floor", [COMMAND], ())


def bwrap(executable: str) -> Spawned:
    """bubblewrap with the walls of a default immured run, the very same seccomp program included."""
    program = os.memfd_create("seccomp", 0)
    os.write(program, compile_profile("default"))
    options = [
        "--unshare-all",
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--hostname",
        "sandbox",
        "--new-session",
        "--die-with-parent",
        "--ro-bind",
        "/usr",
        "/usr",
        "--symlink",
        "usr/bin",
        "/bin",
        "--symlink",
        "usr/sbin",
        "/sbin",
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
        "--dir",
        "/etc",
        *etc_binds(),
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "--chdir",
        "/",
        "--cap-drop",
        "ALL",
        "--clearenv",
        "--setenv",
        "PATH",
        "/usr/bin:/bin",
        "--seccomp",
        str(program),
    ]
    return Spawned("bwrap", [executable, *options, COMMAND], WALLS, rewind=program)


def etc_binds() -> list[str]:
    """The few files of /etc that the daemon's default view shows too."""
    names = ("ld.so.cache", "nsswitch.conf", "localtime", "alternatives", "services", "protocols", "ssl/certs")
    return [word for name in names for word in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")]
