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
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.isolation.seccomp import compile_profile
from immured.wire.keys import PublicKey

COMMAND = "/bin/true"

SAME_VIEW = "the same view of /etc, /proc and /dev"
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
    SAME_VIEW,
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
        rewound = "-" if self._rewind is None else str(self._rewind)
        self._process = _answering(
            [str(compiled("spawn")), rewound, *self._command],
            descriptors=() if self._rewind is None else (self._rewind,),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        _end(self._process)

    def run(self) -> Sample:
        assert self._process is not None
        return Sample(*_ask(self._process, self.name))

    def cpu_total(self) -> int | None:
        return None


class Immured:
    """The daemon through one open connection: sign, send, wait for the signed reply, verify it.

    `native`: by bench/client.c, as bwrap is started by spawn.c; else by the Python SDK, whose own time then counts too.
    """

    walls = frozenset((*WALLS, *BEYOND))

    def __init__(self, daemon: ThrowawayDaemon, *, native: bool) -> None:
        self.name = "immured" if native else "immured, Python SDK"
        self._daemon = daemon
        self._native = native
        self._client: Client | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        if self._native:
            seed = _raw_seed(self._daemon.admin_key)
            daemon_key = PublicKey.from_pem(self._daemon.daemon_key.read_bytes()).raw.hex()
            client = compiled("client", "-lsodium")
            self._process = _answering([str(client), str(self._daemon.socket), seed, daemon_key, COMMAND])
        else:
            self._client = self._daemon.client()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()
        if self._process is not None:
            _end(self._process)

    def run(self) -> Sample:
        if self._process is not None:
            return Sample(_ask(self._process, self.name)[0], None)
        assert self._client is not None
        start = time.perf_counter_ns()
        result = self._client.run([COMMAND])
        wall = time.perf_counter_ns() - start
        if result.cause != "exited" or result.exit_code != 0:
            raise RuntimeError(f"immured: {COMMAND} ended with {result}")
        return Sample(wall, None)

    def cpu_total(self) -> int | None:
        """Broker, launcher, parker, wardens and all that they have waited for, and the client's own."""
        tree = [psutil.Process(self._daemon.pid), *psutil.Process(self._daemon.pid).children(recursive=True)]
        if self._process is not None:
            tree.append(psutil.Process(self._process.pid))
        total = 0.0 if self._process is not None else time.process_time()
        for process in tree:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return round(total * 1e9)


def _raw_seed(pem: Path) -> str:
    """A throw-away daemon's admin key, in hex: for a client that reads no PEM."""
    key = load_pem_private_key(pem.read_bytes(), None)
    return key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()).hex()


def _answering(command: Sequence[str], *, descriptors: Sequence[int] = ()) -> subprocess.Popen[str]:
    """A program that answers each line on its stdin with one line of two numbers."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        pass_fds=descriptors,
    )


def _ask(process: subprocess.Popen[str], name: str) -> tuple[int, int]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{name} failed; it said why above")
    wall, cpu = line.split()
    return int(wall), int(cpu)


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(10)


@functools.cache
def compiled(name: str, *libraries: str) -> Path:
    """bench/<name>.c, compiled once per run of the suite."""
    target = Path(tempfile.mkdtemp(prefix="immured-bench-")) / name
    atexit.register(shutil.rmtree, target.parent)
    source = Path(__file__).with_name(f"{name}.c")
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(target), str(source), *libraries], check=True)
    return target


def floor() -> Spawned:
    return Spawned("floor", [COMMAND], ())


def view_of(client: Client) -> list[str]:
    """The places that a default run has mounted, in order."""
    mounts = client.run(["/bin/cat", "/proc/self/mounts"]).stdout.decode()
    return [line.split()[1] for line in mounts.splitlines()]


def bwrap(executable: str, view: Sequence[str] = ()) -> Spawned:
    """bubblewrap with the walls of a default immured run, the very same seccomp program included.

    With `view` (view_of) it shows and hides what such a run does: the same files of /etc, the same parts of /proc
    covered. Without, it is what people type: fewer mounts, and so less hidden.
    """
    program = os.memfd_create("seccomp", 0)
    os.write(program, compile_profile("default"))
    namespaces = "--unshare-all --uid 1000 --gid 1000 --hostname sandbox --new-session --die-with-parent"
    programs = "--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/sbin /sbin --symlink usr/lib /lib"
    places = "--symlink usr/lib64 /lib64 --dir /etc --proc /proc --dev /dev --tmpfs /tmp --chdir /"
    privileges = f"--cap-drop ALL --clearenv --setenv PATH /usr/bin:/bin --seccomp {program}"
    etc = [place for place in view if place.startswith("/etc/")] or ETC
    words = f"{namespaces} {programs} {places}".split()
    words += [word for name in etc for word in ("--ro-bind-try", name, name)]
    words += [word for place in view for word in COVERS.get(place, ())]
    same = bool(view)
    return Spawned(
        "bwrap" if same else "bwrap, short",
        [executable, *words, *privileges.split(), COMMAND],
        WALLS if same else [wall for wall in WALLS if wall != SAME_VIEW],
        rewind=program,
    )


ETC = [f"/etc/{name}" for name in "ld.so.cache nsswitch.conf localtime alternatives services protocols".split()]
#: What hides or adds the same in bwrap's words; it covers /proc/sys, /proc/irq and /proc/bus by itself.
COVERS = {
    "/dev/mqueue": ("--mqueue", "/dev/mqueue"),
    "/dev/shm": ("--tmpfs", "/dev/shm"),
    "/proc/fs": ("--ro-bind", "/proc/fs", "/proc/fs"),
    "/proc/acpi": ("--tmpfs", "/proc/acpi", "--remount-ro", "/proc/acpi"),
    "/proc/scsi": ("--tmpfs", "/proc/scsi", "--remount-ro", "/proc/scsi"),
    **{
        f"/proc/{name}": ("--ro-bind", "/dev/null", f"/proc/{name}")
        for name in ("interrupts", "kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats")
    },
}
