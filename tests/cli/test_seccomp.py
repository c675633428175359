"""`immure seccomp`: a filter asked, a profile imported; as a user would, without a daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.isolation.profiles import parse_profile
from tests.patience import PATIENCE_S

Seccomp = Callable[..., subprocess.CompletedProcess[str]]
NEEDED = "execve execveat exit exit_group read write clock_gettime rt_sigreturn restart_syscall".split()
ENTRY = {"names": NEEDED}
DOCUMENT = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "syscalls": [{**ENTRY, "action": "SCMP_ACT_ALLOW"}, {"names": ["mount", "lseek"], "action": "SCMP_ACT_LOG"}],
}


@pytest.fixture
def seccomp(tmp_path: Path) -> Seccomp:
    def call(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "immured.cli", "seccomp", *arguments],
            input=stdin, capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    return call


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("read", "read(): allow"),
        ("openat 3 0 0x0", "openat(3, 0, 0x0): allow"),
        ("openat 3 0 0x41 0o644", "openat(3, 0, 0x41, 0o644): allow (explained)"),
        ("openat 3 0 0x41 0o4755", "openat(3, 0, 0x41, 0o4755): errno:EPERM (explained)"),
        ("personality -1", "personality(-1): allow"),
        ("clone3", "clone3(): errno:ENOSYS"),
        ("bpf", "bpf(): errno:EPERM"),
        ("9999", "9999(): errno:ENOSYS"),
        ("0x40000001", "0x40000001(): kill"),
        ("ptrace 0", "ptrace(0): errno:EPERM (explained)"),
        ("ptrace 0 --allow @debug", "ptrace(0): allow"),
        ("socket 1 --profile compute", "socket(1): errno:EPERM (explained)"),
        ("sync --deny sync", "sync(): errno:EPERM (explained)"),
    ],
)
def test_a_call_is_answered(seccomp: Seccomp, asked: str, answer: str) -> None:
    done = seccomp("ask", "--arch", "x86_64", *asked.split())
    assert (done.stdout, done.returncode) == (answer + "\n", 0), done.stderr


def test_an_answer_as_json(seccomp: Seccomp) -> None:
    answer = json.loads(seccomp("ask", "--arch", "aarch64", "--json", "openat", "3", "0", "1").stdout)
    instructions = answer.pop("instructions")
    assert 3 < instructions < 40
    assert answer == {
        "call": "openat", "number": 56, "architecture": "aarch64", "arguments": [3, 0, 1], "profile": "default",
        "answer": "allow", "explained": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "said", "status"),
    [
        ("opnat", "opnat is not a system call, did you mean openat?", 2),
        ("open --arch aarch64", "open is no system call of aarch64", 2),
        ("socketcall", "socketcall is no system call of", 2),
        ("read x", "x is not a number", 2),
        ("read 0x10000000000000000", "does not fit 64 bits", 2),
        ("read 1 2 3 4 5 6 7", "at most six arguments", 2),
        ("read --profile defualt", "did you mean default?", 1),
        ("read --allow mount", "no profile can allow mount", 1),
    ],
)
def test_a_question_that_is_none_is_a_named_fault(seccomp: Seccomp, asked: str, said: str, status: int) -> None:
    done = seccomp("ask", *asked.split())
    assert (said in done.stderr, done.returncode, done.stdout) == (True, status, ""), done.stderr


def test_an_imported_profile_can_be_installed_and_asked(seccomp: Seccomp, tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text(json.dumps(DOCUMENT))
    (tmp_path / "profiles").mkdir()
    done = seccomp("import", "theirs.json", "-o", "profiles/theirs.toml")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == "immure: note: walls: no profile can allow it: refused with EPERM: mount\n"
    asked = seccomp("ask", "--state", str(tmp_path), "--profile", "theirs", "lseek")
    assert asked.stdout == "lseek(): log\n", asked.stderr


def test_an_imported_profile_goes_to_standard_output(seccomp: Seccomp) -> None:
    done = seccomp("import", "-", "--name", "theirs", stdin=json.dumps(DOCUMENT))
    assert done.returncode == 0, done.stderr
    assert parse_profile("theirs", done.stdout).calls >= set(ENTRY["names"])


@pytest.mark.parametrize(
    ("options", "stdin", "said"),
    [
        (["--name", "theirs"], "{", "bad_profile: the document: Expecting"),
        (["--name", "default"], json.dumps(DOCUMENT), "'default' is no name for a profile"),
        ([], json.dumps(DOCUMENT), "is no name for a profile"),
        (["--name", "theirs", "--kernel", "six"], json.dumps(DOCUMENT), "six is not a version"),
        (["--name", "theirs", "-o", "no/where.toml"], json.dumps(DOCUMENT), "bad_profile: no/where.toml: No such file"),
    ],
)
def test_an_import_that_fails_says_why_and_writes_nothing(
    seccomp: Seccomp, options: list[str], stdin: str, said: str
) -> None:
    done = seccomp("import", "-", *options, stdin=stdin)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert done.stdout == ""
