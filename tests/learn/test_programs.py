"""What is learned from real programs lets them run: with no violation, with the same end, and with no line to spare."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.learn.conftest import CALLER, Immure


def learned(immure: Immure, world: Path, *command: str, status: int = 0, options: tuple[str, ...] = ()) -> str:
    target = world / "home" / "learned.toml"
    said = immure("learn", "-o", str(target), "--see", str(world / "data"), *options, "--", *command)
    assert said.status == status, said
    return target.read_text()


def run_under(immure: Immure, world: Path, text: str, *command: str) -> dict[str, Any]:
    manifest = world / "home" / "tried.toml"
    # Three times as long as it took would be enough, were the host as busy both times.
    manifest.write_text(re.sub(r'(?m)^(wall|cpu_time) = "\d+s"', r'\1 = "5m"', text))
    manifest.chmod(0o644)
    said = immure("run", "--json", "--manifest", str(manifest), "--", *command)
    result: dict[str, Any] = json.loads(said.out) if said.out else {"failure": said.err, "exit_code": None}
    return result


def tree(world: Path) -> dict[str, bytes]:
    """Every file's bytes, but for manifests."""
    found = (one for one in sorted(world.rglob("*")) if "toml" not in one.name)
    return {str(one): one.read_bytes() if one.is_file() else b"" for one in found}


def grants(text: str) -> list[str]:
    """The lines of a manifest that grant something: an entry of read or write, or a call."""
    return [line for line in text.splitlines() if re.match(r'  "[^"]+",  # (?!only known)', line)]


SCRIPT = "cat src/a {data}/deep/one && echo new > out/made && chmod 600 src/b && test -d {data}/looked"


@pytest.fixture
def script(world: Path) -> list[str]:
    (world / "data" / "looked").mkdir()
    return ["/bin/sh", "-c", SCRIPT.format(data=world / "data")]


def test_a_script_passes_under_what_it_taught(immure: Immure, world: Path, script: list[str]) -> None:
    before = tree(world)
    text = learned(immure, world, *script)
    assert tree(world) == before, "nothing of the host's changed"

    result = run_under(immure, world, text, *script)
    assert (result["exit_code"], result["violations"]) == (0, [])
    assert (world / "project/out/made").read_text() == "new\n"


def test_no_grant_can_be_spared(immure: Immure, world: Path, script: list[str]) -> None:
    text = learned(immure, world, *script)
    lines = grants(text)
    assert len(lines) == 5, lines
    for line in lines:
        result = run_under(immure, world, text.replace(line + "\n", ""), *script)
        assert result["exit_code"] != 0 or result["violations"], f"spared: {line}"


def test_a_call_beyond_every_profile_is_granted_by_name(immure: Immure, world: Path) -> None:
    """ptrace(PTRACE_TRACEME): in no shipped profile, and no wall's."""
    command = ["python3", "-c", "import ctypes; print(ctypes.CDLL(None).ptrace(0, 0, 0, 0))"]
    text = learned(immure, world, *command)
    assert tomllib.loads(text)["syscalls"]["allow"] == ["ptrace"]
    kept = run_under(immure, world, text, *command)
    assert (kept["stdout"], kept["violations"]) == ("0\n", [])
    without = run_under(immure, world, text.replace('  "ptrace",  # beyond the profile\n', ""), *command)
    assert (without["stdout"], [one["syscall"] for one in without["violations"]]) == ("-1\n", ["ptrace"])


def test_the_smallest_profile_and_no_network_for_who_computes(immure: Immure, world: Path) -> None:
    text = learned(immure, world, "/bin/true")
    found = tomllib.loads(text)
    took, used = (int(re.findall(rf"# {word} (\d+) ms", text)[0]) for word in ("took", "used"))
    assert found["syscalls"] == {"profile": "compute"}
    assert found["network"] == {"mode": "none"}
    assert "filesystem" not in found
    times = {"wall": f"{max(10, -(-3 * took // 1000))}s", "cpu_time": f"{max(5, -(-3 * used // 1000))}s"}
    assert found["limits"] == times | {
        name: found["limits"][name] for name in ("memory", "pids") if name in found["limits"]
    }


SERVER = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).sendall(b"x")
print(server.accept()[0].recv(1))
"""


def test_loopback_where_it_was_used(immure: Immure, world: Path) -> None:
    text = learned(immure, world, "python3", "-c", SERVER)
    assert tomllib.loads(text)["network"] == {"mode": "loopback"}
    assert tomllib.loads(text)["syscalls"]["profile"] == "default"
    result = run_under(immure, world, text, "python3", "-c", SERVER)
    assert (result["exit_code"], result["violations"]) == (0, [])


def test_an_exit_status_is_the_commands(immure: Immure, world: Path) -> None:
    text = learned(immure, world, "/bin/sh", "-c", "cat src/a; exit 7", status=7)
    assert "# It ended with exit status 7." in text
    assert run_under(immure, world, text, "/bin/sh", "-c", "cat src/a; exit 7")["exit_code"] == 7


def test_a_script_of_the_callers_own_is_granted_with_what_interprets_it(immure: Immure, world: Path) -> None:
    shutil.copy("/bin/sh", world / "project/shell")
    (world / "project/work").write_text(f"#!{world}/project/shell\nread line < src/a; echo done\n")
    for name in ("shell", "work"):
        (world / "project" / name).chmod(0o755)
    text = learned(immure, world, "./work")
    result = run_under(immure, world, text, "./work")
    assert (result["stdout"], result["violations"]) == ("done\n", [])


@pytest.mark.parametrize("name", ["python3", "make", "git", "gcc"])
def test_a_real_program_passes_under_what_it_taught(immure: Immure, world: Path, name: str) -> None:
    project = world / "project"
    if name == "python3":
        code = "import json, pathlib; pathlib.Path('out/json').write_text(json.dumps([open('src/a').read()]))"
        command = ["python3", "-c", code]
    elif name == "make":
        (project / "Makefile").write_text("out/all: src/a src/b\n\tcat src/a src/b > $@\n")
        command = ["make"]
    elif name == "gcc":
        (project / "src/main.c").write_text('#include "own.h"\nint main(void) { return OWN; }\n')
        (project / "src/own.h").write_text("#define OWN 0\n")
        command = ["gcc", "-o", "out/main", "src/main.c"]
    else:
        author = ["-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "x"]):
            environment = {"HOME": "/tmp", "PATH": "/usr/bin:/bin"}
            subprocess.run(["git", *words], cwd=project, check=True, user=CALLER, group=CALLER, env=environment)
        command = ["git", "log", "--oneline", "--stat"]
    before = tree(world)
    text = learned(immure, world, *command)
    assert tree(world) == before
    result = run_under(immure, world, text, *command)
    assert (result["exit_code"], result["violations"]) == (0, []), f"{text}\n{result}"
    if name == "gcc":
        assert subprocess.run([project / "out/main"], check=False).returncode == 0


POOL = """
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    print(list(ProcessPoolExecutor(2).map(abs, [-1])))
"""
SQLITE = "import sqlite3; c = sqlite3.connect('out/db'); c.execute('create table if not exists t (a)'); c.commit()"
COMMIT = "git init -q . && git add src && git -c user.name=a -c user.email=a@b commit -qm x; rm -rf .git"
COMMANDS = {
    "a repository made and removed": ["sh", "-c", COMMIT],
    "a database": ["python3", "-c", SQLITE],
    "a pool of processes": ["python3", "-c", POOL],
    "a file replaced": ["sed", "-i", "s/A/AA/", "src/a"],
    "a tree walked": ["find", ".", "-name", "a"],
    "names moved": ["sh", "-c", "mv src/a src/c && mv src/c src/a && ln -s a src/l && rm src/l && touch src/b"],
    "an environment": ["python3", "-m", "venv", "--without-pip", "out/v"],
}


@pytest.mark.parametrize("what", COMMANDS)
def test_ways_of_writing_pass_under_what_they_taught(immure: Immure, world: Path, what: str) -> None:
    before = tree(world)
    text = learned(immure, world, *COMMANDS[what])
    assert tree(world) == before
    result = run_under(immure, world, text, *COMMANDS[what])
    assert (result["exit_code"], result["violations"]) == (0, []), f"{text}\n{result}"
