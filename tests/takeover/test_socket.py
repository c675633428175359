"""A taken-over broker at its end of the launcher's socket: whatever it says, nothing runs that should not, and the
launcher either says no and serves on, or ends with everything that it ran.

The witness is a payload that would write to a pipe. The rules of plan.c are tried one by one in tests/launcher; here
the launcher itself is asked, with its own wardens.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import itertools
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import immured
from immured.host.cgroup import cgroup2_mount
from immured.host.syscalls import landlock_abi
from immured.isolation import abi, messages
from immured.isolation.abi import BindFlag, Cause, Message, Op, Stage
from immured.isolation.landlock import landlock_rung, landlock_steps
from immured.isolation.messages import HEADER
from immured.isolation.plan import UNLIMITED, Step
from immured.isolation.sealed import sealed_memfd
from tests.launcher.harness import Broker, Packet, descendants, eventually, gone
from tests.launcher.test_plans import pack
from tests.patience import PATIENCE_S

PEER = 4321
SLOTS = 8
SLOT_BASE = 0x6200_0000 + os.getpid() % 32 * 8 * SLOTS * 65536  # of this suite: another may run beside it
ALLOW_ALL = struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)
GOT = b"got it"
NAMES = itertools.count()


def cgroup(tenant: bytes, sandbox: bytes) -> Step:
    return Step(Op.CGROUP, (0, 0, 0, 0, 0, 0), (tenant, sandbox))


def steps(**changes: Step | Sequence[Step] | None) -> list[Step]:
    """An honest plan for the witness, with steps replaced, added (by a new name, at its place) or left out (None)."""
    whole: dict[str, Step | Sequence[Step] | None] = {
        "deadlines": Step(Op.DEADLINES, (250 * 10**9, 0, 1)),
        "cgroup": cgroup(b"t", b"s-%d" % next(NAMES)),
        "collect": None,
        "rootfs": None,
        "mounts": None,
        "seal": Step(Op.SEAL_ROOT),
        "loopback": Step(Op.LOOPBACK),
        "rlimit": None,
        "identity": Step(Op.IDENTITY, (1000, 1000)),
        "drop": Step(Op.DROP_CAPABILITIES),
        "no_new_privs": Step(Op.NO_NEW_PRIVS),
        "landlock": landlock_steps(landlock_abi(), network=True),
        "seccomp": Step(Op.SECCOMP, (), (ALLOW_ALL,)),
        "exec": Step(Op.EXEC, (2,), (b"/", b"/bin/echo", GOT)),
        "after": None,
    }
    assert whole.keys() >= changes.keys()
    found: list[Step] = []
    for step in (whole | changes).values():
        found += [step] if isinstance(step, Step) else step or []
    return found


class Takeover(Broker):
    """The harness's broker, and what only a hostile one does."""

    def try_run(self, connection: int, plan: bytes) -> tuple[Packet, bytes]:
        """Prepare and GO at once; what came of it, and what the witness wrote."""
        read, write = os.pipe()
        try:
            run = self.prepare(connection, plan, fds=[self.null, write, self.null])
            os.close(write)
            self.go(run)
            packet = self.of_run(run)
            return packet, b"".join(iter(lambda: os.read(read, 4096), b""))
        finally:
            os.close(read)

    def honest(self) -> None:
        """The launcher still does what it is for."""
        with self.connection() as connection:
            packet, written = self.try_run(connection, pack(steps()))
        assert packet.type == Message.EXITED, packet.failed
        assert packet.exited.cause == Cause.EXITED
        assert written == GOT + b"\n"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Takeover]:
    """A launcher that answers no and lives on; every test asks it for an honest run in the end."""
    granted = tmp_path_factory.mktemp("granted")
    granted.chmod(0o755)
    directory = tmp_path_factory.mktemp("launcher")
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o011)  # what lets others pass is theirs to keep
    program = Path(immured.__file__).parent / "_native" / "immured-launcher"
    group = f"{cgroup2_mount()}/immured-takeover-{os.getpid()}"
    broker = Takeover(
        program, directory, slot_base=SLOT_BASE, slot_count=SLOTS, cgroup=group, grant_read=[str(granted)]
    )
    broker.granted = granted  # type: ignore[attr-defined]
    with contextlib.closing(broker):
        broker.ready()
        yield broker


@pytest.fixture
def launcher(own: Takeover) -> Iterator[Takeover]:
    yield own
    own.honest()


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Takeover]:
    """A launcher of one's own, for what ends it."""
    program = Path(immured.__file__).parent / "_native" / "immured-launcher"
    broker = Takeover(program, tmp_path, slot_base=SLOT_BASE + SLOTS * 65536, slot_count=SLOTS)
    with contextlib.closing(broker):
        broker.ready()
        yield broker


@contextlib.contextmanager
def connected_as(broker: Takeover, uid: int) -> Iterator[int]:
    """The number of a connection of this uid."""
    program = (
        "import os, socket, sys; uid = int(sys.argv[2]); os.setgroups([]); os.setresgid(uid, uid, uid);"
        "os.setresuid(uid, uid, uid); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()"
    )
    directory = os.open(broker.path.parent, os.O_PATH)
    path = f"/proc/self/fd/{directory}/{broker.path.name}"
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", program, path, str(uid)], stdin=subprocess.PIPE, pass_fds=[directory]
    ) as client:
        packet = broker.wait_for(lambda packet: packet.type == Message.CONN)
        for fd in packet.fds:
            os.close(fd)
        yield packet.id
        assert client.stdin is not None
        client.stdin.close()
    os.close(directory)
    broker.send(messages.encode_connection_closed(packet.id))


def test_the_witness_does_run_when_all_is_right(launcher: Takeover) -> None:
    launcher.honest()


# --- plans --------------------------------------------------------------------------------------------------------


def bind(source: str, flags: int = 0, target: str = "/mnt") -> Step:
    return Step(Op.BIND, (flags,), (source.encode(), target.encode()))


WALLS = ("deadlines", "cgroup", "seal", "identity", "drop", "no_new_privs", "seccomp", "exec")
FORBIDDEN: dict[str, list[Step]] = {
    **{f"without {name}": steps(**{name: None}) for name in WALLS},
    "identity: root": steps(identity=Step(Op.IDENTITY, (0, 0))),
    "identity: root's group": steps(identity=Step(Op.IDENTITY, (1000, 0))),
    "identity: nobody": steps(identity=Step(Op.IDENTITY, (65534, 1000))),
    "identity: the next slot's": steps(identity=Step(Op.IDENTITY, (65536 + 1000, 1000))),
    "identity: a host id": steps(identity=Step(Op.IDENTITY, (SLOT_BASE + 1000, SLOT_BASE + 1000))),
    "identity: minus one": steps(identity=Step(Op.IDENTITY, (UNLIMITED, 1000))),
    "identity: 2^32": steps(identity=Step(Op.IDENTITY, (1 << 32, 1 << 32))),
    "identity twice": steps(identity=[Step(Op.IDENTITY, (1000, 1000))] * 2),
    "the filter first": steps(drop=[Step(Op.SECCOMP, (), (ALLOW_ALL,)), Step(Op.DROP_CAPABILITIES)], seccomp=None),
    "an id after the filter": steps(after=Step(Op.IDENTITY, (1000, 1000))),
    "a mount after the seal": steps(loopback=bind("/etc")),
    "a second program": steps(after=Step(Op.EXEC, (1,), (b"/", b"/bin/true"))),
    "a rung that the kernel has not": steps(landlock=Step(Op.LANDLOCK, (landlock_rung(landlock_abi()) + 1, 0))),
    "a flag of Landlock's own": steps(landlock=Step(Op.LANDLOCK, (landlock_rung(landlock_abi()), 1 << 33))),
    "Landlock after the filter": steps(landlock=None, after=landlock_steps(landlock_abi() or 7, network=True)),
    "an empty filter": steps(seccomp=Step(Op.SECCOMP, (), (b"",))),
    "a filter of 4,097": steps(seccomp=Step(Op.SECCOMP, (), (ALLOW_ALL * 4097,))),
    "cgroup ..": steps(cgroup=cgroup(b"..", b"s")),
    "cgroup . ": steps(cgroup=cgroup(b"t", b".")),
    "cgroup of two levels": steps(cgroup=cgroup(b"t/u", b"s")),
    "cgroup of the root": steps(cgroup=cgroup(b"/", b"s")),
    "cgroup without a name": steps(cgroup=cgroup(b"", b"s")),
    "cgroup with a newline": steps(cgroup=cgroup(b"t", b"s\n")),
    "cgroup with a NUL": steps(cgroup=cgroup(b"t", b"s\0")),
    "cgroup of 65 letters": steps(cgroup=cgroup(b"t", b"s" * 65)),
    "a core for the host's handler": steps(rlimit=Step(Op.RLIMIT, (resource.RLIMIT_CORE, UNLIMITED, UNLIMITED))),
    "a core of nothing, which starts it too": steps(rlimit=Step(Op.RLIMIT, (resource.RLIMIT_CORE, 0, 0))),
    "no such limit": steps(rlimit=Step(Op.RLIMIT, (99, 0, 0))),
    "a target outside": steps(mounts=bind("/etc", target="/mnt/../../etc")),
    "the root as target": steps(mounts=bind("/etc", target="/")),
    "a source with ..": steps(mounts=bind("/usr/../root")),
    "a relative source": steps(mounts=bind("root")),
    "a flag of its own": steps(mounts=bind("/etc", flags=1 << 40)),
    "a setuid file": steps(mounts=Step(Op.FILE, (0o4755,), (b"/tmp/x", b"x"))),
    "a tmpfs without bound": steps(mounts=Step(Op.TMPFS, (0, 0, 0o700), (b"/tmp",))),
    "an operation of tomorrow": steps(after=Step(Op.EXEC, (1,), (b"/", b"/bin/true"))),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_plan_runs_nothing(launcher: Takeover, name: str) -> None:
    with launcher.connection() as connection:
        packet, written = launcher.try_run(connection, pack(FORBIDDEN[name]))
    assert packet.failed.stage == Stage.PLAN
    assert written == b""


@pytest.mark.skipif(landlock_rung(landlock_abi()) == 0, reason="this kernel has no Landlock to leave out")
def test_where_the_kernel_has_landlock_no_plan_is_without(launcher: Takeover) -> None:
    with launcher.connection() as connection:
        packet, written = launcher.try_run(connection, pack(steps(landlock=None)))
    assert (packet.failed.stage, written) == (Stage.PLAN, b"")


@pytest.mark.parametrize("count", [513, 0xFFFFFFFF])
def test_more_steps_than_there_are_read_nothing_beyond(launcher: Takeover, count: int) -> None:
    with launcher.connection() as connection:
        packet, written = launcher.try_run(connection, pack(steps(), count=count))
    assert (packet.failed.stage, written) == (Stage.PLAN, b"")


def test_a_plan_that_says_nothing_of_cores_has_the_launchers_limit(launcher: Takeover) -> None:
    program = b"import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
    with launcher.connection() as connection:
        python = Step(Op.EXEC, (3,), (b"/", b"/usr/bin/python3", b"-c", program))
        packet, written = launcher.try_run(connection, pack(steps(exec=python)))
    assert packet.exited.si_status == 0
    assert written == b"(1, 1)\n"


# --- paths: as the peer, or by a grant -------------------------------------------------------------------------------


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """What the peer may not read, in directories that it may pass."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o011)  # what lets others pass is theirs to keep
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "private" / "secret").write_text("secret")
    return tmp_path / "private"


def outcome(launcher: Takeover, mounts: Step | Sequence[Step]) -> tuple[int, bytes]:
    with connected_as(launcher, PEER) as connection:
        packet, written = launcher.try_run(connection, pack(steps(mounts=mounts)))
    return packet.failed.stage, written


def test_what_the_peer_may_not_read_is_not_opened_for_it(launcher: Takeover, private: Path) -> None:
    for path in (private, private / "secret", Path("/etc/shadow")):
        assert outcome(launcher, bind(str(path))) == (Stage.OPEN, b"")


def test_a_grant_that_there_is_not_opens_nothing(launcher: Takeover, private: Path) -> None:
    for path in (private, Path("/etc"), Path("/"), Path("/root")):
        assert outcome(launcher, bind(str(path), BindFlag.GRANTED)) == (Stage.OPEN, b"")


def test_a_grant_holds_only_what_lies_beneath(launcher: Takeover, private: Path) -> None:
    granted: Path = launcher.granted  # type: ignore[attr-defined]
    (granted / "out").symlink_to(private)
    (granted / "down").symlink_to("/etc")
    beside = Path(f"{granted}-beside")
    beside.mkdir(exist_ok=True)
    for path in (granted / "out", granted / "out" / "secret", granted / "down" / "shadow", beside):
        assert outcome(launcher, bind(str(path), BindFlag.GRANTED)) == (Stage.OPEN, b"")
    (granted / "out").unlink()
    (granted / "down").unlink()


def test_a_grant_to_read_is_none_to_write(launcher: Takeover) -> None:
    granted: Path = launcher.granted  # type: ignore[attr-defined]
    assert outcome(launcher, bind(str(granted), BindFlag.GRANTED | BindFlag.WRITE)) == (Stage.OPEN, b"")


def test_roots_trees_are_never_writable(launcher: Takeover, private: Path) -> None:
    private.parent.joinpath("open").mkdir()
    private.parent.joinpath("open").chmod(0o777)
    assert outcome(launcher, bind(str(private.parent / "open"), BindFlag.WRITE)) == (Stage.ROOT_OWNED, b"")
    with launcher.connection() as connection:  # of root itself
        packet, written = launcher.try_run(connection, pack(steps(mounts=bind("/home", BindFlag.WRITE))))
    assert (packet.failed.stage, written) == (Stage.ROOT_OWNED, b"")


def test_another_users_tree_is_not_writable_in_the_peers_name(launcher: Takeover, private: Path) -> None:
    others = private.parent / "others"
    others.mkdir()
    others.chmod(0o777)
    os.chown(others, PEER + 1, PEER + 1)
    assert outcome(launcher, bind(str(others), BindFlag.WRITE)) == (Stage.OPEN, b"")


@pytest.mark.parametrize("path", ["/proc", "/sys", "/proc/1", "/dev/null", "/proc/self/fd/3", str(cgroup2_mount())])
def test_the_kernels_own_files_are_not_to_be_had(launcher: Takeover, path: str) -> None:
    stage, written = outcome(launcher, bind(path))
    assert stage in (Stage.PATH_KIND, Stage.OPEN)
    assert written == b""


# --- connections -----------------------------------------------------------------------------------------------------


def test_a_number_that_nobody_has_opens_nothing(launcher: Takeover) -> None:
    for number in (0, 10**6, (1 << 64) - 1):
        packet, written = launcher.try_run(number, pack(steps()))
        assert (packet.failed.stage, written) == (Stage.PLAN, b"")


def test_a_number_whose_connection_was_closed_opens_nothing(launcher: Takeover) -> None:
    with launcher.connection() as connection:
        pass
    packet, written = launcher.try_run(connection, pack(steps()))
    assert (packet.failed.stage, written) == (Stage.PLAN, b"")


def test_a_number_is_never_another_peers_later(launcher: Takeover) -> None:
    with launcher.connection() as first:
        pass
    with connected_as(launcher, PEER) as second:
        assert second > first
        packet, _ = launcher.try_run(first, pack(steps()))
    assert packet.failed.stage == Stage.PLAN


def test_a_low_peers_connection_gives_a_low_peers_rights_whoever_else_is_connected(
    launcher: Takeover, private: Path
) -> None:
    with launcher.connection():  # root's
        assert outcome(launcher, bind(str(private))) == (Stage.OPEN, b"")


# --- descriptors -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def descriptor(kind: str, launcher: Takeover) -> Iterator[int]:
    sockets, poll = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET), select.epoll()
    makers: dict[str, Callable[[], int]] = {
        "a directory": lambda: os.open("/", os.O_RDONLY),
        "a path": lambda: os.open("/etc/passwd", os.O_PATH),
        "a path to a directory": lambda: os.open("/root", os.O_PATH),
        "a device": lambda: os.open("/dev/zero", os.O_RDWR),
        "the kernel's messages": lambda: os.open("/dev/kmsg", os.O_WRONLY),
        "a terminal": lambda: os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY),
        "a process": lambda: os.pidfd_open(launcher.process.pid),
        "the control socket": lambda: os.dup(launcher.sock.fileno()),
        "the wardens' socket": lambda: os.dup(launcher.ends.fileno() if launcher.ends else -1),
        "a packet socket": lambda: os.dup(sockets[0].fileno()),
        "a poll": lambda: os.dup(poll.fileno()),
        "an event": lambda: os.eventfd(0) if hasattr(os, "eventfd") else os.open("/dev/zero", os.O_RDONLY),
    }
    fd = makers[kind]()
    try:
        yield fd
    finally:
        os.close(fd)
        poll.close()
        for one in sockets:
            one.close()


KINDS = (
    *("a directory", "a path", "a path to a directory", "a device", "the kernel's messages", "a terminal", "a process"),
    *("the control socket", "the wardens' socket", "a packet socket", "a poll", "an event"),
)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_no_descriptor_that_leads_anywhere_else_becomes_the_payloads(launcher: Takeover, kind: str, place: int) -> None:
    with launcher.connection() as connection, descriptor(kind, launcher) as fd:
        read, write = os.pipe()
        fds = [launcher.null, write, launcher.null]
        fds[place] = fd
        run = launcher.prepare(connection, pack(steps()), fds=fds)
        os.close(write)
        launcher.go(run)
        assert launcher.of_run(run).failed.stage == Stage.PROCESS
        assert os.read(read, 1) == b""
        os.close(read)


JOIN = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
answers = [libc.setns(0, 0) and ctypes.get_errno()]
print(answers, libc.unshare(0x10000000) and ctypes.get_errno() in (1, 28))
"""


@pytest.mark.parametrize("kind", ["user", "mnt", "net", "pid", "cgroup", "ipc", "uts"])
def test_a_namespace_of_the_hosts_that_is_handed_in_cannot_be_joined(launcher: Takeover, kind: str) -> None:
    """It calls itself a regular file. With every call allowed, the kernel itself says no: there is no right left."""
    namespace = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY)
    program = Step(Op.EXEC, (3,), (b"/", b"/usr/bin/python3", b"-c", JOIN.encode()))
    read, write = os.pipe()
    with launcher.connection() as connection:
        run = launcher.prepare(connection, pack(steps(exec=program)), fds=[namespace, write, launcher.null])
        os.close(write)
        launcher.go(run)
        launcher.of_run(run)
    os.close(namespace)
    with os.fdopen(read) as output:
        assert output.read() == "[1] True\n"


def gate_of(fd: int) -> Callable[[Takeover, int, bytes], int]:
    def prepare(launcher: Takeover, connection: int, plan: bytes) -> int:
        launcher.runs += 1
        data = messages.encode_prepare(launcher.runs, connection, plan, in_memfd=False)
        launcher.send(data, [launcher.null] * 3 + [fd])
        return launcher.runs

    return prepare


@pytest.mark.parametrize("path", ["/dev/zero", "/etc/passwd", "/"])
def test_go_comes_through_a_pipe_or_not_at_all(launcher: Takeover, path: str) -> None:
    """What is always readable would be a GO that nobody gave; what blocks for ever would be nobody's to end."""
    fd = os.open(path, os.O_RDONLY)
    try:
        with launcher.connection() as connection:
            run = gate_of(fd)(launcher, connection, pack(steps()))
            assert launcher.of_run(run).failed.stage == Stage.PROCESS
    finally:
        os.close(fd)


def test_a_gate_that_closes_without_a_word_calls_the_run_off(launcher: Takeover) -> None:
    with launcher.connection() as connection:
        read, write = os.pipe()
        run = launcher.prepare(connection, pack(steps()), fds=[launcher.null, write, launcher.null])
        os.close(write)
        launcher.call_off(run)
        assert launcher.of_run(run).failed.stage == Stage.KILLED
        assert os.read(read, 1) == b""
        os.close(read)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 16])
def test_a_plan_with_other_than_its_descriptors_is_none(launcher: Takeover, count: int) -> None:
    with launcher.connection() as connection:
        launcher.runs += 1
        data = messages.encode_prepare(launcher.runs, connection, pack(steps()), in_memfd=False)
        launcher.send(data, [launcher.null] * count)
        assert launcher.of_run(launcher.runs).failed.stage == Stage.PLAN


def test_only_a_pipe_without_a_name_becomes_the_payloads_own(launcher: Takeover, tmp_path: Path) -> None:
    """Called the broker's own, a file, a FIFO with a name and a socket still keep their owner."""
    victim, fifo = tmp_path / "victim", tmp_path / "fifo"
    victim.write_text("")
    os.mkfifo(fifo)
    for path in (victim, fifo):
        fd = os.open(path, os.O_RDWR)
        with launcher.connection() as connection:
            launcher.runs += 1
            data = messages.encode_prepare(launcher.runs, connection, pack(steps()), in_memfd=False, ours=(0, 1, 2))
            gate, go = os.pipe()
            launcher.send(data, [launcher.null, fd, launcher.null, gate])
            os.write(go, b"g")
            assert launcher.of_run(launcher.runs).exited.cause == Cause.EXITED
            for one in (gate, go, fd):
                os.close(one)
        assert path.stat().st_uid == 0


# --- plans in memory files -----------------------------------------------------------------------------------------


def unsealed(plan: bytes) -> int:
    fd = os.memfd_create("plan", os.MFD_ALLOW_SEALING)
    os.write(fd, plan)
    return fd


def half_sealed(plan: bytes) -> int:
    fd = unsealed(plan)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def short(plan: bytes) -> int:
    return sealed_memfd("plan", plan[:-8])


def long(plan: bytes) -> int:
    return sealed_memfd("plan", plan + bytes(8))


def a_file(plan: bytes) -> int:
    fd = os.open("/tmp", os.O_RDWR | os.O_TMPFILE)
    os.write(fd, plan)
    return fd


def a_pipe(plan: bytes) -> int:
    read, write = os.pipe()
    os.write(write, plan)
    os.close(write)
    return read


def a_directory(plan: bytes) -> int:
    return os.open("/", os.O_RDONLY)


@pytest.mark.parametrize("make", [unsealed, half_sealed, short, long, a_file, a_pipe, a_directory])
def test_a_plan_that_could_change_after_it_was_checked_is_none(
    launcher: Takeover, make: Callable[[bytes], int]
) -> None:
    plan = pack(steps())
    with launcher.connection() as connection:
        launcher.runs += 1
        fd, (gate, go) = make(plan), os.pipe()
        data = messages.encode_prepare(launcher.runs, connection, plan, in_memfd=True)
        launcher.send(data, [fd, *[launcher.null] * 3, gate])
        assert launcher.of_run(launcher.runs).failed.stage == Stage.PLAN
        for one in (fd, gate, go):
            os.close(one)


@pytest.mark.parametrize("length", [0, 1, abi.MAX_PLAN + 1, 0xFFFFFFFF])
def test_a_length_that_lies_is_refused(launcher: Takeover, length: int) -> None:
    plan = pack(steps())
    with launcher.connection() as connection:
        for in_memfd in (False, True):
            launcher.runs += 1
            data = bytearray(messages.encode_prepare(launcher.runs, connection, plan, in_memfd=in_memfd))
            struct.pack_into("=I", data, HEADER.size + 8, length)
            image, (gate, go) = sealed_memfd("plan", plan), os.pipe()
            launcher.send(bytes(data), ([image] if in_memfd else []) + [*[launcher.null] * 3, gate])
            assert launcher.of_run(launcher.runs).failed.stage == Stage.PLAN
            for one in (image, gate, go):
                os.close(one)


# --- messages --------------------------------------------------------------------------------------------------------


def test_what_is_over_and_what_is_not_ours_cannot_be_killed(launcher: Takeover) -> None:
    """A number is a run of this socket's; there is no other way to name a process."""
    before = set(descendants(launcher.process.pid))
    for number in (0, 1, launcher.process.pid, os.getpid(), (1 << 64) - 1):
        for cause in (0, 7, 99, 0xFFFFFFFF):
            launcher.send(HEADER.pack(Message.KILL, HEADER.size + 8, number) + struct.pack("=II", cause, 0))
    launcher.honest()
    assert launcher.process.poll() is None
    assert before & set(descendants(launcher.process.pid))


def test_a_cause_of_ones_own_is_only_repeated(launcher: Takeover) -> None:
    with launcher.connection() as connection:
        run = launcher.prepare(connection, pack(steps(exec=Step(Op.EXEC, (2,), (b"/", b"/bin/sleep", b"1000")))))
        launcher.send(HEADER.pack(Message.KILL, HEADER.size + 8, run) + struct.pack("=II", 0xFFFFFFFF, 7))
        assert launcher.of_run(run).type in (Message.FAILED, Message.EXITED)


def test_a_flood_of_what_is_refused_costs_the_launcher_no_memory_and_nobody_else_an_answer(launcher: Takeover) -> None:
    def resident() -> int:
        return int(Path(f"/proc/{launcher.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{launcher.process.pid}/fd"))

    launcher.honest()
    before, open_before = resident(), descriptors()
    plan = pack(steps(identity=Step(Op.IDENTITY, (0, 0))))
    with launcher.connection() as connection:
        for _ in range(20):
            runs = [launcher.prepare(connection, plan) for _ in range(100)]
            for run in runs:
                assert launcher.of_run(run).failed.stage == Stage.PLAN
                launcher.call_off(run)
        for number in range(20_000):
            launcher.send(messages.encode_connection_closed(10**9 + number))
    launcher.honest()
    assert resident() - before < 4 << 20
    assert eventually(lambda: descriptors() <= open_before + 2)


def test_more_runs_than_cells_wait_and_none_shares_a_cell(launcher: Takeover) -> None:
    with launcher.connection() as connection:
        sleeper = Step(Op.EXEC, (2,), (b"/", b"/bin/sleep", b"1000"))
        runs = [launcher.prepare(connection, pack(steps(exec=sleeper))) for _ in range(SLOTS + 4)]
        for run in runs:
            launcher.go(run)
        assert eventually(lambda: len(sleeping()) >= SLOTS - 4)
        time.sleep(0.2)
        uids = sleeping()
        assert len(uids) == len(set(uids))
        assert len(uids) <= SLOTS
        for run in runs:
            launcher.kill(run)
        for run in runs:
            launcher.of_run(run)


def sleeping() -> list[int]:
    """The uid of each payload that sleeps."""
    owners = [_sleepers_uid(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [uid for uid in owners if uid is not None]


def _sleepers_uid(entry: Path) -> int | None:
    with contextlib.suppress(OSError):  # it may end while it is looked at
        uid = entry.stat().st_uid
        if SLOT_BASE <= uid < SLOT_BASE + SLOTS * 65536 and (entry / "cmdline").read_bytes() == b"/bin/sleep\x001000\0":
            return uid
    return None


def packet(kind: int, length: int, number: int = 1, body: bytes = b"") -> bytes:
    return HEADER.pack(kind, length, number) + body


BREACHES: dict[str, bytes] = {
    "an unknown type": packet(77, HEADER.size),
    "a type of the launcher's own": packet(Message.READY, HEADER.size),
    "an outcome of its own": packet(Message.EXITED, HEADER.size + 128, 1, bytes(128)),
    "half a header": b"half",
    "a length too long": packet(Message.STOP, HEADER.size + 1),
    "a length too short": packet(Message.STOP, 0),
    "a plan without a body": packet(Message.PREPARE, HEADER.size),
    "a kill without a cause": packet(Message.KILL, HEADER.size),
    "a kill with more than a cause": packet(Message.KILL, HEADER.size + 16, 1, bytes(16)),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_of_the_protocol_ends_the_launcher_and_all_that_it_ran(victim: Takeover, name: str) -> None:
    with victim.connection() as connection:
        run = victim.prepare(connection, pack(steps(exec=Step(Op.EXEC, (2,), (b"/", b"/bin/sleep", b"1000")))))
        victim.go(run)
        victim.honest()
        kin = descendants(victim.process.pid)
        victim.send(BREACHES[name])
        assert victim.process.wait(PATIENCE_S) == 1
        assert eventually(lambda: all(gone(pid) for pid in kin))


def test_a_number_that_is_in_use_ends_it_too(victim: Takeover) -> None:
    """It would be two runs by one name: whose end would be whose?"""
    with victim.connection() as connection:
        plan = pack(steps(exec=Step(Op.EXEC, (2,), (b"/", b"/bin/sleep", b"1000"))))
        first = victim.prepare(connection, plan)
        victim.go(first)
        victim.prepare(connection, plan, run=first)
        assert victim.process.wait(PATIENCE_S) == 1


def test_descriptors_where_none_belong_are_dropped(launcher: Takeover) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{launcher.process.pid}/fd"))

    before = descriptors()
    for data in (messages.encode_connection_closed(10**9), messages.encode_kill(10**9, Cause.KILLED)):
        for _ in range(50):
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [launcher.null] * 16))]
            launcher.sock.sendmsg([data], control, socket.MSG_NOSIGNAL)
    launcher.honest()
    assert eventually(lambda: descriptors() <= before + 2)


def test_a_sandbox_cannot_be_named_twice_at_a_time(launcher: Takeover) -> None:
    """Its cgroup is its own: a second run in it would be killed, counted and limited with the first."""
    with launcher.connection() as connection:
        sleeper = Step(Op.EXEC, (2,), (b"/", b"/bin/sleep", b"1000"))
        first = launcher.prepare(connection, pack(steps(cgroup=cgroup(b"t", b"mine"), exec=sleeper)))
        launcher.go(first)
        assert eventually(lambda: bool(sleeping()))
        second, written = launcher.try_run(connection, pack(steps(cgroup=cgroup(b"t", b"mine"))))
        assert (second.failed.stage, written) == (Stage.CGROUP, b"")
        launcher.kill(first)
        launcher.of_run(first)


def test_the_attempts_are_by_an_interpreter_that_everybody_may_run() -> None:
    assert os.access("/usr/bin/python3", os.X_OK)
    assert sys.executable
