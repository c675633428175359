"""What a further group of the caller's gives its run: files to read, and nobody to speak to."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client, RunResult
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.programs.conftest import CALLER
from tests.walls.acting import as_user

GROUP = 4242


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory of root's with a file and a listener that members of GROUP may use, and nobody else but root."""
    base = Path(tempfile.mkdtemp(prefix="immured-groups-"))
    base.chmod(0o755)
    (base / "note").write_text("for the group\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(base / "listener"))
        listener.listen()
        for path in (base / "note", base / "listener"):
            os.chown(path, 0, GROUP)
            path.chmod(0o660)
        yield base
    shutil.rmtree(base)


@pytest.fixture
def key(client: Client) -> bytes:
    """A key of the caller's own, let in by the admin."""
    made = PrivateKey.generate()
    client.key_add(f"member-{secrets.token_hex(4)}", made.public.to_pem(), role="runner", uids=[CALLER])
    return made.to_pem()


def run(daemon: ThrowawayDaemon, key: bytes, shared: Path, program: str) -> RunResult:
    def work() -> RunResult:
        with Client(socket=str(daemon.socket), key=key, daemon_key=str(daemon.daemon_key)) as connected:
            manifest: dict[str, Any] = {"schema": 1, "filesystem": {"read": [str(shared)]}}
            return connected.run(["/usr/bin/python3", "-c", program], manifest=manifest, cwd=str(shared))

    result: RunResult = as_user(CALLER, work, groups=[GROUP])
    return result


READ = "print(open('note').read(), end='')"
CONNECT = "import socket; socket.socket(socket.AF_UNIX).connect('listener'); print('connected')"


@pytest.mark.parametrize("program", [READ, CONNECT])
def test_the_caller_itself_may(shared: Path, program: str) -> None:
    def work() -> None:
        os.chdir(shared)
        exec(program)

    as_user(CALLER, work, groups=[GROUP])


def test_its_run_reads_what_the_group_may_read(daemon: ThrowawayDaemon, key: bytes, shared: Path) -> None:
    assert run(daemon, key, shared, READ).stdout == b"for the group\n"


def test_its_run_does_not_speak_to_the_groups_listeners(daemon: ThrowawayDaemon, key: bytes, shared: Path) -> None:
    """Such as docker.sock, of root and the group docker: whose owner is not the caller, is nobody's to write."""
    result = run(daemon, key, shared, CONNECT)
    assert (result.exit_code, result.stdout) == (1, b"")
    assert b"PermissionError: [Errno 13]" in result.stderr
