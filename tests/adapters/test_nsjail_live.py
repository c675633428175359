"""nsjail's configs against a real daemon. With NSJAIL_CONFIGS=DIR, its own beside those written for these tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from immured.adapters.imported import Imported
from immured.adapters.nsjail import import_nsjail
from immured.cli.surroundings import Here
from tests.adapters.conftest import Run, give

pytestmark = pytest.mark.needs_root
OURS = Path(__file__).parent / "nsjail"
THEIRS = {
    "shell": "bash-with-fake-geteuid.cfg",
    "static": "static-busybox-with-execveat.cfg",
    "convert": "imagemagick-convert.cfg",
    "chat": "weechat-with-net.cfg",
}
CONVERT = """
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv)
{
  char text[64];
  const int in = open(argv[1], O_RDONLY), out = open(argv[2], O_WRONLY | O_CREAT, 0644);
  const ssize_t got = read(in, text, sizeof text);
  for (ssize_t i = 0; i < got; i++)
    text[i] -= text[i] >= 'a' && text[i] <= 'z' ? 32 : 0;
  return argc == 3 && write(out, text, got) == got && socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? 0 : 1;
}
"""


@pytest.fixture(params=["ours", "theirs"] if os.environ.get("NSJAIL_CONFIGS") else ["ours"])
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def imported(source: str, name: str, home: Path, **replaced: str) -> Imported:
    path = OURS / f"{name}.cfg" if source == "ours" else Path(os.environ["NSJAIL_CONFIGS"], THEIRS[name])
    text = path.read_text()
    for old, new in replaced.items():
        text = text.replace(f"/bin/{old}", new)
    return import_nsjail(text, Here(str(home), {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}))


def compiled(directory: Path, program: str) -> Path:
    """A static program, as a config needs one that runs in an empty root."""
    compiler = shutil.which("cc")
    assert compiler is not None
    made = directory / "program"
    done = subprocess.run(
        [compiler, "-static", "-O1", "-x", "c", "-o", made, "-"],
        input=program,
        text=True,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return made


def test_a_shell_in_a_jail(run: Run, source: str, workspace: Path) -> None:
    found = imported(source, "shell", workspace)
    assert found.argv == ("/bin/bash", "-i")
    line = (
        "pwd; echo $HOME; ulimit -n; echo x > /usr/x; echo '#!/bin/true' > t; chmod +x t; ./t; echo $?;"
        "head -c 70000 /dev/zero > big; ls /home /var/lib /root 2>/dev/null; cat /etc/resolv.conf; cat /dev/fd/0"
    )
    result = run(found, "/bin/bash", "-c", line, stdin=b"in")
    assert result.stdout == b"/tmp\n/\n32\n126\nin"
    assert b"Read-only file system" in result.stderr
    assert b"File too large" in result.stderr or b"No space left" in result.stderr or result.cause != "exited"
    euid = run(found, "/usr/bin/python3", "-c", "import ctypes; libc = ctypes.CDLL(None); print(libc.geteuid())")
    assert euid.stdout == b"-1\n"  # refused: nsjail's own answer was another number


def test_a_shell_in_a_jail_has_the_configs_variables_and_no_others(run: Run, source: str, workspace: Path) -> None:
    found = imported(source, "shell", workspace)
    said = dict(line.split("=", 1) for line in run(found, "/usr/bin/env").stdout.decode().splitlines())
    command = found.manifest["command"]
    assert isinstance(command, dict)
    assert {*said} == {*command["env"], "PATH", "USER", "LANG", "TMPDIR"}
    assert said["PS1"] == command["env"]["PS1"]


def test_a_static_program_in_an_empty_root(run: Run, source: str, workspace: Path) -> None:
    """Where this host has no static busybox, one program of the test's stands in its place."""
    program = Path("/bin/busybox")
    if not program.exists():
        program = compiled(workspace, 'int main(void) { return access("/usr/bin/env", 0) ? 0 : 1; }\n')
        give(workspace)
        assert run(imported(source, "static", workspace, busybox=str(program))).exit_code == 0
        return
    found = imported(source, "static", workspace)
    result = run(found, "/bin/busybox", "sh", "-c", "busybox ls /usr/lib /usr/share /home; exec /usr/bin/env")
    assert b"env" not in result.stdout
    assert result.exit_code in (126, 127)  # its loader is not in the jail


def test_a_static_program_from_elsewhere_is_all_that_there_is(run: Run, source: str, workspace: Path) -> None:
    compiled(workspace, '#include <unistd.h>\nint main(void) { return access("/usr/bin/env", F_OK) == 0; }\n')
    give(workspace)
    found = imported(source, "static", workspace, busybox=f"{workspace}/program")
    assert run(found).exit_code == 0


def test_a_converter_with_a_list_of_allowed_calls(run: Run, source: str, workspace: Path) -> None:
    (workspace / "Documents").mkdir()
    compiled(workspace / "Documents", CONVERT)
    (workspace / "Documents/in.txt").write_text("words\n")
    give(workspace)
    found = imported(source, "convert", workspace)
    assert any(
        one.verdict == "lost" and "not there on this host" in one.words for one in found.findings
    ) or shutil.which("convert")
    result = run(found, "/user/Documents/program", "/user/Documents/in.txt", "/user/Documents/out.txt")
    assert result.exit_code == 0, (result.cause, result.stderr, result.failure)
    assert (workspace / "Documents/out.txt").read_text() == "WORDS\n"
    assert "socket" in {one.syscall for one in result.violations}


def test_a_client_with_a_home_of_its_own(run: Run, source: str, workspace: Path) -> None:
    (workspace / ".weechat").mkdir()
    (workspace / ".ssh").mkdir()
    give(workspace)
    found = imported(source, "chat", workspace)
    assert any(one.source == "user_net" and one.verdict == "lost" for one in found.findings)
    line = (
        "echo $HOME; pwd; ls -A $HOME; echo x > $HOME/.weechat/log; echo y > $HOME/scratch;"
        "ls /usr/include; test -d /etc/ssl/certs && echo certs"
    )
    result = run(found, "/bin/sh", "-c", line)
    assert result.stdout.decode() == f"{workspace}\n/tmp\n.weechat\ncerts\n"
    assert (workspace / ".weechat/log").read_text() == "x\n"
    assert sorted(os.listdir(workspace)) == [".ssh", ".weechat"]
