"""What a person or a program is told of a refused act: the result, the ledger, the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from immured import Client, RunResult
from immured.client.throwaway import ThrowawayDaemon
from tests.patience import PATIENCE_S

HERE = Path(__file__).parent
LIBC = "import ctypes, os, socket, sys; libc = ctypes.CDLL(None, use_errno=True)\n"


def python(client: Client, program: str, **manifest: object) -> RunResult:
    return client.run(["/usr/bin/python3", "-I", "-c", LIBC + program], manifest={"schema": 1, "name": "t", **manifest})


@pytest.mark.parametrize(
    "act",
    [
        "libc.chmod(b'/tmp/f', 0o4755)",
        "libc.chmod(b'/tmp/f', 0o2755)",
        "libc.fchmod(fd, 0o4755)",
        "libc.fchmodat(-100, b'/tmp/f', 0o4755, 0)",
        "libc.syscall(268, -100, b'/tmp/f', 0o4755)",
        "libc.syscall(452, -100, b'/tmp/f', 0o4755, 0)",
        "libc.open(b'/tmp/new', os.O_WRONLY | os.O_CREAT, 0o4755)",
        "libc.syscall(2, b'/tmp/new', os.O_WRONLY | os.O_CREAT, 0o2755)",
        "libc.openat(-100, b'/tmp', os.O_WRONLY | os.O_TMPFILE, 0o4755)",
        "libc.syscall(85, b'/tmp/new', 0o4755)",
        "libc.mkdir(b'/tmp/new', 0o2755)",
        "libc.mkdirat(-100, b'/tmp/new', 0o4755)",
        "libc.mknod(b'/tmp/new', 0o104755, 0)",
        "libc.mknodat(-100, b'/tmp/new', 0o104755, 0)",
    ],
)
def test_a_planted_setuid_bit_is_refused_and_named(client: Client, act: str) -> None:
    result = python(
        client,
        "fd = os.open('/tmp/f', os.O_RDWR | os.O_CREAT)\n"
        f"print({act}, ctypes.get_errno())\n"
        "print(any(os.stat('/tmp/' + name).st_mode & 0o6000 for name in os.listdir('/tmp')))",
    )
    assert result.stdout.split() == [b"-1", b"1", b"False"], result.stderr
    (row,) = [row for row in result.violations if row.kind == "syscall"]
    assert row.rule == "walls: no setuid or setgid bit"
    assert str(row.path).startswith("/tmp")


@pytest.mark.parametrize(
    ("act", "syscall", "rule"),
    [
        ("libc.unshare(0x20000)", "unshare", "walls: never"),
        ("libc.mount(b'a', b'/tmp', b'tmpfs', 0, 0)", "mount", "walls: never"),
        ("libc.setns(0, 0)", "setns", "walls: never"),
        ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "socket", "walls: no raw, packet"),
        ("socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)", "socket", "walls: no raw, packet"),
        ("libc.mknod(b'/tmp/d', 0o020600, 0)", "mknodat", "walls: no device nodes"),
        ("libc.ioctl(0, 0x5412, b'x')", "ioctl", "walls: no typing"),
    ],
)
def test_a_refused_call_is_named_with_its_rule(client: Client, act: str, syscall: str, rule: str) -> None:
    result = python(client, f"try: {act}\nexcept OSError: pass")
    rows = [(row.kind, row.syscall, row.rule, row.attribution) for row in result.violations]
    assert [row for row in rows if row[1].startswith(syscall.removesuffix("at")) and row[2].startswith(rule)], rows
    assert {row[3] for row in rows} == {"claimed"}


@pytest.mark.parametrize(
    "act",
    [
        "libc.syscall(425, 1, 0)",  # io_uring_setup
        "libc.syscall(321, 0, 0, 0)",  # bpf
        "libc.syscall(323, 0)",  # userfaultfd
        "libc.syscall(250, 0, 0)",  # keyctl
        "libc.syscall(430, b'tmpfs', 0)",  # fsopen
        "libc.syscall(304, 0, 0, 0)",  # open_by_handle_at
    ],
)
def test_the_largest_walls_are_refused_with_nobody_asked(client: Client, act: str) -> None:
    result = python(client, f"print({act}, ctypes.get_errno())")
    assert result.stdout.split() == [b"-1", b"1"]
    assert result.violations == ()


@pytest.mark.parametrize(
    ("mode", "act", "address"),
    [
        ("none", "socket.socket().connect(('192.0.2.1', 80))", "192.0.2.1:80"),
        ("none", "socket.socket().connect(('127.0.0.1', 80))", "127.0.0.1:80"),
        ("none", "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 443))", "[2001:db8::1]:443"),
        (
            "none",
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
            "192.0.2.1:53",
        ),
        ("loopback", "socket.socket().connect(('192.0.2.1', 80))", "192.0.2.1:80"),
        ("loopback", "socket.socket(socket.AF_INET6).connect(('::ffff:192.0.2.1', 9))", "[::ffff:c000:201]:9"),
        ("loopback", "socket.socket().connect(('127.0.0.1', 80))", None),
        ("loopback", "socket.socket().connect(('127.9.9.9', 80))", None),
        ("loopback", "socket.socket(socket.AF_INET6).connect(('::1', 80))", None),
        ("none", "socket.socket(socket.AF_UNIX).connect('/tmp/none')", None),
        ("none", "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', '/tmp/none')", None),
    ],
)
def test_an_address_beyond_the_network_is_named(client: Client, mode: str, act: str, address: str | None) -> None:
    result = python(client, f"try: {act}\nexcept OSError: pass", network={"mode": mode})
    told = [(row.kind, row.address, row.rule) for row in result.violations]
    assert told == ([] if address is None else [("connect", address, f"network.mode: {mode}")])


def test_only_the_first_of_each_are_told_and_the_rest_is_counted(client: Client, daemon: ThrowawayDaemon) -> None:
    result = client.run(
        ["/bin/sh", "-c", "i=0; while [ $i -lt 100 ]; do echo > /usr/new-$i; i=$((i+1)); done; echo > /usr/new-1"]
    )
    assert len(result.violations) == 64
    assert len({row.path for row in result.violations}) == 64
    assert result.violation_counts == {"write": 101}
    entry = finished(daemon, result)
    rows = [row for row in entry["violations"] if "count" not in row]
    assert 0 < len(rows) <= 64
    assert entry["violations"][-1] == {"kind": "write", "count": 101}


def finished(daemon: ThrowawayDaemon, result: RunResult) -> dict[str, Any]:
    lines = (daemon.state / "ledger" / "current.jsonl").read_text().splitlines()
    entry = json.loads(lines[result.receipt.seq])
    assert entry["type"] == "run.finished"
    data: dict[str, Any] = entry["data"]
    return data


def test_the_ledger_holds_what_was_refused(client: Client, daemon: ThrowawayDaemon) -> None:
    result = client.run(["/bin/sh", "-c", ": > /usr/new"])
    (row,) = finished(daemon, result)["violations"]
    assert row == {
        "kind": "write", "syscall": "openat", "path": "/usr/new", "pid": 2, "exe": row["exe"],
        "rule": "filesystem: read-only", "attribution": "claimed",
    }  # fmt: skip
    assert "violations" not in finished(daemon, client.run(["/bin/true"]))


def test_long_and_hostile_names_fit_the_ledger(client: Client, daemon: ThrowawayDaemon) -> None:
    program = (
        "for i in range(100):\n"
        "    try: os.open(b'/usr/' + b'\\xff\\x01\"\\\\' * 60 + str(i).encode(), os.O_WRONLY | os.O_CREAT)\n"
        "    except OSError: pass\n"
        "    try: os.mkdir('/usr/' + './' * 1000 + str(i))\n"
        "    except OSError: pass\n"
    )
    result = python(client, program)
    assert len(result.violations) == 64
    assert max(len(row.path or "") for row in result.violations) == 512
    assert {type(row.path) for row in result.violations} == {bytes, str}
    assert sum(result.violation_counts.values()) == 200
    line = (daemon.state / "ledger" / "current.jsonl").read_bytes().splitlines()[result.receipt.seq]
    assert len(line) < 65_535
    assert json.loads(line)["data"]["violations"][-1] == {"kind": "write", "count": 200}


def test_a_halt_is_a_result_and_an_entry(client: Client, daemon: ThrowawayDaemon) -> None:
    result = client.run(
        ["/bin/sh", "-c", "echo before; : > /usr/new; echo after; sleep 60"],
        manifest={"schema": 1, "name": "halts", "filesystem": {"on_violation": "halt"}},
    )
    assert (result.cause, result.signal, result.stdout) == ("violation", 9, b"before\n")
    assert [row.path for row in result.violations] == ["/usr/new"]
    assert finished(daemon, result)["cause"] == "violation"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "halt.toml"
    path.write_text('schema = 1\nname = "halts"\n[filesystem]\non_violation = "halt"\n')
    return path


def immure(daemon: ThrowawayDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "immured.cli", "run", "--state", str(daemon.state), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=dict(os.environ)
    )


def test_the_command_line_says_what_was_refused_when_the_command_failed(daemon: ThrowawayDaemon) -> None:
    failed = immure(daemon, "--", "/bin/sh", "-c", "echo > /usr/new; exit 3")
    assert failed.returncode == 3
    assert "immure: note: refused: openat /usr/new (filesystem: read-only)\n" in failed.stderr
    assert "refused" not in immure(daemon, "--", "/bin/sh", "-c", "echo x > /tmp/x; touch /usr/new; true").stderr


def test_the_command_line_bounds_and_escapes_it(daemon: ThrowawayDaemon) -> None:
    program = (
        "import os\n"
        "for i in range(30):\n"
        "    try: os.mkdir('/usr/\\x1b[31m%d' % i)\n"
        "    except OSError: pass\n"
        "raise SystemExit(1)\n"
    )
    failed = immure(daemon, "--", "/usr/bin/python3", "-c", program)
    lines = failed.stderr.splitlines()
    assert len(lines) == 9
    assert all("\x1b" not in line for line in lines)
    assert lines[-1] == "immure: note: refused: 22 more (--json has up to 64)"


def test_a_halted_command_exits_as_the_contract_says(daemon: ThrowawayDaemon, manifest: Path) -> None:
    halted = immure(daemon, "--manifest", str(manifest), "--", "/bin/sh", "-c", ": > /usr/new; sleep 60")
    assert halted.returncode == 137
    assert "immure: violation: " in halted.stderr
    told = json.loads(
        immure(daemon, "--json", "--manifest", str(manifest), "--", "/bin/sh", "-c", ": > /usr/new; sleep 60").stdout
    )
    assert (told["cause"], told["violations"][0]["path"]) == ("violation", "/usr/new")
