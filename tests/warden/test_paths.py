"""Host paths of a plan: opened as the caller, and nothing more than the caller's."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured.isolation.abi import BindFlag, Cause, Op, Stage
from immured.isolation.messages import Exited
from immured.isolation.plan import Step
from tests.patience import PATIENCE_S
from tests.walls.unanswering import UnansweringMount
from tests.warden.cell import Cell, Peer, Wish, bind, file, python
from tests.warden.places import ALICE, BOB, STAFF, directory, give, mounted, shell, text
from tests.warden.silent import SilentMount

MS_BIND, MS_REC, MS_SHARED = 0x1000, 0x4000, 1 << 20


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that anybody may enter: the caller stands outside of pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="immured-warden-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_callers_directory_is_seen_at_its_own_path(cell: Cell, place: Path) -> None:
    text(directory(place / "mine", ALICE.uid) / "note", ALICE.uid, 0o600)
    assert cell.run(shell(f"cat {place}/mine/note", bind(place / "mine")), ALICE).succeeded() == "content\n"


def test_a_callers_file_is_seen_where_the_plan_says(cell: Cell, place: Path) -> None:
    note = text(place / "note", ALICE.uid, 0o600)
    assert cell.run(shell("cat /data/here", bind(note, "/data/here")), ALICE).succeeded() == "content\n"


def test_what_is_the_callers_is_the_payloads_inside(cell: Cell, place: Path) -> None:
    note = text(place / "note", ALICE.uid)
    assert cell.run(shell("stat -c %u:%g /note", bind(note, "/note")), ALICE).succeeded() == "1000:1000\n"


def test_what_is_anybody_elses_is_nobodys_inside(cell: Cell, place: Path) -> None:
    text(directory(place / "mine", ALICE.uid) / "note", BOB)
    assert cell.run(shell("stat -c %u /mine/note", bind(place / "mine", "/mine")), ALICE).succeeded() == "65534\n"


@pytest.mark.parametrize("command", ["echo x > /mine/note", "touch /mine/new", "rm /mine/note", "chmod 600 /mine/note"])
def test_a_read_only_directory_cannot_be_changed(cell: Cell, place: Path, command: str) -> None:
    text(directory(place / "mine", ALICE.uid, 0o777) / "note", ALICE.uid, 0o666)
    run = cell.run(shell(command, bind(place / "mine", "/mine")), ALICE)
    assert b"Read-only file system" in run.stderr


def test_a_file_that_the_caller_may_not_read_is_refused(cell: Cell, place: Path) -> None:
    failed = cell.refused(shell("true", bind(text(place / "note", BOB, 0o600))), ALICE)
    assert (failed.stage, failed.errno) == (Stage.OPEN, errno.EACCES)
    assert f"{place}/note" in failed.text


def test_a_path_through_anothers_private_directory_is_refused(cell: Cell, place: Path) -> None:
    text(directory(place / "private", BOB, 0o700) / "note", ALICE.uid)
    assert cell.refused(shell("true", bind(place / "private/note")), ALICE).errno == errno.EACCES


def test_a_file_in_it_that_the_caller_may_not_read_stays_shut(cell: Cell, place: Path) -> None:
    text(directory(place / "mine", ALICE.uid) / "secret", BOB, 0o600)
    run = cell.run(shell("cat /mine/secret", bind(place / "mine", "/mine")), ALICE)
    assert b"Permission denied" in run.stderr


def test_a_link_is_followed_as_the_caller(cell: Cell, place: Path) -> None:
    (place / "link").symlink_to("/etc/shadow")
    assert cell.refused(shell("true", bind(place / "link")), ALICE).errno == errno.EACCES


def test_root_overrides_nothing_either(cell: Cell, place: Path) -> None:
    failed = cell.refused(shell("true", bind(directory(place / "private", BOB, 0o700))), Peer(0, 0))
    assert (failed.stage, failed.errno) == (Stage.OPEN, errno.EACCES)


def test_roots_own_files_are_read_for_root(cell: Cell, place: Path) -> None:
    note = text(place / "note", 0, 0o600)
    assert cell.run(shell("cat /note", bind(note, "/note")), Peer(0, 0)).succeeded() == "content\n"


def test_a_group_of_the_callers_lets_it_in(cell: Cell, place: Path) -> None:
    place = directory(place / "staff", 0, 0o750, STAFF)
    assert cell.run(shell("true", bind(place)), Peer(ALICE.uid, ALICE.gid, (STAFF,))).outcome.si_status == 0


def test_the_daemons_groups_let_nobody_in(cell: Cell, place: Path) -> None:
    failed = cell.refused(shell("true", bind(directory(place / "wheel", BOB, 0o750, 0))), ALICE)
    assert failed.errno == errno.EACCES


def test_a_missing_path_is_named(cell: Cell, place: Path) -> None:
    failed = cell.refused(shell("true", bind(place / "absent")), ALICE)
    assert (failed.stage, failed.errno) == (Stage.OPEN, errno.ENOENT)
    assert f"{place}/absent" in failed.text


def test_the_step_that_failed_is_named(cell: Cell, place: Path) -> None:
    mine = directory(place / "mine", ALICE.uid)
    assert cell.refused(shell("true", bind(mine), bind(place / "absent")), ALICE).step == 3


def test_an_optional_path_may_be_missing(cell: Cell, place: Path) -> None:
    wish = shell(f"test -e {place}/absent || echo absent", bind(place / "absent", flags=BindFlag.OPTIONAL))
    assert cell.run(wish, ALICE).succeeded() == "absent\n"


def test_an_optional_path_may_not_be_forbidden(cell: Cell, place: Path) -> None:
    note = text(place / "note", BOB, 0o600)
    assert cell.refused(shell("true", bind(note, flags=BindFlag.OPTIONAL)), ALICE).errno == errno.EACCES


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_what_is_no_directory_or_file_is_refused(cell: Cell, place: Path, kind: str) -> None:
    path = place / "thing"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path = Path("/dev/null")
    assert cell.refused(shell("true", bind(path)), ALICE).stage is Stage.PATH_KIND


@pytest.mark.parametrize("path", ["/proc", "/proc/sys", "/sys", "/dev/pts"])
def test_the_kernels_own_file_systems_are_no_source(cell: Cell, path: str) -> None:
    assert cell.refused(shell("true", bind(path, "/data")), Peer(0, 0)).stage is Stage.PATH_KIND


@pytest.mark.parametrize("path", ["/proc/self/root", "/proc/self/cwd", "/proc/self/fd/3", "/proc/thread-self/root/etc"])
def test_a_link_into_a_process_leads_nowhere(cell: Cell, path: str) -> None:
    failed = cell.refused(shell("true", bind(path, "/data")), Peer(0, 0))
    assert failed.stage is Stage.OPEN
    assert failed.errno in (errno.ELOOP, errno.EACCES, errno.ENOENT)


def test_noexec_holds(cell: Cell, place: Path) -> None:
    script = text(place / "script", ALICE.uid, 0o755, "#!/bin/sh\n")
    failed = cell.refused(Wish(["/script"], mounts=[bind(script, "/script", BindFlag.NOEXEC)]), ALICE)
    assert (failed.stage, failed.errno) == (Stage.EXEC, errno.EACCES)


def test_a_setuid_program_of_the_callers_changes_nobody(cell: Cell, place: Path) -> None:
    program = place / "id"
    shutil.copy("/usr/bin/id", program)
    give(program, 0, 0o4755)
    assert cell.run(Wish(["/id", "-u"], mounts=[bind(program, "/id")]), ALICE).succeeded() == "1000\n"


def test_a_device_of_the_callers_is_none_inside(cell: Cell, place: Path) -> None:
    node = directory(place / "mine", ALICE.uid) / "zero"
    os.mknod(node, 0o20666, os.makedev(1, 5))
    node.chmod(0o666)
    run = cell.run(shell("head -c1 /mine/zero", bind(place / "mine", "/mine")), ALICE)
    assert b"Permission denied" in run.stderr


# --- writing ---------------------------------------------------------------------------------------------------------


def test_what_is_written_is_the_callers_on_the_host(cell: Cell, place: Path) -> None:
    out = directory(place / "out", ALICE.uid)
    cell.run(shell("echo made > /out/new", bind(out, "/out", BindFlag.WRITE)), ALICE).succeeded()
    made = (out / "new").stat()
    assert (made.st_uid, made.st_gid, (out / "new").read_text()) == (ALICE.uid, ALICE.gid, "made\n")


def test_a_directory_of_the_callers_in_a_group_of_the_callers_can_be_written(cell: Cell, place: Path) -> None:
    out = directory(place / "out", ALICE.uid, 0o755, STAFF)
    peer = Peer(ALICE.uid, ALICE.gid, (STAFF,))
    assert cell.run(shell("touch /out/new", bind(out, "/out", BindFlag.WRITE)), peer).succeeded() == ""


def test_what_is_anothers_in_it_cannot_be_written(cell: Cell, place: Path) -> None:
    out = directory(place / "out", ALICE.uid)
    text(out / "theirs", BOB, 0o666)
    run = cell.run(shell("echo x > /out/theirs", bind(out, "/out", BindFlag.WRITE)), ALICE)
    assert b"Permission denied" in run.stderr


def test_a_tree_of_roots_is_never_writable(cell: Cell, place: Path) -> None:
    failed = cell.refused(shell("true", bind(directory(place / "out", 0, 0o777), flags=BindFlag.WRITE)), ALICE)
    assert failed.stage is Stage.ROOT_OWNED


def test_nothing_is_writable_for_root(cell: Cell, place: Path) -> None:
    failed = cell.refused(shell("true", bind(directory(place / "out", ALICE.uid), flags=BindFlag.WRITE)), Peer(0, 0))
    assert failed.stage is Stage.ROOT_OWNED


def test_anothers_tree_is_not_writable_however_open(cell: Cell, place: Path) -> None:
    failed = cell.refused(shell("true", bind(directory(place / "out", BOB, 0o777), flags=BindFlag.WRITE)), ALICE)
    assert (failed.stage, failed.errno) == (Stage.OPEN, errno.EACCES)


def test_an_own_tree_without_the_right_to_write_is_not_writable(cell: Cell, place: Path) -> None:
    failed = cell.refused(shell("true", bind(directory(place / "out", ALICE.uid, 0o555), flags=BindFlag.WRITE)), ALICE)
    assert (failed.stage, failed.errno) == (Stage.OPEN, errno.EACCES)


def test_a_file_system_mounted_read_only_is_not_writable(cell: Cell, place: Path) -> None:
    out = directory(place / "out", ALICE.uid)
    with mounted(str(out), out, "none", MS_BIND), mounted("none", out, "none", MS_BIND | 0x20 | 1):
        failed = cell.refused(shell("true", bind(out, flags=BindFlag.WRITE)), ALICE)
    assert (failed.stage, failed.errno) == (Stage.OPEN, errno.EROFS)


def test_a_file_system_without_idmapped_mounts_is_read_only(cell: Cell, place: Path) -> None:
    out = directory(place / "out", 0)
    with mounted("none", out, "ramfs"):
        give(out, ALICE.uid, 0o755)
        text(out / "note", ALICE.uid)
        failed = cell.refused(shell("true", bind(out, flags=BindFlag.WRITE)), ALICE)
    assert failed.stage is Stage.IDMAP


def test_a_file_system_without_idmapped_mounts_can_be_read(cell: Cell, place: Path) -> None:
    out = directory(place / "out", 0)
    with mounted("none", out, "ramfs"):
        text(out / "note", ALICE.uid)
        assert cell.run(shell(f"cat {out}/note", bind(out)), ALICE).succeeded() == "content\n"


# --- what is mounted in a tree ---------------------------------------------------------------------------------------


def test_what_lies_beneath_a_mount_is_not_uncovered(cell: Cell, place: Path) -> None:
    covered = directory(directory(place / "mine", ALICE.uid) / "covered", ALICE.uid)
    text(covered / "secret", ALICE.uid)
    with mounted("none", covered, "tmpfs"):
        assert cell.run(shell("ls /mine/covered", bind(place / "mine", "/mine")), ALICE).succeeded() == ""


def test_what_is_mounted_in_it_is_read_only_too(cell: Cell, place: Path) -> None:
    inner = directory(directory(place / "mine", ALICE.uid) / "inner", ALICE.uid)
    with mounted("none", inner, "tmpfs"):
        give(inner, ALICE.uid, 0o777)
        run = cell.run(shell("touch /mine/inner/x", bind(place / "mine", "/mine")), ALICE)
    assert b"Read-only file system" in run.stderr


def test_the_hosts_proc_mounted_in_it_is_covered(cell: Cell, place: Path) -> None:
    inner = directory(directory(place / "mine", ALICE.uid) / "proc", ALICE.uid)
    with mounted("none", inner, "proc"):
        assert cell.run(shell("ls -A /mine/proc", bind(place / "mine", "/mine")), ALICE).succeeded() == ""


def test_of_the_hosts_root_no_kernel_file_system_comes_along(cell: Cell) -> None:
    command = "ls -A /host/proc /host/sys /host/dev; test -d /host/usr && echo usr"
    assert cell.run(shell(command, bind("/", "/host")), Peer(0, 0)).succeeded().split() == [
        "/host/dev:", "/host/proc:", "/host/sys:", "usr",
    ]  # fmt: skip


def test_mounts_in_a_shared_tree_do_not_reach_the_host(cell: Cell, place: Path) -> None:
    mine = directory(place / "mine", ALICE.uid)
    text(directory(mine / "inner", ALICE.uid) / "note", ALICE.uid)
    with mounted(str(mine), mine, "none", MS_BIND), mounted("none", mine, "none", MS_SHARED):
        cell.run(shell("true", bind(mine, "/mine"), Step(Op.HIDE, (), (b"/mine/inner",))), ALICE).succeeded()
        seen = os.listdir(mine / "inner")
    assert seen == ["note"]


def test_mounts_of_the_host_do_not_reach_a_running_cell(cell: Cell, place: Path) -> None:
    mine = directory(place / "mine", ALICE.uid)
    later = directory(mine / "later", ALICE.uid)
    null = os.open("/dev/null", os.O_RDWR)
    with mounted(str(mine), mine, "none", MS_BIND), mounted("none", mine, "none", MS_SHARED):
        wish = shell("ls /mine/later > /tmp/seen", bind(mine, "/mine"), collect=["/tmp/seen"])
        cell.order(wish.packed(), [null] * 3, ALICE)
        cell.wait_for("immured-warden")
        with mounted("none", later, "tmpfs"):
            text(later / "note", ALICE.uid)
            cell.go()
            _, files = cell.outcome()
    os.close(null)
    with os.fdopen(files[0]) as seen:
        assert seen.read() == ""


# --- a file system that never answers --------------------------------------------------------------------------------


def test_a_path_that_never_answers_ends_its_own_run(cells: Callable[..., Cell], place: Path) -> None:
    cell = cells(open_timeout_ms=300)
    stuck = directory(place / "stuck", ALICE.uid)
    with UnansweringMount(stuck, uid=ALICE.uid):
        begin = time.monotonic()
        failed = cell.refused(shell("true", bind(stuck / "x")), ALICE)
        cell.close()
        took = time.monotonic() - begin
    assert failed.stage is Stage.DEADLINE
    assert f"{stuck}/x" in failed.text
    assert took < 60


def test_an_opener_that_cannot_be_killed_holds_nobody_up(cells: Callable[..., Cell], place: Path) -> None:
    """Its request was taken, and is never answered: the warden leaves it, and goes."""
    cell = cells(open_timeout_ms=5000)
    stuck = directory(place / "stuck", ALICE.uid)
    with SilentMount(stuck, uid=ALICE.uid) as silent:
        failed = cell.refused(shell("true", bind(stuck / "x")), ALICE)
        cell.close()
        taken = silent.taken.is_set()
    assert (failed.stage, taken) == (Stage.DEADLINE, True)


def test_a_maker_of_mounts_that_cannot_be_killed_holds_nobody_up(cells: Callable[..., Cell], place: Path) -> None:
    cell = cells(open_timeout_ms=5000)
    mine = directory(place / "mine", ALICE.uid)
    with SilentMount(directory(mine / "stuck", ALICE.uid), uid=ALICE.uid) as silent:
        hide = Step(Op.HIDE, (), (b"/mine/stuck/x",))
        failed = cell.refused(shell("true", bind(mine, "/mine"), hide), ALICE)
        cell.close()
        taken = silent.taken.is_set()
    assert (failed.stage, taken) == (Stage.DEADLINE, True)


def test_a_payload_that_cannot_be_killed_holds_its_answer_up_for_a_bounded_time(
    cells: Callable[..., Cell], place: Path
) -> None:
    cell = cells()
    mine = directory(place / "mine", ALICE.uid)
    null = os.open("/dev/null", os.O_RDWR)
    with SilentMount(directory(mine / "stuck", ALICE.uid), uid=ALICE.uid) as silent:
        wish = shell("cat /m/stuck/x", bind(mine, "/m"))
        cell.order(wish.packed(), [null] * 3, ALICE)
        cell.go()
        assert silent.taken.wait(PATIENCE_S)
        cell.kill(Cause.TIMEOUT)
        report, _ = cell.outcome()
    os.close(null)
    assert isinstance(report, Exited)
    assert (report.cause, report.stragglers) == (Cause.TIMEOUT, 1)


def test_a_working_directory_that_cannot_be_left_is_told(cells: Callable[..., Cell], place: Path) -> None:
    cell = cells(open_timeout_ms=5000)
    mine = directory(place / "mine", ALICE.uid)
    null = os.open("/dev/null", os.O_RDWR)
    with SilentMount(directory(mine / "stuck", ALICE.uid), uid=ALICE.uid) as silent:
        cell.order(shell("true", bind(mine, "/m"), cwd="/m/stuck/x").packed(), [null] * 3, ALICE)
        failed = cell.failure()
        taken = silent.taken.is_set()
    os.close(null)
    assert (failed.stage, taken) == (Stage.DEADLINE, True)


def test_a_target_in_a_tree_that_never_answers_ends_its_own_run(cells: Callable[..., Cell], place: Path) -> None:
    cell = cells(open_timeout_ms=300)
    mine = directory(place / "mine", ALICE.uid)
    with UnansweringMount(directory(mine / "stuck", ALICE.uid), uid=ALICE.uid):
        hide = Step(Op.HIDE, (), (b"/mine/stuck/x",))
        failed = cell.refused(shell("true", bind(mine, "/mine"), hide), ALICE)
        cell.close()
    assert failed.stage is Stage.DEADLINE


def test_a_working_directory_that_never_answers_ends_its_own_run(cells: Callable[..., Cell], place: Path) -> None:
    cell = cells(open_timeout_ms=300)
    mine = directory(place / "mine", ALICE.uid)
    with UnansweringMount(directory(mine / "stuck", ALICE.uid), uid=ALICE.uid):
        failed = cell.refused(shell("true", bind(mine, "/mine"), cwd="/mine/stuck/x"), ALICE)
    assert failed.stage is Stage.DEADLINE


def test_a_kill_reaches_a_run_that_waits_for_a_path(cells: Callable[..., Cell], place: Path) -> None:
    cell = cells(open_timeout_ms=600_000)
    stuck = directory(place / "stuck", ALICE.uid)
    null = os.open("/dev/null", os.O_RDWR)
    with UnansweringMount(stuck, uid=ALICE.uid):
        cell.order(shell("true", bind(stuck / "x")).packed(), [null] * 3, ALICE)
        cell.kill()
        failed = cell.failure()
    os.close(null)
    assert failed.stage is Stage.KILLED


# --- the operator's grants -------------------------------------------------------------------------------------------


def test_a_granted_path_is_read_whoever_asks(cells: Callable[..., Cell], place: Path) -> None:
    models = directory(directory(place / "closed", 0, 0o700) / "models", BOB, 0o700)
    text(models / "weights", BOB, 0o600)
    cell = cells(grant_read=[models])
    assert cell.run(shell("cat /m/weights", bind(models, "/m", BindFlag.GRANTED)), ALICE).succeeded() == "content\n"


def test_a_path_beside_the_grants_is_refused(cells: Callable[..., Cell], place: Path) -> None:
    directory(place / "models", 0)
    cell = cells(grant_read=[place / "models"])
    failed = cell.refused(shell("true", bind(directory(place / "models2", 0), flags=BindFlag.GRANTED)), ALICE)
    assert (failed.stage, failed.errno) == (Stage.OPEN, errno.EACCES)


def test_a_link_out_of_a_grant_is_refused(cells: Callable[..., Cell], place: Path) -> None:
    models = directory(place / "models", ALICE.uid)
    (models / "out").symlink_to("/etc")
    cell = cells(grant_read=[models])
    failed = cell.refused(shell("true", bind(models / "out", flags=BindFlag.GRANTED)), ALICE)
    assert (failed.stage, failed.errno) == (Stage.OPEN, errno.EXDEV)


def test_a_grant_to_read_is_none_to_write(cells: Callable[..., Cell], place: Path) -> None:
    models = directory(place / "models", BOB, 0o777)
    cell = cells(grant_read=[models])
    failed = cell.refused(shell("true", bind(models, flags=BindFlag.GRANTED | BindFlag.WRITE)), ALICE)
    assert failed.stage is Stage.OPEN


def test_a_grant_to_write_makes_files_of_its_owner(cells: Callable[..., Cell], place: Path) -> None:
    out = directory(place / "out", BOB, 0o700)
    cell = cells(grant_write=[place])
    cell.run(shell("touch /o/new", bind(out, "/o", BindFlag.GRANTED | BindFlag.WRITE)), ALICE).succeeded()
    assert (out / "new").stat().st_uid == BOB


def test_no_grant_makes_a_tree_of_roots_writable(cells: Callable[..., Cell], place: Path) -> None:
    cell = cells(grant_write=[place])
    wish = shell("true", bind(directory(place / "out", 0), flags=BindFlag.GRANTED | BindFlag.WRITE))
    assert cell.refused(wish, ALICE).stage is Stage.ROOT_OWNED


def test_of_a_granted_tree_of_roots_only_what_anybody_may_read_is_read(cells: Callable[..., Cell], place: Path) -> None:
    models = directory(place / "models", 0)
    text(models / "secret", 0, 0o600)
    cell = cells(grant_read=[models])
    run = cell.run(shell("cat /m/secret", bind(models, "/m", BindFlag.GRANTED)), ALICE)
    assert b"Permission denied" in run.stderr


# --- beneath a directory that the manifest's author named ------------------------------------------------------------


@pytest.mark.parametrize("name", ["mine", "link", "./mine", "/mine"])
def test_a_path_beneath_its_directory_is_opened(cell: Cell, place: Path, name: str) -> None:
    text(directory(directory(place / "in", ALICE.uid) / "mine", ALICE.uid) / "note", ALICE.uid)
    (place / "in" / "link").symlink_to("mine")
    found = bind(f"{place}/in/{name}", "/m", beneath=place / "in")
    assert cell.run(shell("cat /m/note", found), ALICE).succeeded() == "content\n"


WAYS_OUT: dict[str, Callable[[Path], None]] = {
    "an absolute link": lambda mine: mine.symlink_to("/usr"),
    "an absolute link to what lies beneath": lambda mine: mine.symlink_to(mine.parent / "good"),
    "a link that climbs": lambda mine: mine.symlink_to("../out"),
    "a link that climbs and comes back": lambda mine: mine.symlink_to("../in/good"),
    "a magic link": lambda mine: mine.symlink_to("/proc/self/root"),
}


@pytest.mark.parametrize("flags", [BindFlag(0), BindFlag.WRITE, BindFlag.GRANTED, BindFlag.LAYER])
@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_link_leads_out_of_its_directory(cells: Callable[..., Cell], place: Path, way: str, flags: BindFlag) -> None:
    directory(directory(place / "in", ALICE.uid) / "good", ALICE.uid)
    directory(place / "out", ALICE.uid)
    WAYS_OUT[way](place / "in" / "mine")
    for source in ("mine", "mine/x"):
        cell = cells(grant_read=[place], grant_write=[place])
        failed = cell.refused(shell("true", bind(place / "in" / source, "/m", flags, beneath=place / "in")), ALICE)
        assert (failed.stage, failed.errno) == (Stage.OPEN, errno.EXDEV)


def test_a_link_above_its_directory_is_the_authors(cell: Cell, place: Path) -> None:
    text(directory(directory(place / "real", ALICE.uid) / "mine", ALICE.uid) / "note", ALICE.uid)
    (place / "in").symlink_to("real")
    found = bind(place / "in" / "mine", "/m", beneath=place / "in")
    assert cell.run(shell("cat /m/note", found), ALICE).succeeded() == "content\n"


@pytest.mark.parametrize("granted", ["", "in", "in/mine", "in/mine/deep"])
def test_a_grant_and_a_directory_both_hold(cells: Callable[..., Cell], place: Path, granted: str) -> None:
    deep = directory(directory(directory(place / "in", ALICE.uid) / "mine", ALICE.uid) / "deep", ALICE.uid)
    text(deep / "note", ALICE.uid)
    cell = cells(grant_read=[place / granted])
    found = bind(deep, "/m", BindFlag.GRANTED, beneath=place / "in" / "mine")
    assert cell.run(shell("cat /m/note", found), ALICE).succeeded() == "content\n"


def test_a_directory_itself_may_be_named(cell: Cell, place: Path) -> None:
    text(directory(place / "in", ALICE.uid) / "note", ALICE.uid)
    found = bind(place / "in", "/m", beneath=place / "in")
    assert cell.run(shell("cat /m/note", found), ALICE).succeeded() == "content\n"


def test_a_directory_that_is_not_there_is_passed_over_where_it_may_be(cell: Cell, place: Path) -> None:
    found = bind(place / "in" / "mine", "/m", BindFlag.OPTIONAL, beneath=place / "in")
    assert cell.run(shell("test -e /m || echo none", found), ALICE).succeeded() == "none\n"


# --- places inside ---------------------------------------------------------------------------------------------------


def test_a_place_in_a_place_is_found(cell: Cell, place: Path) -> None:
    mine = directory(place / "mine", ALICE.uid)
    out = directory(mine / "out", ALICE.uid)
    wish = shell(f"cd {mine} && touch out/new; touch new", bind(mine), bind(out, flags=BindFlag.WRITE))
    run = cell.run(wish, ALICE)
    assert b"Read-only file system" in run.stderr
    assert os.listdir(out) == ["new"]


def test_a_place_that_would_have_to_be_made_in_a_callers_tree_is_refused(cell: Cell, place: Path) -> None:
    mine = directory(place / "mine", ALICE.uid)
    failed = cell.refused(shell("true", bind(mine, flags=BindFlag.WRITE), bind("/usr/share", mine / "new")), ALICE)
    assert (failed.stage, failed.errno) == (Stage.TARGET, errno.ENOENT)
    assert os.listdir(mine) == []


def test_a_place_behind_a_link_is_refused(cell: Cell, place: Path) -> None:
    mine = directory(place / "mine", ALICE.uid)
    (mine / "link").symlink_to("/etc")
    failed = cell.refused(shell("true", bind(mine, "/mine"), bind(mine, "/mine/link/ssl")), ALICE)
    assert (failed.stage, failed.errno) == (Stage.TARGET, errno.ELOOP)


def test_a_directory_does_not_go_on_a_file(cell: Cell, place: Path) -> None:
    failed = cell.refused(shell("true", bind(directory(place / "mine", ALICE.uid), "/etc/passwd")), ALICE)
    assert (failed.stage, failed.errno) == (Stage.TARGET, errno.ENOTDIR)


def test_a_private_tmpfs_is_the_payloads_and_bounded(cell: Cell) -> None:
    scratch = Step(Op.TMPFS, (1 << 20, 100, 0o700, 0), (b"/scratch",))
    run = cell.run(shell("stat -c %u:%a /scratch; head -c 2M /dev/zero > /scratch/x; stat -c %s /scratch/x", scratch))
    assert run.text.split() == ["1000:700", str(1 << 20)]


def test_a_hidden_directory_is_empty_and_stays_so(cell: Cell, place: Path) -> None:
    text(directory(directory(place / "mine", ALICE.uid) / "keys", ALICE.uid) / "key", ALICE.uid)
    wish = shell("ls -A /m/keys; touch /m/keys/x", bind(place / "mine", "/m"), Step(Op.HIDE, (), (b"/m/keys",)))
    run = cell.run(wish, ALICE)
    assert (run.stdout, b"Read-only file system" in run.stderr) == (b"", True)


def test_a_hidden_file_is_empty(cell: Cell) -> None:
    assert cell.run(shell("cat /etc/ld.so.conf", Step(Op.HIDE, (), (b"/etc/ld.so.conf",)))).succeeded() == ""


def test_what_is_not_there_needs_no_hiding(cell: Cell) -> None:
    assert cell.run(shell("true", Step(Op.HIDE, (), (b"/no/such",)))).outcome.si_status == 0


def test_what_is_protected_cannot_be_written(cell: Cell, place: Path) -> None:
    mine = directory(place / "mine", ALICE.uid)
    directory(mine / ".git", ALICE.uid)
    protect = Step(Op.PROTECT, (0,), (b"/m/.git",))
    run = cell.run(shell("touch /m/x /m/.git/x", bind(mine, "/m", BindFlag.WRITE), protect), ALICE)
    assert b"Read-only file system" in run.stderr
    assert (mine / "x").exists()


def test_protection_of_what_is_not_there_is_refused(cell: Cell) -> None:
    failed = cell.refused(shell("true", Step(Op.PROTECT, (0,), (b"/tmp/absent",))))
    assert (failed.stage, failed.errno) == (Stage.TARGET, errno.ENOENT)


@pytest.mark.parametrize("target", ["/tmp/new", "/tmp/deep/er/new", "/data/new", "/new"])
def test_a_file_that_the_plan_puts_in_is_the_payloads(cell: Cell, target: str) -> None:
    run = cell.run(shell(f"stat -c %u:%g:%a {target}; cat {target}", file(target, b"hello", 0o640)))
    assert run.succeeded() == "1000:1000:640\nhello"


def test_a_file_that_is_there_is_not_overwritten(cell: Cell) -> None:
    failed = cell.refused(shell("true", file("/etc/passwd", b"root::0:0::/:/bin/sh\n")))
    assert (failed.stage, failed.errno) == (Stage.FILE, errno.EEXIST)


def test_a_file_does_not_go_through_a_callers_link(cell: Cell, place: Path) -> None:
    mine = directory(place / "mine", ALICE.uid)
    (mine / "link").symlink_to(place / "elsewhere")
    failed = cell.refused(shell("true", bind(mine, "/m", BindFlag.WRITE), file("/m/link", b"x")), ALICE)
    assert (failed.stage, failed.errno) == (Stage.FILE, errno.EEXIST)


def test_a_file_in_a_callers_tree_is_the_callers(cell: Cell, place: Path) -> None:
    mine = directory(place / "mine", ALICE.uid)
    cell.run(shell("true", bind(mine, "/m", BindFlag.WRITE), file("/m/new", b"x")), ALICE).succeeded()
    assert (mine / "new").stat().st_uid == ALICE.uid


def test_a_file_does_not_go_into_a_read_only_tree(cell: Cell, place: Path) -> None:
    mine = directory(place / "mine", ALICE.uid)
    failed = cell.refused(shell("true", bind(mine, "/m"), file("/m/new", b"x")), ALICE)
    assert (failed.stage, failed.errno) == (Stage.FILE, errno.EROFS)


def test_the_root_is_sealed(cell: Cell) -> None:
    run = cell.run(shell("mkdir /data/x", file("/data/new", b"")))
    assert b"Read-only file system" in run.stderr


# --- another root ----------------------------------------------------------------------------------------------------


@pytest.fixture
def image(place: Path) -> Path:
    """A root of its own: a shell that needs nothing else, and the usual places."""
    root = directory(place / "image", ALICE.uid)
    for name in ("bin", "dev", "proc", "tmp", "etc"):
        directory(root / name, ALICE.uid)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for name in ("sh", "ls", "cat", "touch", "mount", "stat"):
        (root / "bin" / name).symlink_to("busybox")
    text(root / "etc/release", ALICE.uid, content="an image\n")
    return root


def inside(image: Path, command: str, *mounts: Step) -> Wish:
    return Wish(["/bin/sh", "-c", command], mounts=mounts, rootfs=str(image))


def test_a_directory_can_be_the_root(cell: Cell, image: Path) -> None:
    assert cell.run(inside(image, "cat /etc/release; ls /"), ALICE).succeeded().split() == [
        "an", "image", "bin", "dev", "etc", "proc", "tmp",
    ]  # fmt: skip


def test_such_a_root_is_read_only(cell: Cell, image: Path) -> None:
    run = cell.run(inside(image, "touch /etc/x /tmp/x"), ALICE)
    assert run.stderr == b"touch: /etc/x: Read-only file system\n"


def test_such_a_root_has_devices_processes_and_a_private_tmp(cell: Cell, image: Path) -> None:
    run = cell.run(inside(image, "echo x > /dev/null && test -e /proc/1 -a -e /proc/$$ && ls -A /tmp"), ALICE)
    assert run.succeeded() == ""


def test_the_hosts_programs_are_gone_from_such_a_root(cell: Cell, image: Path) -> None:
    mounts = cell.run(inside(image, "cat /proc/self/mounts"), ALICE).succeeded().splitlines()
    assert {line.split()[1].split("/")[1] for line in mounts} == {"", "dev", "proc", "tmp"}


def test_a_place_can_be_hidden_in_such_a_root(cell: Cell, image: Path) -> None:
    assert cell.run(inside(image, "cat /etc/release", Step(Op.HIDE, (), (b"/etc/release",))), ALICE).succeeded() == ""


def test_such_a_root_is_the_callers_to_name(cell: Cell, image: Path) -> None:
    give(image, BOB, 0o700)
    failed = cell.refused(inside(image, "true"), ALICE)
    assert (failed.stage, failed.errno) == (Stage.OPEN, errno.EACCES)


def test_a_link_at_a_usual_place_of_such_a_root_is_not_followed(cell: Cell, image: Path) -> None:
    (image / "tmp").rmdir()
    (image / "tmp").symlink_to("/etc")
    wish = Wish(["/bin/sh", "-c", "cat /etc/release"], cwd="/", rootfs=str(image))
    assert cell.run(wish, ALICE).succeeded() == "an image\n"


# --- names that a caller could hope for ------------------------------------------------------------------------------


def test_a_blank_in_a_path_is_no_trouble(cell: Cell, place: Path) -> None:
    mine = directory(place / "a b\\c\nd", ALICE.uid)
    inner = directory(mine / "proc", ALICE.uid)
    with mounted("none", inner, "proc"):
        run = cell.run(Wish(["ls", "-A", f"{mine}/proc"], mounts=[bind(mine)]), ALICE)
    assert run.succeeded() == ""


def test_a_run_of_another_peer_is_another_identity_on_disk(cells: Callable[..., Cell], place: Path) -> None:
    owners = []
    for uid in (ALICE.uid, BOB):
        out = directory(place / str(uid), uid)
        cells().run(shell("touch /o/x", bind(out, "/o", BindFlag.WRITE)), Peer(uid, uid)).succeeded()
        owners.append((out / "x").stat().st_uid)
    assert owners == [ALICE.uid, BOB]


def test_the_caller_cannot_reach_the_process_that_opens_for_it(cells: Callable[..., Cell], place: Path) -> None:
    """It has the caller's uid for a while: not to be traced, and its descriptors not to be read."""
    cell, eve = cells(open_timeout_ms=20_000), Peer(61099, 61099)
    stuck = directory(place / "stuck", eve.uid)
    null = os.open("/dev/null", os.O_RDWR)
    with UnansweringMount(stuck, uid=eve.uid):
        cell.order(shell("true", bind(stuck / "x")).packed(), [null] * 3, eve)
        opener = find_process("immured-peer", eve.uid)
        program = f"import os\ntry: print(os.listdir('/proc/{opener}/fd'))\nexcept PermissionError: print('no')"
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.setresgid(eve.gid, eve.gid, eve.gid)
            os.setresuid(eve.uid, eve.uid, eve.uid)
            os.dup2(write, 1)
            os.execv("/usr/bin/python3", python(program))
        os.close(write)
        with os.fdopen(read) as pipe:
            seen = pipe.read()
        os.waitpid(child, 0)
        cell.kill()
        cell.failure()
    os.close(null)
    assert seen == "no\n"


def find_process(name: str, uid: int) -> int:
    """A process of this name that has had time to become this user."""
    while True:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                status = (entry / "status").read_text()
            except OSError:
                continue
            if status.startswith(f"Name:\t{name}\n") and f"Uid:\t{uid}\t" in status:
                return int(entry.name)


def test_a_timeout_is_told_apart_from_a_file_system_that_hangs(cells: Callable[..., Cell], place: Path) -> None:
    """A program that waits for such a file system is ended by its own deadline, like any other."""
    cell = cells(open_timeout_ms=20_000)
    mine = directory(place / "mine", ALICE.uid)
    with UnansweringMount(directory(mine / "stuck", ALICE.uid), uid=ALICE.uid):
        run = cell.run(shell("cat /m/stuck/x", bind(mine, "/m"), wall_s=0.5), ALICE)
    assert run.outcome.cause is Cause.TIMEOUT


# --- /etc, which all cells share until one is to hold more -----------------------------------------------------------


def test_a_place_can_be_made_in_etc(cell: Cell, place: Path) -> None:
    wish = shell("cat /etc/mine/note; wc -l < /etc/passwd", bind(directory(place / "mine", ALICE.uid), "/etc/mine"))
    text(place / "mine/note", ALICE.uid)
    assert cell.run(wish, ALICE).succeeded() == "content\n3\n"


def test_a_file_can_be_put_in_etc(cell: Cell) -> None:
    run = cell.run(shell("cat /etc/tool.conf; echo x > /etc/tool.conf", file("/etc/tool.conf", b"a\n")))
    assert run.stdout.startswith(b"a\n")
    assert b"Read-only file system" in run.stderr


def test_such_a_file_is_in_no_other_cell(cells: Callable[..., Cell]) -> None:
    cells().run(shell("true", file("/etc/tool.conf", b"a\n"))).succeeded()
    assert cells().run(shell("test -e /etc/tool.conf || echo absent")).succeeded() == "absent\n"
