"""What is executed is what was opened before GO: every way in which a name can come to mean another file meanwhile."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import resource
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from immured.isolation import messages
from immured.isolation.abi import BindFlag, Cause, Message, Stage
from immured.isolation.messages import Exited, Failed, PinnedFile
from tests.overlays import on_overlay
from tests.patience import PATIENCE_S
from tests.warden.cell import Cell, Peer, Pipes, Wish, bind, file

CALLER = Peer(4242, 4242)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory of the caller's own that a run may write to."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o711)
    found = tmp_path / "shared"
    found.mkdir()
    os.chown(found, CALLER.uid, CALLER.gid)
    return found


def put(path: Path, content: bytes | str, mode: int = 0o755) -> Path:
    """A file of the caller's."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    os.chown(path, CALLER.uid, CALLER.gid)
    return path


def program(path: Path, name: str) -> Path:
    """A copy of one of the host's programs."""
    return put(path, Path(f"/usr/bin/{name}").resolve().read_bytes())


def within(shared: Path, *argv: str, **more: object) -> Wish:
    """A pinned command where `shared` is /w."""
    wish = Wish(list(argv), cwd="/w", mounts=[bind(shared, "/w", BindFlag.WRITE)], pin=True)
    return replace(wish, **more)  # type: ignore[arg-type]


class Pinned:
    """A run that waits for GO."""

    def __init__(self, cell: Cell, pipes: Pipes, files: tuple[PinnedFile, ...], fds: list[int]) -> None:
        self.cell, self.pipes, self.files, self.fds = cell, pipes, files, fds

    def go(self) -> tuple[Exited | Failed, str]:
        """How it ends, and what it said."""
        self.cell.go()
        report, _ = self.cell.outcome()
        return report, self.pipes.read_all()[0].decode()

    def succeeded(self) -> str:
        report, said = self.go()
        assert isinstance(report, Exited), report
        assert (report.cause, report.si_status) == (Cause.EXITED, 0), (report, self.pipes.read_all())
        return said


@contextmanager
def pinned(cell: Cell, wish: Wish, peer: Peer = CALLER) -> Iterator[Pinned]:
    """The run, as far as PINNED."""
    with Pipes(b"") as pipes:
        cell.order(wish.packed(), pipes.theirs, peer)
        pipes.close_theirs()
        kind, number, body, fds = cell.hear()
        try:
            assert kind == Message.PINNED, messages.parse_failed(body)
            assert number == 1
            yield Pinned(cell, pipes, messages.parse_pinned(body), fds)
        finally:
            cell.call_off()
            for fd in fds:
                os.close(fd)


def digest(path: Path | str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()


# -- what is told


def read_by_payload(path: str) -> bytes | None:
    """The digest that comes with a file of the host's: none, where a descriptor to read it by does."""
    return digest(path) if on_overlay(path) else None


def test_a_program_of_the_hosts_comes_with_a_descriptor_to_be_read(cell: Cell) -> None:
    with pinned(cell, Wish(["cat", "/proc/self/comm"], pin=True)) as run:
        if (known := read_by_payload("/usr/bin/cat")) is not None:
            assert run.files == (PinnedFile(b"/usr/bin/cat", b"", known, Path("/usr/bin/cat").stat().st_size),)
            assert run.fds == []
            assert run.succeeded()
            return
        assert run.files == (PinnedFile(b"/usr/bin/cat", b"", None, 0),)
        [fd] = run.fds
        assert os.pread(fd, 1 << 24, 0) == Path("/usr/bin/cat").read_bytes()
        with pytest.raises(OSError, match="Bad file"):
            os.write(fd, b"")
        assert run.succeeded()


def test_a_callers_own_program_is_read_by_the_payloads_process(cell: Cell, shared: Path) -> None:
    mine = program(shared / "mine", "cat")
    with pinned(cell, within(shared, "./mine", "/dev/null")) as run:
        assert run.files == (PinnedFile(b"./mine", b"", digest(mine), mine.stat().st_size),)
        assert run.fds == []
        assert run.succeeded() == ""


def test_what_an_overlay_shows_is_read_by_the_payloads_process(cell: Cell, tmp_path: Path) -> None:
    """It may lie in a file system that a caller serves, who says of it that it is root's and never changes."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o711)
    lower, empty, at = (tmp_path / name for name in ("lower", "empty", "at"))
    for directory in (lower, empty, at):
        directory.mkdir(0o755)
    shutil.copy("/usr/bin/cat", lower / "tool")
    options = f"lowerdir={lower}:{empty}"
    subprocess.run(
        ["/usr/bin/mount", "-t", "overlay", "overlay", "-o", options, str(at)], check=True, timeout=PATIENCE_S
    )
    try:
        with pinned(cell, Wish(["/o/tool", "/dev/null"], mounts=[bind(at, "/o")], pin=True)) as run:
            assert (run.files[0].sha256, run.fds) == (digest("/usr/bin/cat"), [])
            assert run.succeeded() == ""
    finally:
        subprocess.run(["/usr/bin/umount", "-l", str(at)], check=True, timeout=PATIENCE_S)


def test_a_script_and_its_interpreters_are_told_in_the_order_in_which_they_are_read(cell: Cell, shared: Path) -> None:
    put(shared / "inner", '#!/bin/sh -eu\necho "$0" "$@"\n')
    put(shared / "outer", "#! \t./inner  one two \t\nnothing\n")
    with pinned(cell, within(shared, "./outer", "a", "b")) as run:
        told = [(one.path, one.argument) for one in run.files]
        assert told == [(b"./outer", b""), (b"./inner", b"one two"), (b"/bin/sh", b"-eu")]
        digests = [digest(shared / "outer"), digest(shared / "inner"), read_by_payload("/usr/bin/sh")]
        assert [one.sha256 for one in run.files] == digests
        assert run.succeeded() == "./inner one two ./outer a b\n"


@pytest.mark.parametrize("explained", [False, True])
@pytest.mark.parametrize("depth", [0, 5])
def test_a_bound_on_open_files_is_the_payloads_and_none_of_the_pins(
    cell: Cell, shared: Path, depth: int, explained: bool
) -> None:
    put(shared / "1", "#!/bin/cat /proc/self/limits\n")
    for number in range(2, 6):
        put(shared / str(number), f"#!/w/{number - 1}\n")
    wish = within(shared, f"./{depth}" if depth else "/bin/cat", "/proc/self/limits")
    wish = replace(wish, rlimits=[(resource.RLIMIT_NOFILE, 4, 4)])
    with pinned(cell, replace(wish, explained=wish.program) if explained else wish) as run:
        assert len(run.files) == depth + 1
        said = run.succeeded()
    [line] = [one for one in said.splitlines() if one.startswith("Max open files")][:1]
    assert line.split()[3:5] == ["4", "4"]


@pytest.mark.parametrize("explained", [False, True])
def test_nothing_is_left_open(cell: Cell, shared: Path, explained: bool) -> None:
    put(shared / "script", "#!/bin/sh\nls /proc/$$/fd; readlink /proc/$$/exe; cat /proc/$$/comm\n")
    wish = within(shared, "./script")
    with pinned(cell, replace(wish, explained=wish.program) if explained else wish) as run:
        said = run.succeeded().split()
    # 10: the script, as dash holds it
    assert [one for one in said if one.isdigit()] == ["0", "1", "10", "2"]
    assert said[-2:] == [os.path.realpath("/bin/sh"), Path(os.path.realpath("/bin/sh")).name]


def test_as_many_interpreters_are_followed_as_the_kernel_follows(cells: Callable[..., Cell], shared: Path) -> None:
    put(shared / "1", "#!/bin/sh\necho reached\n")
    for number in range(2, 8):
        put(shared / str(number), f"#!/w/{number - 1}\n")
    for depth, ok in ((5, True), (6, False)):
        free = cells().attempt(within(shared, f"./{depth}", pin=False), CALLER)
        if not ok:
            assert isinstance(free, Failed)
            assert free.errno == errno.ELOOP
            failure = cells().refused(within(shared, f"./{depth}"), CALLER)
            assert (failure.stage, failure.errno) == (Stage.EXEC, errno.ELOOP)
            continue
        assert not isinstance(free, Failed)
        with pinned(cells(), within(shared, f"./{depth}")) as run:
            assert run.succeeded() == free.text == "reached\n"


SHEBANGS = {
    "plain": b"#!/bin/echo\n",
    "blanks before": b"#!   \t /bin/echo\n",
    "blanks behind": b"#!/bin/echo  \t \n",
    "an argument": b"#!/bin/echo -e\n",
    "an argument with blanks in it": b"#!/bin/echo one  two\tthree  \n",
    "no newline": b"#!/bin/echo",
    "no newline, an argument": b"#!/bin/echo x",
    "a carriage return": b"#!/bin/echo\r\n",
    "a NUL in the name": b"#!/bin/echo\0x\n",
    "a NUL in the argument": b"#!/bin/echo a\0b\n",
    "nothing": b"#!\n",
    "nothing at all": b"#!",
    "only blanks": b"#!   \t\n",
    "blanks to the end": b"#!" + b" " * 300,
    "a name cut off": b"#!/" + b"x" * 300 + b"\n",
    "an argument cut off": b"#!/bin/echo " + b"y" * 300 + b"\n",
    "a name to the very end": b"#!" + b"/" * (256 - 2 - 8) + b"bin/echo",
    "a newline as the last byte": b"#!" + b"/" * (256 - 2 - 9) + b"bin/echo\n",
    "blanks, then the name, cut off": b"#!" + b" " * 249 + b"/bin/echo\n",
    "a relative name": b"#!echo\n",
    "a name that is not there": b"#!/nowhere\n",
    "a directory": b"#!/tmp\n",
    "text": b"echo hello\n",
    "empty": b"",
    "one byte": b"#",
}


@pytest.mark.parametrize("name", SHEBANGS)
def test_a_script_is_read_as_the_kernel_reads_it(cells: Callable[..., Cell], shared: Path, name: str) -> None:
    put(shared / "script", SHEBANGS[name])
    free = cells().attempt(within(shared, "./script", "arg", pin=False), CALLER)
    held = cells().attempt_pinned(within(shared, "./script", "arg"), CALLER)
    if isinstance(free, Failed):
        assert isinstance(held, Failed)
        assert (held.stage, held.errno) == (free.stage, free.errno)
    else:
        assert not isinstance(held, Failed), held
        assert (held.stdout, held.outcome.si_status) == (free.stdout, free.outcome.si_status)


# -- what is found


FOUND = {
    "by PATH": (["cat", "/dev/null"], "/usr/local/bin:/usr/bin"),
    "the first that can be executed": (["tool"], "/w/none:/w/plain:/w/dir:/w/good"),
    "the directory itself": (["tool"], ":/w/good"),
    "none that can be executed": (["tool"], "/w/none:/w/plain:/w/dir"),
    "none": (["tool"], "/w/none"),
    "a directory that is none": (["tool"], "/w/good/tool/x:/w/good"),
    "a FIFO": (["pipe"], "/w/plain"),
    "a socket": (["socket"], "/w/plain"),
    "a link": (["link"], "/w/good"),
    "a link that leads nowhere": (["lost"], "/w/good"),
    "links in a circle": (["round"], "/w/good"),
    "a FIFO by its path": (["/w/plain/pipe"], ""),
    "a directory by its path": (["/w/dir"], ""),
    "a device by its path": (["/dev/null"], ""),
    "the terminal by its path": (["/dev/tty"], ""),
    "another process's program": (["/proc/1/exe"], ""),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_program_is_found_as_it_is_without(cells: Callable[..., Cell], shared: Path, name: str) -> None:
    for directory in ("plain", "dir", "dir/tool", "good"):
        (shared / directory).mkdir()
    put(shared / "plain" / "tool", "#!/bin/sh\necho plain\n", 0o644)
    put(shared / "good" / "tool", '#!/bin/sh\necho "$0"\n')
    os.mkfifo(shared / "plain" / "pipe", 0o777)
    os.mknod(shared / "plain" / "socket", stat.S_IFSOCK | 0o777)
    for link, to in (("link", "tool"), ("lost", "nowhere"), ("round", "round")):
        (shared / "good" / link).symlink_to(to)
    argv, path = FOUND[name]
    wish = within(shared, *argv, env=[f"PATH={path}"])
    free = cells().attempt(replace(wish, pin=False), CALLER)
    held = cells().attempt_pinned(wish, CALLER)
    if isinstance(free, Failed):
        assert isinstance(held, Failed)
        assert (held.stage, held.errno, held.step is not None) == (free.stage, free.errno, True)
    else:
        assert not isinstance(held, Failed), held
        assert (held.stdout, held.outcome.si_status) == (free.stdout, free.outcome.si_status)


def test_what_may_be_executed_and_not_read_cannot_be_pinned(cells: Callable[..., Cell], tmp_path: Path) -> None:
    for directory in tmp_path.parents:
        if directory.owner() == "root" and directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o711)
    tmp_path.chmod(0o755)
    secret = tmp_path / "secret"
    shutil.copy("/usr/bin/cat", secret)
    secret.chmod(0o711)
    wish = Wish(["/s/secret", "/dev/null"], mounts=[bind(tmp_path, "/s")], pin=True)
    assert cells().run(replace(wish, pin=False), CALLER).succeeded() == ""
    failure = cells().refused(wish, CALLER)
    assert (failure.stage, failure.errno) == (Stage.PIN, errno.EACCES)
    assert failure.text.startswith("/s/secret may be executed, and not read")


def test_a_program_of_another_machines_is_none(cell: Cell, shared: Path) -> None:
    other = bytearray(Path("/usr/bin/cat").resolve().read_bytes())
    other[18:20] = (0xB7 if os.uname().machine == "x86_64" else 0x3E).to_bytes(2, "little")
    put(shared / "other", bytes(other))
    failure = cell.refused(within(shared, "./other"), CALLER)
    assert (failure.stage, failure.errno) == (Stage.EXEC, errno.ENOEXEC)


def test_a_setuid_bit_gives_nothing(cell: Cell, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    shutil.copy("/usr/bin/id", tmp_path / "id")
    (tmp_path / "id").chmod(0o6755)
    with pinned(cell, Wish(["/s/id", "-u"], mounts=[bind(tmp_path, "/s")], pin=True), Peer()) as run:
        assert run.succeeded() == "1000\n"


def test_what_is_open_to_be_written_is_not_executed(cell: Cell, shared: Path) -> None:
    mine = program(shared / "mine", "cat")
    with mine.open("r+b"):
        failure = cell.refused(within(shared, "./mine", "/dev/null"), CALLER)
    assert (failure.stage, failure.errno) == (Stage.EXEC, errno.ETXTBSY)


def test_what_a_mapping_can_still_change_is_not_executed(cell: Cell, shared: Path) -> None:
    """On tmpfs such a write changes no time, and the descriptor is closed by then."""
    mine = program(shared / "mine", "cat")
    fd = os.open(mine, os.O_RDWR)
    with mmap.mmap(fd, 4096) as mapping:
        os.close(fd)
        mapping[0] = mapping[0]
        failure = cell.refused(within(shared, "./mine", "/dev/null"), CALLER)
    assert (failure.stage, failure.errno) == (Stage.EXEC, errno.ETXTBSY)


# -- what is done to it between PINNED and GO


def replaced(path: Path, by: Path) -> None:
    os.replace(by, path)


def rewired(path: Path, to: str) -> None:
    spare = path.with_name("spare")
    spare.symlink_to(to)
    os.replace(spare, path)


def test_another_program_is_renamed_over_it(cell: Cell, shared: Path) -> None:
    mine, theirs = program(shared / "tool", "echo"), program(shared / "other", "false")
    old = digest(mine)
    with pinned(cell, within(shared, "./tool", "the old one")) as run:
        replaced(mine, theirs)
        assert run.files[0].sha256 == old
        assert run.succeeded() == "the old one\n"


def test_a_link_to_it_leads_elsewhere(cell: Cell, shared: Path) -> None:
    program(shared / "good", "echo")
    program(shared / "bad", "false")
    (shared / "tool").symlink_to("good")
    with pinned(cell, within(shared, "./tool", "the old one")) as run:
        rewired(shared / "tool", "bad")
        assert run.succeeded() == "the old one\n"


def test_it_is_removed(cell: Cell, shared: Path) -> None:
    program(shared / "tool", "echo")
    with pinned(cell, within(shared, "./tool", "still")) as run:
        (shared / "tool").unlink()
        assert run.succeeded() == "still\n"


def test_its_directory_is_moved_and_another_stands_there(cell: Cell, shared: Path) -> None:
    (shared / "bin").mkdir()
    program(shared / "bin" / "tool", "echo")
    with pinned(cell, within(shared, "bin/tool", "the old one")) as run:
        (shared / "bin").rename(shared / "old")
        (shared / "bin").mkdir()
        program(shared / "bin" / "tool", "false")
        assert run.succeeded() == "the old one\n"


def test_another_interpreter_is_renamed_over_its_own(cell: Cell, shared: Path) -> None:
    program(shared / "interpreter", "cat")
    program(shared / "other", "false")
    put(shared / "script", "#!/w/interpreter\nread by the old one\n")
    with pinned(cell, within(shared, "./script")) as run:
        replaced(shared / "interpreter", shared / "other")
        assert run.succeeded() == "#!/w/interpreter\nread by the old one\n"


def moved(shared: Path) -> None:
    (shared / "bin").rename(shared / "old")
    (shared / "bin").mkdir()
    put(shared / "bin" / "script", "#!/bin/sh\necho new\n")


SCRIPTS: dict[str, Callable[[Path], None]] = {
    "renamed over": lambda shared: replaced(shared / "bin" / "script", shared / "other"),
    "removed": lambda shared: (shared / "bin" / "script").unlink(),
    "its directory moved": moved,
    "a link rewired": lambda shared: rewired(shared / "link", "other"),
}


@pytest.mark.parametrize("how", SCRIPTS)
def test_a_script_that_is_another_by_then_is_not_executed(cell: Cell, shared: Path, how: str) -> None:
    """Its interpreter opens it by its name, once more: nothing can hold that name, and so it is looked at."""
    (shared / "bin").mkdir()
    put(shared / "bin" / "script", "#!/bin/sh\necho old\n")
    put(shared / "other", "#!/bin/sh\necho new\n")
    (shared / "link").symlink_to("bin/script")
    name = "./link" if "link" in how else "bin/script"
    with pinned(cell, within(shared, name)) as run:
        SCRIPTS[how](shared)
        report, said = run.go()
        assert isinstance(report, Failed)
        assert (report.stage, said) == (Stage.PIN, "")
        assert name in report.text


def test_a_script_that_is_an_interpreter_is_looked_at_too(cell: Cell, shared: Path) -> None:
    put(shared / "inner", "#!/bin/sh\necho old\n")
    put(shared / "other", "#!/bin/sh\necho new\n")
    put(shared / "outer", "#!/w/inner\n")
    with pinned(cell, within(shared, "./outer")) as run:
        replaced(shared / "inner", shared / "other")
        report, _ = run.go()
        assert isinstance(report, Failed)
        assert report.stage is Stage.PIN


def written(path: Path, content: bytes, flags: int = 0) -> None:
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def test_who_opens_it_to_write_does_not_wait_to_be_told_so(cell: Cell, shared: Path) -> None:
    mine = program(shared / "tool", "echo")
    with pinned(cell, within(shared, "./tool", "the old one")) as run:
        with pytest.raises(BlockingIOError):
            written(mine, b"nothing", os.O_NONBLOCK)
        assert run.succeeded() == "the old one\n"


@pytest.mark.parametrize("cuts", [False, True])
def test_who_writes_to_it_comes_too_late_or_keeps_it_from_running(cell: Cell, shared: Path, cuts: bool) -> None:
    mine, other = program(shared / "tool", "echo"), Path("/usr/bin/false").resolve().read_bytes()
    with pinned(cell, within(shared, "./tool", "the old one")) as run, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(written, mine, other, os.O_TRUNC if cuts else 0)
        assert not wait([writing], 0.3).done, "it was written to before it was executed"
        report, said = run.go()
        if isinstance(report, Failed):
            assert (report.stage, report.errno, said) == (Stage.EXEC, errno.ETXTBSY, "")
        else:
            assert said == "the old one\n"
        with suppress(OSError):  # ETXTBSY: it was late
            writing.result(PATIENCE_S)


def test_a_script_is_held_until_its_interpreter_runs(cell: Cell, shared: Path) -> None:
    script = put(shared / "script", "#!/bin/sh\necho old\n")
    with pinned(cell, within(shared, "./script")) as run:
        with pytest.raises(BlockingIOError):
            written(script, b"#!/bin/sh\necho new\n", os.O_NONBLOCK)
        assert run.succeeded() == "old\n"


def test_anothers_file_that_changes_is_not_executed(cell: Cell, shared: Path) -> None:
    """Nobody but its owner may hold it."""
    tool = program(shared / "tool", "echo")
    os.chown(tool, 4343, 4343)
    with pinned(cell, within(shared, "./tool", "it")) as run:
        written(tool, Path("/usr/bin/false").resolve().read_bytes())
        report, _ = run.go()
        assert isinstance(report, Failed)
        assert report.stage is Stage.PIN
        assert report.text.startswith("./tool was changed after it was read")


def test_anothers_file_that_changes_and_keeps_its_times_is_not_executed(cell: Cell, tmp_path: Path) -> None:
    """As it does in one tick of the clock that they are from. Here by a mapping, which on tmpfs changes them once."""
    at = tmp_path / "memory"
    at.mkdir()
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o711)
    subprocess.run(
        ["/usr/bin/mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(at)], check=True, timeout=PATIENCE_S
    )
    try:
        tool, other = program(at / "tool", "echo"), Path("/usr/bin/false").resolve().read_bytes()
        os.chown(tool, 4343, 4343)
        fd = os.open(tool, os.O_RDWR)
        with mmap.mmap(fd, 0) as mapping:
            os.close(fd)
            mapping[: len(other)] = mapping[: len(other)]
            changed = tool.stat()
            wish = Wish(["/w/tool", "it"], mounts=[bind(at, "/w")], pin=True)
            with pinned(cell, wish) as run:
                mapping[: len(other)] = other
                mapping.close()
                now = tool.stat()
                assert (now.st_mtime_ns, now.st_ctime_ns) == (changed.st_mtime_ns, changed.st_ctime_ns)
                report, said = run.go()
        assert isinstance(report, Failed), said
        assert report.stage is Stage.PIN
        assert report.text.startswith("/w/tool was changed after it was read")
    finally:
        subprocess.run(["/usr/bin/umount", "-l", str(at)], check=True, timeout=PATIENCE_S)


def test_anothers_file_that_is_as_it_was_is_executed(cell: Cell, shared: Path) -> None:
    tool = program(shared / "tool", "echo")
    os.chown(tool, 4343, 4343)
    with pinned(cell, within(shared, "./tool", "it")) as run:
        os.utime(tool)
        os.link(tool, shared / "another name")
        assert run.succeeded() == "it\n"


def test_it_is_called_off(cell: Cell) -> None:
    with pinned(cell, Wish(["true"], pin=True)):
        cell.call_off()
        assert cell.failure().stage is Stage.KILLED


def test_it_is_killed_before_go(cell: Cell) -> None:
    with pinned(cell, Wish(["true"], pin=True)):
        cell.kill()
        assert cell.failure().stage is Stage.KILLED


def test_a_file_of_the_plans_can_be_executed(cell: Cell) -> None:
    with pinned(cell, Wish(["/tmp/x"], mounts=[file("/tmp/x", b"#!/bin/sh\necho put in\n", 0o755)], pin=True)) as run:
        assert run.files[0].sha256 == hashlib.sha256(b"#!/bin/sh\necho put in\n").digest()
        assert run.succeeded() == "put in\n"
