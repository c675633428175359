"""PID 1, which explains: what is done to it, what it may do, and what comes of it when it is slow, flooded or raced."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from immured.isolation import abi
from immured.isolation.abi import Cause, Op, ViolationKind
from immured.isolation.messages import Exited
from immured.isolation.plan import Step
from immured.isolation.seccomp import compile_profile
from tests.patience import PATIENCE_S
from tests.walls.unanswering import UnansweringMount
from tests.warden.cell import Cell, Peer, Pipes, Run, Wish, bind, python

BASE = compile_profile("default")
EXPLAINED = compile_profile("default", explain=True)
CAP_SYS_PTRACE = 1 << 19
MOST = abi.MAX_VIOLATIONS
WALL_S = 100.0  # less than the patience with a cell
FLOOD = 20_000  # calls: a virtual machine takes 0.3 ms for each, and one on a busy host several times that


def explained(argv: list[str], *, halt: bool = False, programs: Path | None = None) -> Wish:
    mounts = [bind(programs, "/programs")] if programs else []
    return Wish(argv, program=BASE, explained=EXPLAINED, halt=halt, mounts=mounts, wall_s=WALL_S)


def init_of(cell: Cell) -> int:
    """PID 1, as the host counts."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for child in Path(f"/proc/{cell.process.pid}/task/{cell.process.pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                names = dict(line.split(":\t", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines())
                if names["NSpid"].split()[-1] == "1":
                    return int(child)
    raise TimeoutError("no PID 1")


class Going:
    """A run that is under way, and reads nothing until it is told something."""

    def __init__(self, cell: Cell, wish: Wish, peer: Peer | None = None) -> None:
        self.cell = cell
        self.pipes = Pipes(b"")
        read, self._write = os.pipe()
        cell.order(wish.packed(), [read, *self.pipes.theirs[1:]], peer or Peer())
        os.close(read)
        self.pipes.close_theirs()
        cell.go()

    def tell(self) -> None:
        """One byte. It may be over already."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._write, b"x")

    def end(self) -> Run:
        os.close(self._write)
        report, files = self.cell.outcome()
        assert isinstance(report, Exited), report
        return Run(report, *self.pipes.read_all(), files)


# Once it is told to: what should be refused and what should not, and how long the slowest took.
WORK = """
import ctypes, errno, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
os.read(0, 1)
def unshare():
    if libc.unshare(0x10000000) < 0: raise OSError(ctypes.get_errno(), "unshare")
results, slowest = [], 0
for act in (
    lambda: os.open("/tmp/allowed", os.O_WRONLY | os.O_CREAT), lambda: os.open("/usr/new", os.O_WRONLY | os.O_CREAT),
    unshare, lambda: os.mkdir("/tmp/made"), lambda: os.chmod("/tmp/made", 0o4700),
):
    before = time.monotonic()
    try:
        act()
        results.append("0")
    except OSError as error:
        results.append(errno.errorcode[error.errno])
    slowest = max(slowest, time.monotonic() - before)
print(*results, slowest, flush=True)
"""


def test_pid_1_may_look_into_the_payload_and_do_nothing_else(cell: Cell) -> None:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{init_of(cell)}/status").read_text().splitlines())
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm")} == {CAP_SYS_PTRACE}
    assert {int(status[name], 16) for name in ("CapInh", "CapBnd", "CapAmb")} == {0}
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    uids = [int(one) - cell.slot_base for one in status["Uid"].split()]
    assert uids == [0, 0, 0, abi.PAYLOAD_ID]
    assert os.readlink(f"/proc/{init_of(cell)}/ns/user") != os.readlink("/proc/self/ns/user")


def test_pid_1_has_its_leash_and_no_other_descriptor_until_a_run(cell: Cell) -> None:
    assert os.listdir(f"/proc/{init_of(cell)}/fd") == ["0"]


def test_with_pid_1_stopped_everything_is_answered_as_before(cell: Cell) -> None:
    going = Going(cell, explained(python(WORK)))
    os.kill(init_of(cell), signal.SIGSTOP)
    going.tell()
    run = going.end()
    *results, longest = run.succeeded().split()
    assert results == ["0", "EROFS", "EPERM", "0", "EPERM"]
    # 50 ms for each: who waited for PID 1 itself would wait for good.
    assert float(longest) < 20
    assert run.outcome.violation_counts[ViolationKind.SYSCALL - 1] == 2


def test_a_pid_1_that_comes_to_itself_explains_again(cell: Cell) -> None:
    later = """
os.read(0, 1)
for _ in range(20):
    time.sleep(0.1)
    try: os.mkdir("/usr/later")
    except OSError: pass
"""
    read, write = os.pipe()
    output, told = os.pipe()
    with open("/dev/null", "wb") as null:
        cell.order(explained(python(WORK + later)).packed(), [read, told, null.fileno()])
    for fd in (read, told):
        os.close(fd)
    cell.go()
    init = init_of(cell)
    os.kill(init, signal.SIGSTOP)
    os.write(write, b"x")
    with open(output, "rb") as lines:
        assert lines.readline().startswith(b"0 EROFS EPERM")
    os.kill(init, signal.SIGCONT)
    os.write(write, b"x")
    os.close(write)
    report, _ = cell.outcome()
    assert isinstance(report, Exited)
    assert b"/usr/later" in [one.target for one in report.violations]


def test_stopped_again_and_again_it_holds_up_nobody_for_good(cell: Cell, programs: Path) -> None:
    until_told = (
        "import select, subprocess\n"
        "while not select.select([0], [], [], 0)[0]:\n"
        "    subprocess.run(['/programs/flood', '/tmp', '1000', 'vary'], check=True)\n"
    )
    going = Going(cell, explained(python(until_told), programs=programs))
    going.pipes.wait_for(b"\n")
    init = os.pidfd_open(init_of(cell))
    for _ in range(20):
        signal.pidfd_send_signal(init, signal.SIGSTOP)
        time.sleep(0.1)
        signal.pidfd_send_signal(init, signal.SIGCONT)
        time.sleep(0.005)
    os.close(init)
    going.tell()
    run = going.end()
    assert set(run.succeeded().splitlines()) == {"1000 0"}
    assert run.outcome.unexplained > 0


# Takes a processor away from everybody else, for less than the kernel lets anything do so (sched(7): 0.95 s of each).
HOG = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
os.write(1, b"x")
end = time.monotonic() + 0.5
while time.monotonic() < end: pass
"""


@pytest.fixture
def hog(cell: Cell) -> Iterator[Callable[[], None]]:
    """Leaves PID 1 without a processor for half a second. Warden and payload have another, where there is one."""
    mine = os.sched_getaffinity(0)
    taken, left = min(mine), max(mine)
    os.sched_setaffinity(init_of(cell), {taken})
    for process in (cell.process.pid, 0):
        os.sched_setaffinity(process, {left})
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, mine)

        def begin() -> None:
            command = [sys.executable, "-I", "-c", HOG, str(taken)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            assert process.stdout is not None
            assert process.stdout.read(1) == b"x"

        yield begin


LATER = (
    "import os, sys\nprint('ready', flush=True)\nsys.stdin.read(1)\ntry: os.mkdir('/usr/later')\nexcept OSError: pass\n"
)


@pytest.mark.parametrize(("halt", "cause"), [(False, Cause.EXITED), (True, Cause.VIOLATION)])
def test_a_pid_1_that_gets_no_processor_is_waited_for(
    cell: Cell, hog: Callable[[], None], halt: bool, cause: Cause
) -> None:
    read, write = os.pipe()
    output, told = os.pipe()
    with open("/dev/null", "wb") as null:
        cell.order(explained(python(LATER), halt=halt).packed(), [read, told, null.fileno()])
    for fd in (read, told):
        os.close(fd)
    cell.go()
    with open(output, "rb") as lines:
        assert lines.readline() == b"ready\n"
    hog()
    os.write(write, b"x")
    os.close(write)
    report, _ = cell.outcome()
    assert isinstance(report, Exited)
    assert [one.target for one in report.violations] == [b"/usr/later"]
    assert (report.cause, report.unexplained) == (cause, 0)


def test_a_file_system_that_does_not_answer_holds_up_nobody_else(cell: Cell, project: Path) -> None:
    """But who named it: where PID 1 waits for the same name, that process cannot end by itself any more."""
    stuck = project / "stuck"
    stuck.mkdir()
    program = (
        "import os, threading\n"
        "threading.Thread(target=lambda: os.open('/work/stuck/file', os.O_WRONLY), daemon=True).start()\n"
        + WORK
        + "os._exit(0)\n"
    )
    wish = replace(explained(python(program)), mounts=[bind(project, "/work")])
    with UnansweringMount(stuck, uid=1000) as mount:
        going = Going(cell, wish, Peer(1000, 1000))
        assert mount.was_asked()
        going.tell()
        going.pipes.wait_for(b"\n")
    run = going.end()  # once the mount is gone, who named it is told so
    *results, longest = run.text.split()
    assert results == ["0", "EROFS", "EPERM", "0", "EPERM"]
    assert float(longest) < 6
    assert run.outcome.unexplained >= 5
    assert run.outcome.cause is Cause.EXITED


def test_a_killed_pid_1_takes_the_sandbox_along(cell: Cell) -> None:
    going = Going(cell, explained(["/bin/sleep", "1000"]))
    cell.wait_for("sleep")
    os.kill(init_of(cell), signal.SIGKILL)
    outcome = going.end().outcome
    assert (outcome.cause, outcome.si_status) == (Cause.SIGNALED, signal.SIGKILL)


def test_the_payload_reaches_neither_pid_1_nor_the_listener(cell: Cell) -> None:
    program = """
import ctypes, errno, os, signal
libc = ctypes.CDLL(None, use_errno=True)
print(*sorted(os.listdir("/proc/self/fd"), key=int)[:3], len(os.listdir("/proc/self/fd")))
def tried(name, act):
    try: print(name, act())
    except OSError as error: print(name, errno.errorcode[error.errno])
def called(number, *arguments):
    if libc.syscall(number, *arguments) < 0: raise OSError(ctypes.get_errno(), "")
tried("kill", lambda: os.kill(1, signal.SIGKILL))
tried("stop", lambda: os.kill(1, signal.SIGSTOP))
tried("ptrace", lambda: called(101, 16, 1, 0, 0))
tried("fds", lambda: os.listdir("/proc/1/fd"))
tried("memory", lambda: open("/proc/1/mem"))
tried("read", lambda: called(310, 1, 0, 0, 0, 0, 0))
tried("getfd", lambda: called(438, os.pidfd_open(1), 1, 0))
"""
    lines = cell.run(explained(python(program))).succeeded().splitlines()
    assert lines[0] == "0 1 2 4"  # and the directory itself
    answers = dict(line.split(" ", 1) for line in lines[1:])
    assert answers.keys() == {"kill", "stop", "ptrace", "fds", "memory", "read", "getfd"}
    assert set(answers.values()) <= {"EPERM", "EACCES", "ESRCH"}, answers


def test_threads_forks_and_signals_go_on_as_ever(cell: Cell, programs: Path) -> None:
    run = cell.run(explained(["/programs/interrupted"], programs=programs))
    assert run.succeeded() == "0 interrupted\n"
    assert run.outcome.violations == ()


def test_a_stopped_payload_goes_on_where_it_was(cell: Cell, programs: Path) -> None:
    program = (
        "import os, signal, subprocess, time\n"
        "child = subprocess.Popen(['/programs/flood', '/tmp', '20000', 'vary'])\n"
        "for _ in range(20):\n"
        "    child.send_signal(signal.SIGSTOP); time.sleep(0.01)\n"
        "    child.send_signal(signal.SIGCONT); time.sleep(0.005)\n"
        "child.wait()\n"
    )
    assert cell.run(explained(python(program), programs=programs)).succeeded() == "20000 0\n"


@pytest.mark.parametrize(("what", "kind"), [("unshare", ViolationKind.SYSCALL), ("/usr", ViolationKind.WRITE)])
def test_a_flood_of_refusals_costs_little_and_is_counted(
    cell: Cell, programs: Path, what: str, kind: ViolationKind
) -> None:
    run = cell.run(explained(["/programs/flood", what, str(FLOOD), "vary"], programs=programs))
    assert run.succeeded() == "0 0\n"
    assert FLOOD - run.outcome.unexplained <= run.outcome.violation_counts[kind - 1] <= FLOOD
    assert len(run.outcome.violations) == (1 if kind is ViolationKind.SYSCALL else MOST)
    assert run.outcome.cpu_user_ns + run.outcome.cpu_system_ns < FLOOD * 2e6  # who waits for nobody has 50e6 for each


def test_the_time_that_explaining_takes_is_the_runs(cell: Cell, programs: Path) -> None:
    program = (
        "import os, resource, subprocess\n"
        f"subprocess.run(['/programs/flood', '/usr', '{FLOOD}', 'vary'], stdout=subprocess.DEVNULL)\n"
        "used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
        "print(int(sum(one.ru_utime + one.ru_stime for one in used) * 1e9), flush=True)\n"
        "os.read(0, 1)\n"
    )
    going = Going(cell, explained(python(program), programs=programs))
    going.pipes.wait_for(b"\n")
    ticks = sum(map(int, Path(f"/proc/{init_of(cell)}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
    run = going.end()
    by_pid_1 = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert by_pid_1 > 50_000_000
    told = run.outcome.cpu_user_ns + run.outcome.cpu_system_ns
    assert told >= int(run.succeeded()) + by_pid_1 // 2


def test_a_flood_does_not_make_pid_1_grow(cell: Cell, programs: Path) -> None:
    program = (
        "import os, subprocess\n"
        "for i in range(5):\n"
        "    print('size', i, flush=True)\n"
        "    os.read(0, 1)\n"
        "    subprocess.run(['/programs/flood', '/usr', '10000', 'vary'], check=True)\n"
        "print('size', 5, flush=True)\n"
        "os.read(0, 1)\n"
    )
    going = Going(cell, explained(python(program), programs=programs))
    status = Path(f"/proc/{init_of(cell)}/status")
    sizes = []
    for i in range(6):
        going.pipes.wait_for(b"size %d\n" % i)
        names = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        sizes.append(int(names["VmRSS"].split()[0]))
        going.tell()
    assert going.end().succeeded().count("0 0\n") == 5
    assert max(sizes) - sizes[0] < 512  # KiB: the records, and the pages that it walks paths with


def test_a_racing_thread_may_go_unnamed_and_never_through(cell: Cell, programs: Path) -> None:
    run = cell.run(explained(["/programs/race", "/usr/bin/true", "20000"], programs=programs))
    assert run.succeeded() == "0\n"
    assert {one.target for one in run.outcome.violations} <= {b"/usr/bin/true"} | {
        one.target for one in run.outcome.violations if one.kind is ViolationKind.WRITE
    }
    assert len(run.outcome.violations) <= MOST


def test_a_halted_run_is_dead_before_it_learns_of_it(cells: Callable[..., Cell], programs: Path) -> None:
    for _ in range(3):
        run = cells().run(explained(["/programs/flood", "/usr/x", "1"], halt=True, programs=programs))
        assert (run.outcome.cause, run.outcome.si_status) == (Cause.VIOLATION, signal.SIGKILL)
        assert run.stdout == b""
        (one,) = run.outcome.violations
        assert (one.kind, one.target, one.exe) == (ViolationKind.WRITE, b"/usr/x", b"/programs/flood")
        assert run.outcome.unexplained == 0


CHAINS = {
    "slow to walk": (38, "'/usr/new'", "'a/../' * 800 + before", ""),
    "longer together than any path": (6, "'/usr'", "before + '/share/..' * 440", "/new"),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_no_path_is_long_enough_for_a_halt_to_come_too_late(cell: Cell, chain: str) -> None:
    """Links that lead to links, with thousands of names on the way: the kernel takes a millisecond for them."""
    count, first, other, rest = CHAINS[chain]
    program = f"""
import os
os.mkdir('a')
for i in range({count}):
    before = f'l{{i - 1}}'
    os.symlink({other} if i else {first}, f'l{{i}}')
os.open('l{count - 1}{rest}', os.O_WRONLY | os.O_CREAT)
"""
    assert cell.run(explained(python(program), halt=True)).outcome.cause is Cause.VIOLATION


def test_a_halt_ends_the_whole_tree(cell: Cell) -> None:
    run = cell.run(
        explained(["/bin/sh", "-c", "sleep 1000 & (sleep 1000 &) ; setsid sleep 1000 & : > /usr/x"], halt=True)
    )
    assert run.outcome.cause is Cause.VIOLATION
    cell.close()


@pytest.mark.parametrize(
    "command", ["true", "echo x > /tmp/x", "mkdir -p /usr; rm -f /usr/none", "unshare -n true; true"]
)
def test_a_halt_is_for_writes_outside_alone(cell: Cell, command: str) -> None:
    run = cell.run(explained(["/bin/sh", "-c", command], halt=True))
    assert (run.outcome.cause, run.outcome.si_status) == (Cause.EXITED, 0)


def test_pid_1_dies_with_its_warden_though_it_waits_for_a_listener(cell: Cell) -> None:
    going = Going(cell, explained(["/bin/sleep", "1000"]))
    cell.wait_for("sleep")
    init = os.pidfd_open(init_of(cell))
    cell.process.kill()
    cell.process.wait()
    assert select.select([init], [], [], PATIENCE_S)[0] == [init]
    os.close(init)
    going.pipes.read_all()


def test_what_only_a_group_of_the_callers_reaches_is_named_too(cell: Cell, project: Path) -> None:
    """PID 1 has none of the caller's groups: where it may not go on, the mount that it stands at decides."""
    team = project / "team"
    team.mkdir()
    os.chown(team, 2000, 4242)
    team.chmod(0o770)
    wish = replace(explained(["/bin/sh", "-c", "ls /work/team && : > /work/team/new"]), mounts=[bind(project, "/work")])
    run = cell.run(wish, Peer(1000, 1000, (4242,)))
    assert b"/work/team/new" in run.stderr  # `ls` could look, and the write was tried
    assert [one.target for one in run.outcome.violations] == [b"/work/team/new"]


def test_without_an_explained_program_nothing_is_explained(cell: Cell) -> None:
    run = cell.run(Wish(["/bin/sh", "-c", "echo x > /usr/x; true"], program=BASE))
    assert run.outcome.violations == ()
    assert run.outcome.violation_counts == ()


def test_a_plan_says_nothing_of_explaining_that_nobody_knows(cell: Cell) -> None:
    known = Step(Op.EXPLAIN, (1,), (EXPLAINED,)).pack()
    unknown = Step(Op.EXPLAIN, (4,), (EXPLAINED,)).pack()
    packed = explained(["/bin/true"], halt=True).packed()
    assert known in packed
    with Pipes(b"") as pipes:
        cell.order(packed.replace(known, unknown), pipes.theirs)
        assert "unknown flags" in cell.failure().text


def test_a_plan_that_learns_and_its_log_come_together(cell: Cell) -> None:
    known = Step(Op.EXPLAIN, (1,), (EXPLAINED,)).pack()
    learning = Step(Op.EXPLAIN, (2,), (EXPLAINED,)).pack()
    with Pipes(b"") as pipes:
        cell.order(explained(["/bin/true"], halt=True).packed().replace(known, learning), pipes.theirs)
        assert "a log and a plan that learns go together" in cell.failure().text
