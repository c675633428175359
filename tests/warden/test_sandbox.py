"""A sandbox from CREATE to its end, and execs that come and go in it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured.host.syscalls import landlock_abi
from immured.isolation.abi import Cause, Measured, Message, Op, PlanKind, Stage
from immured.isolation.messages import Frozen
from immured.isolation.plan import Step
from tests.warden.cell import PATIENCE_S, Cell, Pipes, Wish, bind, python
from tests.warden.conftest import FLAGS
from tests.warden.places import ALICE, directory
from tests.warden.sandbox import ALONE, EMPTY, OVER, SANDBOX, Sandbox, shell
from tests.warden.silent import SilentMount


@pytest.fixture
def sandbox(cell: Cell) -> Iterator[Sandbox]:
    """One that lives."""
    with Sandbox(cell) as one:
        yield one


@pytest.fixture
def sandboxes(cells: Callable[..., Cell]) -> Callable[..., Sandbox]:
    """Makes them, each in a cell of its own, not waited for."""

    def make(wish: Wish = EMPTY, **options: object) -> Sandbox:
        return Sandbox(cells(**options), wish)

    return make


def tmpfs(target: str) -> Step:
    """A writable place of the sandbox's own, with a bound."""
    return Step(Op.TMPFS, (64 << 20, 4096, 0o1777, 0), (target.encode(),))


def is_gone(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


# --- what an exec is --------------------------------------------------------------------------------------------------


def test_an_exec_runs_in_a_sandbox_that_was_made(sandbox: Sandbox) -> None:
    run = sandbox.run(shell("cat; echo out; echo err >&2; exit 7"), stdin=b"in ")
    assert (run.stdout, run.stderr) == (b"in out\n", b"err\n")
    assert (run.outcome.cause, run.outcome.si_status) == (Cause.EXITED, 7)


def test_what_one_exec_leaves_in_files_the_next_one_finds(sandbox: Sandbox) -> None:
    sandbox.run(shell("echo kept > /tmp/file")).succeeded()
    assert sandbox.run(shell("cat /tmp/file; id -u; pwd")).succeeded() == "kept\n1000\n/tmp\n"


def test_what_an_exec_leaves_running_ends_with_it(sandbox: Sandbox) -> None:
    run = sandbox.run(shell("sleep 1000 & echo $!"))
    assert run.outcome.stragglers
    left = run.succeeded().strip()
    assert left
    assert sandbox.run(shell(f"test -e /proc/{left} || echo gone")).succeeded() == "gone\n"


def test_execs_at_the_same_time_see_each_other_and_end_apart(sandbox: Sandbox) -> None:
    waits = sandbox.start(shell("echo $$ > /tmp/pid; sleep 1000"))
    seen = sandbox.run(shell("while ! [ -s /tmp/pid ]; do sleep 0.01; done; ls -d /proc/$(cat /tmp/pid)"))
    assert seen.succeeded().startswith("/proc/")
    waits.kill()
    assert waits.exited().cause is Cause.KILLED
    assert sandbox.run(shell("echo alive")).succeeded() == "alive\n"


def test_many_at_once_have_each_its_own_output_and_status(sandbox: Sandbox) -> None:
    execs = [sandbox.start(shell(f"echo {i}; exit {i}")) for i in range(20)]
    for i, one in enumerate(execs):
        run = one.result()
        assert (run.stdout, run.outcome.si_status) == (f"{i}\n".encode(), i)


def test_a_signal_that_ends_one_is_named(sandbox: Sandbox) -> None:
    outcome = sandbox.run(shell("kill -TERM $$")).outcome
    assert (outcome.cause, outcome.si_code, outcome.si_status) == (Cause.SIGNALED, os.CLD_KILLED, signal.SIGTERM)


def test_a_wall_time_of_its_own_ends_one(sandbox: Sandbox) -> None:
    outcome = sandbox.run(shell("sleep 1000", wall_s=0.2)).outcome
    assert outcome.cause is Cause.TIMEOUT
    assert outcome.wall_ns >= 200_000_000


def test_a_cpu_time_of_its_own_ends_one(sandbox: Sandbox, subtree: Path | None) -> None:
    assert sandbox.run(shell("while :; do :; done", cpu_s=0.2)).outcome.cause is Cause.CPU_TIME


def test_cpu_time_of_all_its_processes_is_measured_and_of_no_others(sandbox: Sandbox) -> None:
    busy = sandbox.run(Wish(python("sum(range(10**7))"))).outcome
    idle = sandbox.run(shell("true")).outcome
    assert Measured.CPU in idle.measured
    # Compared, and the short one may be nothing: a kernel that counts in ticks sees none of a few milliseconds.
    assert 2 * (idle.cpu_user_ns + idle.cpu_system_ns) < busy.cpu_user_ns + busy.cpu_system_ns


def test_files_are_collected_of_one(sandbox: Sandbox) -> None:
    run = sandbox.run(shell("echo content > /tmp/result", collect=["/tmp/result", "/tmp/none"]))
    assert run.outcome.collected == 1
    assert os.read(run.files[0], 100) == b"content\n"


def test_a_plan_too_long_for_a_packet_comes_in_a_memfd(sandbox: Sandbox) -> None:
    argument = "x" * 100_000
    assert sandbox.run(Wish(["sh", "-c", "echo ${#1}", "sh", argument])).succeeded() == "100000\n"


def test_what_cannot_be_executed_is_named(sandbox: Sandbox) -> None:
    failed = sandbox.refused(Wish(["/no/such/program"]))
    assert (failed.stage, failed.errno) == (Stage.EXEC, errno.ENOENT)


def test_one_that_is_called_off_never_ran(sandbox: Sandbox) -> None:
    with Pipes(b"") as pipes:
        one = sandbox.order(shell("touch /tmp/ran"), pipes.theirs)
        pipes.close_theirs()
        one.call_off()
        assert one.failed().stage is Stage.KILLED
    assert "ran" not in sandbox.run(Wish(["ls", "/tmp"])).succeeded()


def test_nobody_can_read_the_launchers_command_line_in_one_that_waits(sandbox: Sandbox) -> None:
    with Pipes(b"") as pipes:
        waits = sandbox.order(shell("true"), pipes.theirs)
        pipes.close_theirs()
        sandbox.cell.wait_for("immured-warden")
        seen = sandbox.run(shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))
        assert "/sys/fs/cgroup" not in seen.succeeded()
        waits.go().exited()


def test_its_children_have_no_descriptor_of_the_keepers(sandbox: Sandbox) -> None:
    sandbox.keep(shell("sleep 1000"))
    assert sandbox.run(Wish(["ls", "/proc/self/fd"])).succeeded().split() == ["0", "1", "2", "3"]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_an_identity_that_is_not_the_sandboxs_is_refused(sandbox: Sandbox) -> None:
    failed = sandbox.refused(shell("true", identity=1001))
    assert (failed.stage, "identity" in failed.text) == (Stage.PLAN, True)


def test_an_exec_of_another_sandbox_is_refused(sandbox: Sandbox) -> None:
    with Pipes(b"") as pipes:
        failed = sandbox.order(shell("true"), pipes.theirs, sandbox="another").failed()
    assert (failed.stage, "another" in failed.text) == (Stage.PLAN, True)


@pytest.mark.skipif(landlock_abi() < 4, reason="Landlock has no rules for the network here")
def test_an_exec_does_not_open_the_network_that_its_sandbox_has_not(sandbox: Sandbox) -> None:
    failed = sandbox.refused(shell("true", loopback=True))
    assert (failed.stage, "network" in failed.text) == (Stage.PLAN, True)


def test_a_plan_of_another_kind_is_refused(cell: Cell) -> None:
    with Pipes(b"") as pipes:
        cell.order(Wish(["-"], sandbox="x").packed(PlanKind.SANDBOX), pipes.theirs)
        failed = cell.failure()
    assert (failed.stage, "kind" in failed.text) == (Stage.PLAN, True)


def test_a_sandbox_without_cgroups_is_refused(sandboxes: Callable[..., Sandbox]) -> None:
    one = sandboxes(cgroup=None, controllers=0)
    failed = one.failed()
    assert (failed.stage, failed.errno) == (Stage.CGROUP, errno.ENOTSUP)


def test_a_sandbox_whose_mounts_cannot_be_made_never_lives(sandboxes: Callable[..., Sandbox], tmp_path: Path) -> None:
    one = sandboxes(Wish(["-"], mounts=[bind(tmp_path / "absent")]))
    assert one.failed().stage is Stage.OPEN


# --- signals ----------------------------------------------------------------------------------------------------------


def test_a_signal_reaches_the_first_process_alone(sandbox: Sandbox) -> None:
    script = (
        "trap 'echo first; kill %1; exit' USR1; sh -c 'trap \"echo second\" USR1; sleep 1000 & wait' & echo ready; wait"
    )
    one = sandbox.start(shell(script))
    one.wait_for_output(b"ready\n")
    one.signal(signal.SIGUSR1)
    assert one.result().stdout == b"ready\nfirst\n"


def test_a_signal_reaches_everybody_in_one_and_nobody_else(sandbox: Sandbox) -> None:
    other = sandbox.start(shell("trap 'echo hit' USR1; echo ready; read line; exit 3"))
    turn = "echo ready; while :; do sleep 0.02; done"
    one = sandbox.start(shell(f"(trap 'echo hit; exit' USR1; {turn}) & trap 'wait; echo hit; exit' USR1; {turn}"))
    one.wait_for_output(b"ready\nready\n")
    other.wait_for_output(b"ready\n")
    one.signal(signal.SIGUSR1, everybody=True)
    assert one.result().stdout.count(b"hit") == 2
    assert other.result().stdout == b"ready\n"


def test_a_kill_of_everybody_is_the_programs_own_end_by_a_signal(sandbox: Sandbox) -> None:
    one = sandbox.start(shell("echo ready; sleep 1000"))
    one.wait_for_output(b"ready\n")
    one.signal(signal.SIGKILL, everybody=True)
    assert (one.exited().cause, one.exited().si_status) == (Cause.SIGNALED, signal.SIGKILL)


@pytest.mark.parametrize(
    "early", [[signal.SIGTERM], [signal.SIGSTOP, signal.SIGCONT, signal.SIGIO],
              [signal.SIGCONT, signal.SIGSTOP, signal.SIGCONT, signal.SIGIO]],
)  # fmt: skip
@pytest.mark.parametrize("everybody", [False, True])
def test_a_signal_before_its_first_instruction_waits_for_that(
    sandbox: Sandbox, subtree: Path, early: list[signal.Signals], everybody: bool
) -> None:
    """In their order, of equal ones the last: what is stopped and goes on again is not left stopped."""
    with Pipes(b"") as pipes:
        one = sandbox.order(Wish(["sleep", "1000"]), pipes.theirs)
        pipes.close_theirs()
        execs = subtree / "tenants" / "tests" / sandbox.name / "execs"
        until(lambda: bool(members(execs)))
        [payload] = members(execs)
        warden = parent_of(payload)
        until(lambda: state_of(payload) == state_of(warden) == "S")  # the one waits for GO, the other for news
        for number in early:
            one.signal(number, everybody=everybody)
        slept = times_slept(warden)
        until(lambda: times_slept(warden) > slept + 10)  # it looks again and again whether there was a GO
        assert state_of(payload) == "S"
        run = one.go().exited()
        assert (run.cause, run.si_status) == (Cause.SIGNALED, early[-1])


def test_no_signal_that_comes_before_its_program_is_caught_by_ours(sandbox: Sandbox, subtree: Path) -> None:
    """Who closed a socket that may linger was woken by alarms meanwhile, and forks no handler of them."""
    one, other = socket.socketpair()
    with one, other:
        sandbox.order(Wish(["true"]), [one.fileno()] * 3).go().exited()
    with Pipes(b"") as pipes:
        waits = sandbox.order(Wish(["true"]), pipes.theirs)
        pipes.close_theirs()
        execs = subtree / "tenants" / "tests" / sandbox.name / "execs"
        until(lambda: bool(members(execs)))
        [payload] = members(execs)
        status = Path(f"/proc/{payload}/status").read_text().splitlines()
        assert [int(line.split()[1], 16) for line in status if line.startswith("SigCgt:")] == [0]
        waits.go().exited()


@pytest.fixture
def late(cells: Callable[..., Cell], harness: Path) -> Iterator[Sandbox]:
    """Who passes its signals on stops before: a payload has a say in when and where he runs (sched_setaffinity(2))."""
    program = harness.with_name("warden-of-late-signals")
    sources = [*harness.parent.glob("*.o"), Path(__file__).with_name("late_signals.c")]
    subprocess.run(["gcc", *FLAGS, *sources, "-Wl,--wrap=kill", "-o", program], check=True)
    with Sandbox(cells(harness=program)) as one:
        yield one


def messenger_of(sandbox: Sandbox) -> int:
    """Who stopped on the way, once there is one."""

    def stopped() -> list[int]:
        wardens = children_of(sandbox.cell.process.pid)
        return [pid for warden in wardens for pid in children_of(warden) if state_of(pid) == "T"]

    until(lambda: len(stopped()) == 1)
    [messenger] = stopped()
    return messenger


def test_nobody_waits_for_who_passes_a_signal_on(late: Sandbox) -> None:
    one = late.start(shell("echo ready; exec sleep 1000"))
    one.wait_for_output(b"ready\n")
    one.signal(signal.SIGUSR1, everybody=True)
    messenger = messenger_of(late)
    one.kill()
    assert one.exited().cause is Cause.KILLED
    until(lambda: is_gone(messenger))


def test_but_the_signals_that_come_after_it(late: Sandbox) -> None:
    one = late.start(shell("trap 'echo first' USR1; trap 'echo second; exit' USR2; echo ready; while :; do :; done"))
    one.wait_for_output(b"ready\n")
    one.signal(signal.SIGUSR1, everybody=True)
    messenger = messenger_of(late)
    warden = parent_of(messenger)
    slept = times_slept(warden)
    one.signal(signal.SIGUSR2)
    until(lambda: times_slept(warden) > slept)  # it has heard of it
    os.kill(messenger, signal.SIGCONT)
    assert one.result().stdout == b"ready\nfirst\nsecond\n"


def test_and_an_end_of_everybody_waits_for_none(late: Sandbox) -> None:
    one = late.start(shell("echo ready; exec sleep 1000"))
    one.wait_for_output(b"ready\n")
    one.signal(signal.SIGUSR1, everybody=True)
    messenger_of(late)
    one.signal(signal.SIGKILL, everybody=True)
    assert (one.exited().cause, one.exited().si_status) == (Cause.SIGNALED, signal.SIGKILL)


def test_a_signal_that_does_not_exist_is_passed_over(sandbox: Sandbox) -> None:
    one = sandbox.start(shell("read line; echo done"), stdin=b"x\n")
    one.signal(0)
    one.signal(1000)
    assert one.result().succeeded() == "done\n"


def test_one_that_is_stopped_before_its_program_has_no_more_time_for_it(sandbox: Sandbox, subtree: Path) -> None:
    """As a neighbour may, where no domain of Landlock's keeps signals apart."""
    with Pipes(b"") as pipes:
        one = sandbox.order(shell("echo ran", wall_s=0.5), pipes.theirs)
        pipes.close_theirs()
        execs = subtree / "tenants" / "tests" / sandbox.name / "execs"
        until(lambda: bool(members(execs)))
        [waiting] = members(execs)
        os.kill(waiting, signal.SIGSTOP)
        start = time.monotonic()
        assert one.go().failed().stage is Stage.KILLED
        assert time.monotonic() - start < 60, "it ended with its sandbox, after 90 seconds"


# --- its end ----------------------------------------------------------------------------------------------------------


def test_a_kill_ends_every_exec_first_and_tells_what_all_of_it_used(sandbox: Sandbox, subtree: Path) -> None:
    execs = [sandbox.start(shell("echo ready; sleep 1000")) for _ in range(3)]
    for one in execs:
        one.wait_for_output(b"ready\n")
    sandbox.run(Wish(python("sum(range(10**7))")))
    ended = sandbox.kill()
    assert ended.cause is Cause.KILLED
    assert ended.cpu_user_ns + ended.cpu_system_ns > 10_000_000
    for one in execs:
        assert Message.EXITED in sandbox.said(one.number)
        assert one.exited().cause is Cause.KILLED
    sandbox.cell.process.wait(PATIENCE_S)
    assert sandbox.cell.process.returncode == 0
    assert not list(subtree.rglob(sandbox.name))


def test_its_time_to_live_ends_it(sandboxes: Callable[..., Sandbox]) -> None:
    with sandboxes(Wish(["-"], wall_s=0.3)) as one:
        assert one.ended().cause is Cause.TIMEOUT


def test_its_time_to_live_can_be_put_off(sandboxes: Callable[..., Sandbox]) -> None:
    with sandboxes(Wish(["-"], wall_s=6.0)) as one:
        one.extend(600)
        assert one.again()[0].wall_left_ns > 400e9
        time.sleep(6.2)
        assert one.run(shell("echo alive")).succeeded() == "alive\n"


def test_the_end_of_the_launcher_ends_everything_without_a_word(sandbox: Sandbox, subtree: Path) -> None:
    sandbox.start(shell("sleep 1000"))
    sandbox.keep(shell("sleep 1000"))
    sandbox.measure()
    sandbox.cell.close()
    assert sandbox.cell.process.returncode == 0
    assert not list(subtree.rglob(sandbox.name))


def test_an_exec_whose_warden_dies_is_lost_and_its_processes_with_it(sandbox: Sandbox) -> None:
    one = sandbox.start(shell("echo $$ > /tmp/pid; sleep 1000"))
    sandbox.run(shell("while ! [ -s /tmp/pid ]; do sleep 0.01; done"))
    sandbox.hear(sandbox.execs[1].number, OVER)
    [warden] = [pid for pid in children_of(sandbox.cell.process.pid) if children_of(pid)]
    os.kill(warden, signal.SIGKILL)
    assert one.failed().stage is Stage.LOST
    sandbox.hear(one.number, OVER)
    gone = "for i in $(seq 500); do test -e /proc/$(cat /tmp/pid) || { echo gone; exit; }; sleep 0.01; done"
    assert sandbox.run(shell(gone)).succeeded() == "gone\n"


def test_the_end_of_its_first_process_ends_it(sandbox: Sandbox) -> None:
    one = sandbox.start(shell("sleep 1000"))
    sandbox.measure()
    os.kill(child_named(sandbox.cell.process.pid, "init"), signal.SIGKILL)
    ended = sandbox.ended()
    assert (ended.cause, ended.si_status) == (Cause.SIGNALED, signal.SIGKILL)
    assert Message.EXITED in sandbox.said(one.number) or Message.FAILED in sandbox.said(one.number)


def test_the_keepers_death_is_everybodys(sandbox: Sandbox) -> None:
    one = sandbox.start(shell("echo ready; sleep 1000"))
    one.wait_for_output(b"ready\n")
    family = [pid for child in children_of(sandbox.cell.process.pid) for pid in (child, *children_of(child))]
    assert len(family) >= 3
    sandbox.cell.process.kill()
    sandbox.cell.process.wait()
    until(lambda: all(is_gone(pid) or state_of(pid) == "Z" for pid in family))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def children_of(process: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def child_named(process: int, name: str) -> int:
    """Its only child of this name."""
    found = []
    for pid in children_of(process):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a warden that waited may be on its way out
            found += [pid] if Path(f"/proc/{pid}/comm").read_text().strip() == name else []
    [one] = found
    return one


def members(cgroup: Path) -> list[int]:
    """Who is in any of those below, which come and go."""
    found = []
    for one in os.listdir(cgroup):
        with contextlib.suppress(OSError):
            found += [int(number) for number in (cgroup / one / "cgroup.procs").read_text().split()]
    return found


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])


def times_slept(process: int) -> int:
    """How often it has given its processor up by itself."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    [count] = [line.split()[1] for line in lines if line.startswith("voluntary_ctxt_switches:")]
    return int(count)


def state_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


# --- a pause ----------------------------------------------------------------------------------------------------------


def cpu_of(sandbox: Sandbox) -> int:
    """Nanoseconds that all of it has used. How they are split is a guess of the kernel's."""
    so_far = sandbox.measure().so_far
    return so_far.cpu_user_ns + so_far.cpu_system_ns


def test_a_pause_stops_every_exec_and_an_end_of_it_goes_on(sandbox: Sandbox) -> None:
    one = sandbox.start(shell("i=0; while :; do i=$((i+1)); echo $i > /tmp/count; done"))
    sandbox.run(shell("while ! [ -s /tmp/count ]; do sleep 0.01; done"))
    assert sandbox.freeze(True) == sandbox.freeze(True)
    used = cpu_of(sandbox)
    time.sleep(0.2)
    assert cpu_of(sandbox) == used
    assert sandbox.freeze(False).on is False
    until(lambda: cpu_of(sandbox) != used)
    one.kill()
    one.exited()


def test_no_exec_starts_in_a_pause(sandbox: Sandbox) -> None:
    sandbox.freeze(True)
    failed = sandbox.refused(shell("true"))
    assert (failed.stage, failed.errno) == (Stage.SANDBOX, errno.EBUSY)
    sandbox.freeze(False)
    assert sandbox.run(shell("echo on")).succeeded() == "on\n"


def test_an_execs_wall_time_stands_still_in_a_pause(sandbox: Sandbox) -> None:
    one = sandbox.start(shell("echo ready; sleep 0.3", wall_s=6.0))
    one.wait_for_output(b"ready\n")
    sandbox.freeze(True)
    time.sleep(6.2)
    sandbox.freeze(False)
    outcome = one.exited()
    assert outcome.cause is Cause.EXITED
    assert outcome.wall_ns < 6_000_000_000


def test_an_exec_that_waits_for_go_outlasts_a_pause(cells: Callable[..., Cell]) -> None:
    with Sandbox(cells(open_timeout_ms=10_000)) as sandbox, Pipes(b"") as pipes:
        one = sandbox.order(shell("echo ran"), pipes.theirs)
        pipes.close_theirs()
        one.pipes = pipes
        sandbox.freeze(True)
        time.sleep(10.5)
        sandbox.freeze(False)
        assert one.go().result().succeeded() == "ran\n"
        one.pipes = None


def test_what_is_paused_can_be_killed(sandbox: Sandbox) -> None:
    one = sandbox.start(shell("echo ready; sleep 1000"))
    one.wait_for_output(b"ready\n")
    sandbox.freeze(True)
    one.kill()
    assert one.exited().cause is Cause.KILLED
    assert sandbox.kill().cause is Cause.KILLED


# --- figures ----------------------------------------------------------------------------------------------------------


def test_how_many_execs_live_and_what_its_places_hold_is_measured(sandbox: Sandbox) -> None:
    before = sandbox.measure()
    one = sandbox.start(shell("head -c 1000000 /dev/zero > /tmp/zeros; echo ready; sleep 1000"))
    one.wait_for_output(b"ready\n")
    now = sandbox.measure()
    assert (before.execs, now.execs) == (0, 1)
    assert now.so_far.wall_ns > before.so_far.wall_ns > 0


def test_files_in_its_places_are_measured(sandboxes: Callable[..., Sandbox]) -> None:
    with sandboxes(Wish(["-"], mounts=[tmpfs("/tmp"), tmpfs("/work")])) as one:
        before = one.measure()
        one.run(shell("head -c 1000000 /dev/zero > /tmp/a; head -c 1000000 /dev/zero > /work/b")).succeeded()
        now = one.measure()
        assert now.disk_used - before.disk_used >= 2_000_000
        assert now.disk_files - before.disk_files == 2


# --- brokers ----------------------------------------------------------------------------------------------------------


def test_with_the_broker_what_is_not_kept_ends_without_a_word(sandbox: Sandbox) -> None:
    plain = sandbox.start(shell("echo ready; sleep 1000"))
    plain.wait_for_output(b"ready\n")
    kept = sandbox.keep(shell("read line; echo got $line"))
    sandbox.say(ALONE)
    sandbox.hear(plain.number, OVER)
    assert sandbox.said(plain.number) == []
    os.write(kept.stdin, b"it\n")
    assert kept.exited().si_status == 0
    assert kept.log is not None
    assert kept.log.text() == b"got it\n"


def test_a_new_broker_hears_of_the_sandbox_and_of_what_is_kept(cell: Cell) -> None:
    with Sandbox(cell, Wish(["-"], wall_s=100), record=b"memory") as sandbox:
        sandbox.start(shell("sleep 1000"))
        kept = sandbox.keep(shell("echo ready; read line; echo got $line"))
        kept.wait_for_log(b"ready\n")
        about, [record] = sandbox.again()
        assert (about.sandbox, about.execs, about.frozen) == (SANDBOX, 1, False)
        assert 50e9 < about.wall_left_ns <= 100e9
        assert os.pread(record, 100, 0) == b"memory"
        one, fds = kept.kept()
        assert (one.sandbox, one.started) == (SANDBOX, True)
        assert abs(one.started_ns - time.time_ns()) < 60e9
        assert len(fds) == 5
        os.write(fds[4], b"again\n")
        assert kept.exited().si_status == 0
        assert kept.log is not None
        assert kept.log.text() == b"ready\ngot again\n"
        for fd in (record, *fds):
            os.close(fd)


def test_a_pause_whose_broker_died_before_it_was_so_does_not_come_to_pass(cell: Cell) -> None:
    """An exec waits in the kernel, so the pause hangs between order and answer: then the broker dies."""
    with tempfile.TemporaryDirectory(prefix="immured-warden-") as above:
        mine = directory(Path(above) / "mine", ALICE.uid)
        os.chmod(above, 0o755)
        with (
            SilentMount(directory(mine / "stuck", ALICE.uid), uid=ALICE.uid) as silent,
            Sandbox(cell, Wish(["-"], mounts=[bind(mine, "/m")]), ALICE) as sandbox,
        ):
            sandbox.keep(shell("cat /m/stuck/x"))
            assert silent.taken.wait(PATIENCE_S)
            goes_on = sandbox.keep(shell("echo ready; read line; echo got $line"))
            goes_on.wait_for_log(b"ready\n")
            sandbox.say(Message.FREEZE, SANDBOX, struct.pack("=II", True, 0))
            sandbox.say(ALONE)
            about, [record] = sandbox.again()
            os.close(record)
            assert about.frozen is False
            assert sandbox.freeze(False) == Frozen(on=False, errno=0)  # the next broker's, and no word to the last one
            assert sandbox.said(SANDBOX) == []
            os.write(goes_on.stdin, b"it\n")
            assert goes_on.exited().si_status == 0
            silent.end()  # what waits for it could not be killed


def test_the_stdin_of_a_kept_exec_ends_when_it_is_told_to(sandbox: Sandbox) -> None:
    kept = sandbox.keep(shell("cat; echo end"))
    os.write(kept.stdin, b"some\n")
    os.close(kept.stdin)
    kept.stdin = -1
    kept.wait_for_log(b"some\n")
    kept.say(Message.CLOSE_STDIN)
    assert kept.exited().si_status == 0
    assert kept.log is not None
    assert kept.log.text() == b"some\nend\n"
