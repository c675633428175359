"""`immure run` and its neighbours against a real daemon: what a person at a shell sees."""

from __future__ import annotations

import json
import os
import pty
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.patience import PATIENCE_S, until

pytestmark = pytest.mark.needs_root

LASTING = ["sh", "-c", "echo up; sleep 600"]
NOBODY = pwd.getpwnam("nobody")
Immure = Callable[..., "subprocess.CompletedProcess[bytes]"]
Line = Callable[..., list[str]]


@pytest.fixture(scope="module")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running


@pytest.fixture
def workspace() -> Iterator[Path]:
    """A directory of nobody's, with a program in it."""
    base = Path(tempfile.mkdtemp(prefix="immured-cli-"))
    (base / "app.py").write_text("import os\nopen('out/result', 'w').write(os.getcwd())\n")
    for path in (base, base / "app.py"):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    yield base
    shutil.rmtree(base)


@pytest.fixture
def immure(daemon: ThrowawayDaemon, entry: list[str]) -> Immure:
    def call(
        subcommand: str, *arguments: str, cwd: Path = Path("/"), stdin: bytes = b"", sudo: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
        if sudo:
            environment |= {"SUDO_UID": str(NOBODY.pw_uid), "SUDO_GID": str(NOBODY.pw_gid)}
        return subprocess.run(
            [*entry, *subcommand.split(), "--state", str(daemon.state), *arguments],
            input=stdin, capture_output=True, cwd=cwd, env=environment, timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    return call


@pytest.fixture
def line(daemon: ThrowawayDaemon, entry: list[str]) -> Line:
    """A whole command line of `immure run`."""
    return lambda *arguments: [*entry, "run", "--state", str(daemon.state), *arguments]


def new_key(path: Path) -> str:
    """Make a key; its public half in hex."""
    made = subprocess.run(
        [sys.executable, "-m", "immured.cli", "key", "new", "--out", str(path), "--json"],
        capture_output=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    return str(json.loads(made.stdout)["public"])


def test_output_comes_through(immure: Immure) -> None:
    done = immure("run", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 0)


def test_input_goes_in(immure: Immure) -> None:
    assert immure("run", "--", "tr", "a-z", "A-Z", stdin=b"hello\n").stdout == b"HELLO\n"


def test_a_mebibyte_goes_in_and_comes_out(immure: Immure) -> None:
    data = bytes(range(256)) * 4096
    assert immure("run", "--", "cat", stdin=data).stdout == data


def test_the_separator_is_not_needed_before_a_command_with_options_of_its_own(immure: Immure) -> None:
    assert immure("run", "echo", "--json", "-n").stdout == b"--json -n\n"


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_the_exit_status_is_the_commands(immure: Immure, status: int) -> None:
    assert immure("run", "--", "sh", "-c", f"exit {status}").returncode == status


def test_a_signal_is_128_and_its_number(immure: Immure) -> None:
    assert immure("run", "--", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_past_its_time_is_124_and_named(immure: Immure) -> None:
    done = immure("run", "--wall", "300ms", "--", "sleep", "60")
    assert done.returncode == 124
    assert b"immure: timeout: " in done.stderr


def test_a_program_that_is_not_there_is_127(immure: Immure) -> None:
    done = immure("run", "--", "no-such-program")
    assert done.returncode == 127
    assert b"immure: executable_not_found: " in done.stderr


def test_a_file_that_is_no_program_is_126(immure: Immure) -> None:
    assert immure("run", "--", "/etc/passwd").returncode == 126


def test_a_path_that_is_not_there_is_125_with_a_remedy(immure: Immure) -> None:
    done = immure("run", "--ro", "/no/such/path", "--", "true")
    assert done.returncode == 125
    assert b"immure: path_missing: " in done.stderr
    assert b"\nremedy: " in done.stderr


@pytest.mark.parametrize("wrong", [["--memory"], ["--no-such", "--", "true"], ["--pids", "many", "--", "true"], []])
def test_a_mistake_in_the_options_is_125_too(immure: Immure, wrong: list[str]) -> None:
    done = immure("run", *wrong)
    assert done.returncode == 125
    assert done.stderr.startswith(b"immure: usage: ")


def test_a_limit_that_makes_no_sense_is_refused_by_name(immure: Immure) -> None:
    done = immure("run", "--memory", "plenty", "--", "true")
    assert done.returncode == 125
    assert b"memory" in done.stderr


def test_without_a_daemon_the_remedy_says_so(tmp_path: Path, line: Line) -> None:
    done = subprocess.run(
        [*line("--socket", str(tmp_path / "none.sock"), "--", "true")],
        capture_output=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 125
    assert b"\nremedy: " in done.stderr


def test_the_newcomers_line(immure: Immure, workspace: Path) -> None:
    done = immure("run", "--as", "nobody", "--ro", ".", "--rw", "out", "--", "python3", "app.py", cwd=workspace)
    assert (done.returncode, (workspace / "out" / "result").read_text()) == (0, str(workspace)), done.stderr
    assert b"note: made " in done.stderr


LATE = """
import importlib.abc, sys
from immured.cli import acting, main, session

class Late(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        sys.stderr.write(f"imported late: {name}\\n")

def become(*user, **how):
    acting.become(*user, **how)
    sys.meta_path.insert(0, Late())

session.become = become
main()
"""


@pytest.mark.parametrize(
    "words",
    ["run --manifest m.toml -- true", "run --manifest m.toml --json -- sh -c 'echo > /etc/x'", "run --ro . -- absent",
     "plan --manifest m.toml -- true", "status", "learn -o out.toml -- true", "learn -o m.toml --merge -- true"],
)  # fmt: skip
def test_who_acts_for_another_has_imported_everything_before(
    words: str, daemon: ThrowawayDaemon, workspace: Path
) -> None:
    """The interpreter's library and the package may stand where only root reads."""
    (workspace / "m.toml").write_text("schema = 1\nname = 'm'\n")
    subcommand, *rest = shlex.split(words)
    done = subprocess.run(
        [sys.executable, "-c", LATE, subcommand, "--state", str(daemon.state), "--as", "nobody", *rest],
        capture_output=True, cwd=workspace, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert b"imported late" not in done.stderr, done.stderr.decode()
    assert b"Traceback" not in done.stderr, done.stderr.decode()


def test_what_it_writes_belongs_to_who_called_sudo(immure: Immure, workspace: Path) -> None:
    done = immure("run", "--ro", ".", "--rw", "out", "--", "python3", "app.py", cwd=workspace, sudo=True)
    owners = {path.stat().st_uid for path in (workspace / "out", workspace / "out" / "result")}
    assert owners == {NOBODY.pw_uid}, done.stderr
    assert b"acting as nobody" in done.stderr


def test_what_it_may_only_read_stays_as_it_was(immure: Immure, workspace: Path) -> None:
    done = immure("run", "--as", "nobody", "--ro", ".", "--", "sh", "-c", "echo x > planted", cwd=workspace)
    assert done.returncode != 0
    assert not (workspace / "planted").exists()


def test_who_acts_for_another_reads_no_more_than_they(immure: Immure, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root's")
    (tmp_path / "secret").chmod(0o600)
    done = immure("run", "--as", "nobody", "--ro", str(tmp_path / "secret"), "--", "cat", str(tmp_path / "secret"))
    assert (done.returncode, done.stdout) == (125, b"")


def test_a_path_can_stand_elsewhere_inside(immure: Immure, workspace: Path) -> None:
    done = immure("run", "--as", "nobody", "--ro", ".:/app", "--", "pwd", cwd=workspace)
    assert done.stdout == b"/app\n"


def test_a_variable_is_set(immure: Immure) -> None:
    assert immure("run", "--env", "GREETING=hello", "--", "sh", "-c", 'echo "$GREETING"').stdout == b"hello\n"


def test_json_prints_the_record(immure: Immure) -> None:
    done = immure("run", "--json", "--wall", "20s", "--", "sh", "-c", "echo hello; exit 3")
    told = json.loads(done.stdout)
    assert done.returncode == 3
    assert (told["cause"], told["exit_code"], told["stdout"]) == ("exited", 3, "hello\n")
    assert told["streams"]["stdout"]["length"] == 6
    assert told["enforcement"]["wall"]
    assert told["receipt"]["seq"] > told["intent"]["seq"]


def test_a_command_that_does_not_read_ends_although_our_input_stays_open(line: Line) -> None:
    with subprocess.Popen(line("--", "true"), stdin=subprocess.PIPE) as process:
        assert process.wait(PATIENCE_S) == 0


def test_a_terminal_line_reaches_the_command_at_once(line: Line) -> None:
    ours, theirs = pty.openpty()
    try:
        command = line("--", "head", "-n1")
        with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE) as process:
            os.write(ours, b"typed\n")
            assert process.stdout is not None
            assert process.stdout.read() == b"typed\n"
            assert process.wait(PATIENCE_S) == 0
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_us_ends_the_run(immure: Immure, number: signal.Signals, line: Line) -> None:
    with subprocess.Popen(line("--", *LASTING), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 128 + number
    until(lambda: not json.loads(immure("status", "--json").stdout)["live"])


def test_when_nobody_reads_our_output_the_run_ends(line: Line) -> None:
    with subprocess.Popen(line("--", "yes"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 141


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors_are_nobodys(closed: str, line: Line) -> None:
    shell = shlex.join(line("--", "sh", "-c", "cat; echo out; echo err >&2"))
    done = subprocess.run(["/bin/sh", "-c", f"{shell} {closed}"], capture_output=True, timeout=PATIENCE_S, check=False)
    expected = (b"" if ">&-" in closed.split() else b"out\n", b"" if "2>&-" in closed else b"err\n")
    assert (done.returncode, (done.stdout, done.stderr)) == (0, expected)


def test_a_full_disk_behind_our_output_is_named(line: Line) -> None:
    with open("/dev/full", "wb") as full:
        command = line("--", "echo", "hello")
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False)
    assert done.returncode == 125
    assert b"immure: input_output: " in done.stderr


def test_output_that_does_not_block_comes_whole(line: Line) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    command = line("--", "head", "-c", "1000000", "/dev/zero")
    with subprocess.Popen(command, stdout=write) as process, open(read, "rb") as output:
        os.close(write)
        assert len(output.read()) == 1_000_000
        assert process.wait(PATIENCE_S) == 0


def test_a_sandbox_can_be_ended_by_its_name(immure: Immure, line: Line) -> None:
    with subprocess.Popen(line("--", *LASTING), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        runs: list[dict[str, str]] = []

        def alone() -> bool:
            """What others of this daemon's left may take a while to end."""
            runs[:] = json.loads(immure("status", "--json").stdout)["runs"]
            return len(runs) == 1

        until(alone)
        (live,) = runs
        assert immure("kill", live["sandbox"]).returncode == 0
        assert process.wait(PATIENCE_S) == 137


def test_a_plan_shows_the_steps_and_runs_nothing(immure: Immure, workspace: Path) -> None:
    done = immure("plan", "--rw", str(workspace), "--memory", "64M", "--", "touch", str(workspace / "ran"))
    assert done.returncode == 0, done.stderr
    assert b"seccomp" in done.stdout
    assert str(workspace).encode() in done.stdout
    assert not (workspace / "ran").exists()


def test_a_plan_as_json_names_what_holds_each_limit(immure: Immure) -> None:
    told = json.loads(immure("plan", "--json", "--", "true").stdout)
    assert told["steps"][-1]["step"] == "exec"
    assert set(told["enforcement"]) <= set(told["limits"])


def test_a_new_key_is_let_in_and_listed(immure: Immure, entry: list[str], tmp_path: Path) -> None:
    public, name = new_key(tmp_path / "key.pem"), f"newcomer-{Path(entry[0]).name}"
    assert immure("key add", name, public, "--uid", "0").returncode == 0
    assert name.encode() in immure("key list").stdout
    done = immure("run", "--key", str(tmp_path / "key.pem"), "--", "echo", "in")
    assert done.stdout == b"in\n"


def test_a_key_that_nobody_let_in_is_refused(immure: Immure, tmp_path: Path) -> None:
    new_key(tmp_path / "key.pem")
    done = immure("run", "--key", str(tmp_path / "key.pem"), "--", "true")
    assert done.returncode == 125
    assert done.stderr.startswith(b"immure: unknown_key: ")


def test_the_readmes_program_prints_what_the_readme_says(daemon: ThrowawayDaemon) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    program = readme.partition("```python\n")[2].partition("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=PATIENCE_S,
        env={"IMMURE_SOCKET": str(daemon.socket), "IMMURE_KEY": str(daemon.admin_key)},
    )  # fmt: skip
    assert done.stdout.startswith(b"exited 0 b'45\\n'\n")


def test_init_refuses_a_directory_that_is_in_use(immure: Immure, daemon: ThrowawayDaemon) -> None:
    done = immure("init")
    assert done.returncode == 1
    assert b"immure: state_exists: " in done.stderr
