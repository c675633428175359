"""Every way to write: outside of what may be written it is denied and named, inside it succeeds and is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from immured import Client
from immured.client.outcome import RunResult

HERE = Path(__file__).parent
PROGRAM = (HERE / "ways.py").read_bytes()
WAYS = subprocess.run(
    [sys.executable, HERE / "ways.py", "", "list"], check=True, capture_output=True, text=True
).stdout.split()  # fmt: skip


def tried(client: Client, *arguments: str, manifest: dict[str, object] | None = None) -> RunResult:
    result = client.run(
        ["/usr/bin/python3", "-I", "/tmp/ways.py", *arguments],
        files={"/tmp/ways.py": PROGRAM},
        manifest={"schema": 1, "name": "ways", **(manifest or {})},
    )
    assert result.exit_code == 0, result.stderr.decode()
    return result


@pytest.mark.parametrize("way", WAYS)
def test_a_write_outside_is_denied_and_named(client: Client, outside: Path, way: str) -> None:
    result = tried(client, way, str(outside), manifest={"filesystem": {"read": [str(outside)]}})

    assert result.stdout.decode().strip() in ("EROFS", "EXDEV", "EPERM", "EACCES")
    (row,) = result.violations
    assert (row.kind, row.syscall) == ("write", way.split("-", maxsplit=1)[0])
    assert isinstance(row.path, str)
    assert row.path.startswith((str(outside), "/tmp/by-way-of", "/proc/self"))
    assert str(row.exe).startswith("/usr/bin/python3")
    assert row.attribution == "claimed"
    assert row.rule in (f"filesystem.read: {outside}", "filesystem: read-only")
    assert result.violation_counts == {}


@pytest.mark.parametrize("way", WAYS)
def test_a_write_inside_succeeds_and_is_not_named(client: Client, way: str) -> None:
    result = tried(client, "--prepare", "/tmp/inside", way)

    assert result.stdout.decode().strip() == "0"
    assert result.violations == ()
    assert result.violation_counts == {}


def test_what_was_outside_is_as_it_was(client: Client, outside: Path) -> None:
    before = sorted((path.name, path.lstat()) for path in outside.iterdir())
    for way in WAYS:
        tried(client, way, str(outside), manifest={"filesystem": {"read": [str(outside)]}})
    assert [name for name, _ in before] == sorted(path.name for path in outside.iterdir())
    assert (outside / "file").read_text() == "kept"


def test_openat2_is_absent_so_that_no_write_goes_by_it(client: Client, outside: Path) -> None:
    program = (
        "import ctypes, sys; libc = ctypes.CDLL(None, use_errno=True)\n"
        "libc.syscall(437, -100, sys.argv[1].encode(), 0, 0); print(ctypes.get_errno())"
    )
    result = client.run(["/usr/bin/python3", "-I", "-c", program, str(outside / "file")])
    assert result.stdout == b"38\n"


@pytest.mark.parametrize(
    "command",
    [
        "mkdir -p /usr /usr/bin",
        "rm -f /usr/nothing /usr/bin/nothing",
        "touch -c /usr/nothing",
        "rmdir /usr/nothing",
        "mv /usr/nothing /tmp/x",
        ": > /dev/null",
        "echo x > /dev/full",
        "echo x > /dev/stdout",
        "echo x > /dev/fd/1",
        "echo x | tee /dev/stderr",
        "mkfifo /tmp/f; (cat /tmp/f &) ; echo x > /tmp/f",
        "ln -s /usr/bin/true /tmp/l; rm /tmp/l",
        "ln /usr/bin/true /tmp/l",
        "cat < /usr/bin/true > /tmp/copy",
        "echo 600 > /proc/self/oom_score_adj",
        "python3 -c 'import os; os.open(\"/usr/bin/true\", os.O_RDONLY | os.O_CREAT)'",
        "set -C; : > /usr/bin/true",
    ],
)
def test_what_is_no_write_outside_is_not_named(client: Client, command: str) -> None:
    assert [row for row in client.run(["/bin/sh", "-c", command]).violations if row.kind == "write"] == []


@pytest.mark.parametrize(
    ("command", "path", "rule"),
    [
        ("echo x > /work/.git/config", "/work/.git/config", "filesystem.protect: /work/.git"),
        ("rm /work/.git/config", "/work/.git/config", "filesystem.protect: /work/.git"),
        ("rmdir /work/.git", "/work/.git", "filesystem.protect: /work/.git"),
        ("mv /work/.git /work/git", "/work/.git", "filesystem.protect: /work/.git"),
        ("mv -T /work/other /work/.git", "/work/.git", "filesystem.protect: /work/.git"),
        ("cd /work/.git; touch new", "/work/.git/new", "filesystem.protect: /work/.git"),
        ("touch /work/secret/new", "/work/secret/new", "filesystem.hide: /work/secret"),
        ("touch /etc/new", "/etc/new", "filesystem: read-only"),
        ("mkdir /new", "/new", "filesystem: read-only"),
        ("echo x > /proc/sys/kernel/hostname", "/proc/sys/kernel/hostname", "filesystem: read-only"),
        ("mknod /dev/new p", "/dev/new", "filesystem: read-only"),
    ],
)
def test_the_rule_that_forbids_is_named(
    run_as_caller: Callable[..., RunResult], project: Path, command: str, path: str, rule: str
) -> None:
    filesystem = {
        "write": [{"path": str(project), "target": "/work"}], "protect": ["/work/.git"], "hide": ["/work/secret"],
    }  # fmt: skip
    result = run_as_caller(["/bin/sh", "-c", command], manifest={"schema": 1, "name": "p", "filesystem": filesystem})
    assert result.exit_code != 0
    assert (path, rule) in [(row.path, row.rule) for row in result.violations]
