"""A run from PREPARE to EXITED, and every way in which it can end."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.isolation.abi import Cause, Measured, Op, Stage
from immured.isolation.messages import Exited, Failed
from immured.isolation.plan import Step
from tests.patience import until
from tests.warden.cell import ALLOW_ALL, Cell, Pipes, Run, Wish, file, python


def test_output_and_status_of_a_program_come_back(cell: Cell) -> None:
    run = cell.run(Wish(["sh", "-c", "cat; echo out; echo err >&2; exit 7"]), stdin=b"in ")
    assert (run.stdout, run.stderr) == (b"in out\n", b"err\n")
    assert (run.outcome.cause, run.outcome.si_status) == (Cause.EXITED, 7)


def test_a_plan_too_long_for_a_packet_comes_in_a_memfd(cell: Cell) -> None:
    wish = Wish(["wc", "-c", "/tmp/large"], mounts=[file("/tmp/large", b"x" * 1_000_000)])
    run = cell.attempt(wish, in_memfd=True)
    assert isinstance(run, Run)
    assert run.succeeded() == "1000000 /tmp/large\n"


def test_a_signal_that_ends_the_program_is_named(cell: Cell) -> None:
    outcome = cell.run(Wish(["sh", "-c", "kill -TERM $$"])).outcome
    assert (outcome.cause, outcome.si_code, outcome.si_status) == (Cause.SIGNALED, os.CLD_KILLED, signal.SIGTERM)


def test_arguments_and_environment_arrive_as_bytes(cell: Cell) -> None:
    script = b'printf %s "$1$NAME" | od -An -tx1'
    wish = Wish([b"sh", b"-c", script, b"sh", b"\xff\xfe"], env=["NAME=value=", "PATH=/usr/bin"])
    assert cell.run(wish).succeeded().split() == ["ff", "fe", *(f"{byte:02x}" for byte in b"value=")]


def test_the_environment_is_the_plans_and_nothing_else(cell: Cell) -> None:
    assert cell.run(Wish(["/usr/bin/env"], env=["A=1"])).succeeded() == "A=1\n"


def test_the_program_starts_where_the_plan_says(cell: Cell) -> None:
    assert cell.run(Wish(["/bin/pwd"], cwd="/usr/share")).succeeded() == "/usr/share\n"


def test_the_mask_for_new_files_is_the_plans(cell: Cell) -> None:
    assert cell.run(Wish(["sh", "-c", "umask"], umask=0o027)).succeeded().strip() in ("027", "0027")


def test_as_few_open_files_as_a_manifest_may_say(cell: Cell) -> None:
    wish = Wish(["/bin/cat", "/proc/self/limits"], rlimits=[(resource.RLIMIT_NOFILE, 4, 4)], explained=ALLOW_ALL)
    [line] = [one for one in cell.run(wish).succeeded().splitlines() if one.startswith("Max open files")]
    assert line.split()[3:5] == ["4", "4"]


def test_limits_hold(cell: Cell) -> None:
    rlimits = [(resource.RLIMIT_NOFILE, 50, 60), (resource.RLIMIT_FSIZE, 1024, 1024)]
    run = cell.run(Wish(["sh", "-c", "ulimit -n; ulimit -f"], rlimits=rlimits))
    assert run.succeeded().split() == ["50", "2"]


def test_a_limit_above_the_daemons_own_becomes_that(cell: Cell) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wish = Wish(["sh", "-c", "ulimit -n"], rlimits=[(resource.RLIMIT_NOFILE, hard + 1000, hard + 1000)])
    assert int(cell.run(wish).succeeded()) in (hard, hard + 1000)


def test_as_many_processors_as_the_plan_says(cell: Cell) -> None:
    assert cell.run(Wish(["nproc"], cpus=1)).succeeded() == "1\n"


def test_the_time_that_a_run_took_is_measured(cell: Cell) -> None:
    outcome = cell.run(Wish(["sleep", "0.05"])).outcome
    assert outcome.wall_ns >= 50_000_000


def test_cpu_time_of_all_its_processes_is_measured(cell: Cell, subtree: Path | None) -> None:
    burn = "sum(range(2 * 10**7))"
    outcome = cell.run(Wish(python(f"import os, time\nif os.fork() == 0:\n  {burn}\n  os._exit(0)\nos.wait()"))).outcome
    assert Measured.CPU in outcome.measured or subtree is None
    assert outcome.cpu_user_ns + outcome.cpu_system_ns > 50_000_000


# --- what does not start ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "stage", "error"),
    [
        (["/no/such/program"], Stage.EXEC, errno.ENOENT),
        (["no-such-program"], Stage.EXEC, errno.ENOENT),
        (["/etc/passwd"], Stage.EXEC, errno.EACCES),
        (["/usr"], Stage.EXEC, errno.EACCES),
    ],
)
def test_what_cannot_be_executed_is_named(cell: Cell, argv: list[str], stage: Stage, error: int) -> None:
    failed = cell.refused(Wish(argv))
    assert (failed.stage, failed.errno) == (stage, error)
    assert argv[0] in failed.text


def test_a_file_in_the_path_that_may_not_be_executed_is_not_missing(cell: Cell) -> None:
    wish = Wish(["tool"], env=["PATH=/tmp/a:/tmp/b"], mounts=[file("/tmp/a/tool", b"#!/bin/sh\n", 0o644)])
    assert cell.refused(wish).errno == errno.EACCES


def test_a_later_directory_of_the_path_is_tried_after_one_that_refuses(cell: Cell) -> None:
    tools = [file("/tmp/a/tool", b"#!/bin/sh\n", 0o644), file("/tmp/b/tool", b"#!/bin/sh\necho found\n", 0o755)]
    assert cell.run(Wish(["tool"], env=["PATH=/tmp/a:/tmp/b"], mounts=tools)).succeeded() == "found\n"


def test_a_text_without_an_interpreter_line_is_not_given_to_a_shell(cell: Cell) -> None:
    failed = cell.refused(Wish(["/tmp/script"], mounts=[file("/tmp/script", b"echo hello\n", 0o755)]))
    assert (failed.stage, failed.errno) == (Stage.EXEC, errno.ENOEXEC)


def test_a_missing_interpreter_is_told_from_a_missing_script(cell: Cell) -> None:
    failed = cell.refused(Wish(["/tmp/script"], mounts=[file("/tmp/script", b"#!/no/such/shell\n", 0o755)]))
    assert "interpreter" in failed.text


@pytest.mark.parametrize("cwd", ["/no/such/place", "/etc/passwd"])
def test_a_working_directory_that_is_none_is_named(cell: Cell, cwd: str) -> None:
    failed = cell.refused(Wish(["true"], cwd=cwd))
    assert failed.stage is Stage.CWD
    assert cwd in failed.text


def test_a_working_directory_that_the_payload_may_not_enter_is_named(cell: Cell) -> None:
    private = Step(Op.TMPFS, (4096, 10, 0, 0), (b"/tmp/private",))
    failed = cell.refused(Wish(["true"], cwd="/tmp/private", mounts=[private]))
    assert (failed.stage, failed.errno) == (Stage.CWD, errno.EACCES)


def test_a_plan_that_breaks_a_rule_is_refused(cell: Cell) -> None:
    packed = bytearray(Wish(["true"]).packed())
    packed[0] ^= 1
    with Pipes(b"") as pipes:
        cell.order(bytes(packed), pipes.theirs)
        failed = cell.failure()
    assert failed.stage is Stage.PLAN


@pytest.mark.parametrize("kind", ["directory", "O_PATH", "terminal", "datagram", "device"])
def test_a_descriptor_that_leads_elsewhere_is_refused(cell: Cell, kind: str) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    master, terminal = os.openpty()
    opened = {
        "directory": os.open("/tmp", os.O_RDONLY),
        "O_PATH": os.open("/etc/passwd", os.O_PATH),
        "terminal": terminal,
        "datagram": left.detach(),
        "device": os.open("/dev/zero", os.O_RDONLY),
    }
    try:
        with Pipes(b"") as pipes:
            cell.order(Wish(["true"]).packed(), [opened[kind], *pipes.theirs[1:]])
            failed = cell.failure()
    finally:
        for fd in [*opened.values(), master, right.detach()]:
            os.close(fd)
    assert failed.stage is Stage.PROCESS


@pytest.mark.parametrize("kind", ["file", "null", "stream"])
def test_files_streams_and_the_null_device_are_taken(cell: Cell, kind: str, tmp_path: Path) -> None:
    left, right = socket.socketpair()
    opened = {
        "file": os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT),
        "null": os.open("/dev/null", os.O_RDWR),
        "stream": left.detach(),
    }
    try:
        cell.order(Wish(["true"]).packed(), [opened[kind]] * 3)
        cell.go()
        report, _ = cell.outcome()
    finally:
        for fd in [*opened.values(), right.detach()]:
            os.close(fd)
    assert isinstance(report, Exited)
    assert report.si_status == 0


def test_standard_output_can_be_opened_anew(cell: Cell) -> None:
    assert cell.run(Wish(["sh", "-c", "echo hello > /dev/stdout"])).succeeded() == "hello\n"


# --- ends that are not its own ---------------------------------------------------------------------------------------


def test_a_run_past_its_time_ends(cell: Cell) -> None:
    outcome = cell.run(Wish(["sleep", "100"], wall_s=0.2)).outcome
    assert outcome.cause is Cause.TIMEOUT
    assert outcome.wall_ns >= 200_000_000


def test_a_stopped_run_past_its_time_ends_too(cell: Cell) -> None:
    assert cell.run(Wish(["sh", "-c", "kill -STOP $$"], wall_s=0.2)).outcome.cause is Cause.TIMEOUT


def test_a_busy_run_past_its_cpu_time_ends(cell: Cell, subtree: Path | None) -> None:
    if subtree is None:
        pytest.fail("no cgroup v2 hierarchy is mounted; remedy: mount one")
    outcome = cell.run(Wish(["sh", "-c", "(while :; do :; done) & while :; do :; done"], cpu_s=0.3)).outcome
    assert outcome.cause is Cause.CPU_TIME
    assert outcome.cpu_user_ns + outcome.cpu_system_ns >= 300_000_000


def test_a_kill_ends_the_run_for_the_cause_it_gives(cell: Cell) -> None:
    with Pipes(b"") as pipes:
        cell.order(Wish(["sleep", "100"]).packed(), pipes.theirs)
        cell.go()
        cell.wait_for("sleep")
        cell.kill(Cause.OUTPUT_LIMIT)
        report, _ = cell.outcome()
    assert isinstance(report, Exited)
    assert report.cause is Cause.OUTPUT_LIMIT


def test_a_kill_before_go_lets_nothing_run(cell: Cell, tmp_path: Path) -> None:
    with Pipes(b"") as pipes:
        cell.order(Wish(["touch", "/tmp/x"]).packed(), pipes.theirs)
        cell.kill()
        report, _ = cell.outcome()
    assert isinstance(report, Failed)
    assert report.stage is Stage.KILLED


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
os.wait()
print("main is done", flush=True)
"""


def test_what_the_main_process_leaves_behind_dies_and_is_told(cell: Cell) -> None:
    run = cell.run(Wish(python(DAEMON)))
    assert run.succeeded() == "main is done\n"
    assert run.outcome.stragglers == 1


def test_a_run_that_leaves_nothing_behind_has_no_stragglers(cell: Cell) -> None:
    assert cell.run(Wish(["sh", "-c", "true & wait"])).outcome.stragglers == 0


def test_a_run_that_forks_without_end_dies_whole(cell: Cell) -> None:
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    outcome = cell.run(Wish(python(bomb), wall_s=1, rlimits=[(resource.RLIMIT_NPROC, 64, 64)])).outcome
    assert outcome.cause is Cause.TIMEOUT
    cell.close()
    assert processes_of(cell) == []


def test_orphans_are_reaped(cell: Cell) -> None:
    program = """
import os, time
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
mine = os.getpid()
def others():
    return [one for one in os.listdir("/proc") if one.isdigit() and int(one) not in (1, mine)]
while others():
    time.sleep(0.01)
"""
    assert cell.run(Wish(python(program), wall_s=100)).outcome.cause is Cause.EXITED


# --- nobody is left --------------------------------------------------------------------------------------------------


def processes_of(cell: Cell) -> list[int]:
    """Processes that run with an id of the cell's range."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            uid = entry.stat().st_uid
        except OSError:
            continue
        if cell.slot_base <= uid < cell.slot_base + 65536:
            found.append(int(entry.name))
    return found


def start(cell: Cell, argv: list[str]) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    cell.order(Wish(argv, sandbox="left").packed(), [null] * 3)
    os.close(null)
    cell.go()
    cell.wait_for(argv[0].rsplit("/", 1)[-1])


def test_the_launchers_end_ends_the_run(cell: Cell) -> None:
    start(cell, ["sleep", "1000"])
    cell.close()
    assert processes_of(cell) == []


def test_the_launchers_end_removes_the_cgroup(cell: Cell, subtree: Path | None) -> None:
    start(cell, ["sleep", "1000"])
    cell.close()
    assert subtree is None or not (subtree / "tenants/tests/left").exists()


def test_a_run_that_ended_leaves_no_cgroup(cell: Cell, subtree: Path | None) -> None:
    cell.run(Wish(["true"], sandbox="ended"))
    cell.close()
    assert subtree is None or not (subtree / "tenants/tests/ended").exists()


def test_the_wardens_sudden_death_ends_the_cell(cells: Callable[..., Cell], subtree: Path | None) -> None:
    cell = cells()
    start(cell, ["sleep", "1000"])
    cell.process.kill()
    cell.process.wait()
    # PID 1 sees the end of its leash; with it goes the pid namespace.
    until(lambda: not processes_of(cell))
    if subtree is not None:
        until(lambda: "populated 0" in (subtree / "tenants/tests/left/cgroup.events").read_text())
        (subtree / "tenants/tests/left").rmdir()


def test_two_cells_share_nothing(cells: Callable[..., Cell]) -> None:
    first, second = cells(), cells()
    look = """
for one in mnt net ipc uts pid user time; do readlink /proc/self/ns/$one; done
touch /tmp/seen
ls /tmp
"""
    one, other = (cell.run(Wish(["sh", "-c", look])).succeeded().split() for cell in (first, second))
    assert one[-1] == other[-1] == "seen"
    assert set(one[:-1]).isdisjoint(other[:-1])


# --- files brought back ----------------------------------------------------------------------------------------------


def collected(run: Run) -> list[bytes]:
    contents = []
    for fd in run.files:
        with os.fdopen(fd, "rb") as one:
            contents.append(one.read())
    return contents


def test_files_come_back_and_those_missing_are_told(cell: Cell) -> None:
    wanted = ["/tmp/a", "/tmp/b", "/tmp/x", "/tmp/c"]
    run = cell.run(Wish(["sh", "-c", "echo one > a; mkdir b; echo three > c"], collect=wanted))
    assert run.outcome.collected == 0b1001
    assert collected(run) == [b"one\n", b"three\n"]


@pytest.mark.parametrize("trap", ["ln -s /etc/passwd out", "mkfifo out", "ln -s /dev/zero out", "mkdir out"])
def test_what_is_no_regular_file_does_not_come_back(cell: Cell, trap: str) -> None:
    run = cell.run(Wish(["sh", "-c", trap], collect=["/tmp/out"]))
    assert (run.outcome.collected, run.files) == (0, [])


def test_a_link_on_the_way_leads_nowhere_but_inside(cell: Cell) -> None:
    run = cell.run(Wish(["ln", "-s", "/root", "/tmp/way"], collect=["/tmp/way/.bashrc"]))
    assert run.files == []


def test_what_the_payload_may_not_read_does_not_come_back(cell: Cell) -> None:
    run = cell.run(Wish(["sh", "-c", "echo x > out; chmod 0 out"], collect=["/tmp/out"]))
    assert run.files == []


def test_files_come_back_after_a_timeout(cell: Cell) -> None:
    """By the launcher's word, once it has written: of a deadline of its own nobody knows which comes first."""
    wish = Wish(["sh", "-c", "echo partial > out; echo ready; sleep 1000"], collect=["/tmp/out"])
    with Pipes(b"") as pipes:
        cell.order(wish.packed(), pipes.theirs)
        pipes.close_theirs()
        cell.go()
        pipes.wait_for(b"ready\n")
        cell.kill(Cause.TIMEOUT)
        report, files = cell.outcome()
        assert isinstance(report, Exited)
        run = Run(report, *pipes.read_all(), files)
    assert run.outcome.cause is Cause.TIMEOUT
    assert collected(run) == [b"partial\n"]
