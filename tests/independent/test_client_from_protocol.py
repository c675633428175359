"""A client that knows docs/protocol.md and nothing of the package runs a command, and believes the daemon alone."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.patience import PATIENCE_S

CLIENT = Path(__file__).with_name("client_from_protocol.py")
LIVING = Path(__file__).with_name("living_from_protocol.py")
DELEGATING = Path(__file__).with_name("delegating_from_protocol.py")

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as serving:
        yield serving


def run(
    daemon: ThrowawayDaemon, *argv: str, stdin: bytes = b"", program: Path = CLIENT, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    where = {
        "IMMURE_SOCKET": str(daemon.socket),
        "IMMURE_KEY": str(daemon.admin_key),
        "IMMURE_DAEMON_KEY": str(daemon.daemon_key),
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-I", str(program), *argv],
        check=False, input=stdin, capture_output=True, env=where, timeout=PATIENCE_S,
    )  # fmt: skip


@pytest.mark.parametrize("program", [CLIENT, LIVING, DELEGATING], ids=lambda path: path.stem)
def test_it_imports_nothing_of_the_package(program: Path) -> None:
    tree = ast.parse(program.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported if name.split(".")[0] in {"immured", "msgpack", "tests", ""}}


@pytest.mark.parametrize("size", [0, 6, 300_000])
def test_input_goes_in_and_output_comes_out(daemon: ThrowawayDaemon, size: int) -> None:
    data = os.urandom(size)
    assert run(daemon, "/bin/cat", stdin=data).stdout == data


def test_the_exit_status_is_the_command_s(daemon: ThrowawayDaemon) -> None:
    assert run(daemon, "/bin/sh", "-c", "exit 7").returncode == 7


def test_a_signal_s_number_is_the_command_s(daemon: ThrowawayDaemon) -> None:
    assert run(daemon, "/bin/sh", "-c", "kill -TERM $$").returncode == 128 + 15


def test_the_receipt_is_the_ledger_s_line(daemon: ThrowawayDaemon) -> None:
    said = run(daemon, "/bin/true").stderr.split()
    line = (daemon.state / "ledger" / "current.jsonl").read_bytes().splitlines()[int(said[1])]
    assert hashlib.sha256(b"\0" + line).hexdigest() == said[2].decode()


def test_another_daemon_s_key_is_not_believed(daemon: ThrowawayDaemon, tmp_path: Path) -> None:
    (tmp_path / "other.pub").write_bytes(PrivateKey.generate().public.to_pem())
    done = run(daemon, "/bin/true", IMMURE_DAEMON_KEY=str(tmp_path / "other.pub"))
    assert (done.returncode, b"not believed" in done.stderr) == (125, True)


def test_a_stranger_s_key_is_refused(daemon: ThrowawayDaemon, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(PrivateKey.generate().to_pem())
    done = run(daemon, "/bin/true", IMMURE_KEY=str(tmp_path / "other.pem"))
    assert (done.returncode, b"refused: unknown_key" in done.stderr) == (125, True)


def test_a_sandbox_that_lives_and_a_batch(daemon: ThrowawayDaemon) -> None:
    done = run(daemon, program=LIVING)
    assert json.loads(done.stdout or "{}") == {
        "state": "ready",
        "put": 256_000,
        "got": True,
        "exec": [True, 3, "256000\nfed\n"],
        "attach": [0, 0, "0", "typed\n"],
        "logs": [2, 6, False, "ped\n"],
        "ended": True,
        "batch": [True, 5, {"exited": 5}, [[number, str(number)] for number in range(5)]],
    }, done.stderr.decode()


def test_rights_that_are_passed_on_and_lent(daemon: ThrowawayDaemon) -> None:
    done = run(daemon, program=DELEGATING)
    assert json.loads(done.stdout or "{}") == {
        "unknown": "unknown_key",
        "refused": "unknown_key",
        "name": "boss/agent",
        "root": True,
        "beyond": "denied",
        "ran": [0, "certificate_used_up"],
        "chain": ["boss/agent/helper", "denied", "key_revoked"],
        "session": True,
        "grant": [True, True, "denied"],
        "digest": True,
    }, done.stderr.decode()
