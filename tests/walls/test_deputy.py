"""Nobody gains a right by asking root: every host path that a caller names is opened as that caller."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client, RunResult
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from immured.wire.keys import PrivateKey
from tests.walls.acting import AsUserError, as_user
from tests.walls.unanswering import UnansweringMount

CALLER = 1000
SECRET = b"only root may read this\n"


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """A directory with a secret of root's and a directory of the caller's."""
    base = Path(tempfile.mkdtemp(prefix="immured-deputy-"))
    base.chmod(0o755)
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    (closed / "secret").write_bytes(SECRET)
    (base / "secret").write_bytes(SECRET)
    (base / "secret").chmod(0o600)
    shared = base / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    own = base / "own"
    own.mkdir(mode=0o700)
    (own / "note").write_text("the caller's\n")
    (own / "link").symlink_to(base / "secret")
    (own / "way").symlink_to(closed)
    for path in (own, own / "note"):
        os.chown(path, CALLER, CALLER)
    (own / "note").chmod(0o600)
    yield base
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def caller_key(daemon: ThrowawayDaemon, client: Client, ground: Path) -> Path:
    """A key of the caller's own, let in by the admin."""
    key = PrivateKey.generate()
    path = ground / "own" / "key.pem"
    path.write_bytes(key.to_pem())
    path.chmod(0o600)
    os.chown(path, CALLER, CALLER)
    client.key_add("caller", key.public.to_pem(), role="runner", uids=[CALLER])
    return path


Run = Callable[..., RunResult]


@pytest.fixture
def run_as_caller(daemon: ThrowawayDaemon, caller_key: Path) -> Run:
    def run(argv: list[str], *, manifest: dict[str, Any] | None = None, **more: Any) -> RunResult:
        def work() -> RunResult:
            """This very process is root, and holds the caller's key."""

    with (
        Client(socket=str(daemon.socket), key=str(caller_key), daemon_key=str(daemon.daemon_key)) as connected,
        pytest.raises(ImmuredError, match="peer_not_bound"),
    ):
        connected.run(["/bin/true"])


def test_a_runner_may_not_add_keys(daemon: ThrowawayDaemon, caller_key: Path) -> None:
    def work() -> None:
        with Client(socket=str(daemon.socket), key=str(caller_key), daemon_key=str(daemon.daemon_key)) as connected:
            connected.key_add("more", PrivateKey.generate().public.to_pem(), role="admin")

    with pytest.raises(AsUserError) as refused:
        as_user(CALLER, work)
    assert refused.value.code == "denied"


def test_a_mount_that_never_answers_delays_its_own_run_alone(run_as_caller: Run, client: Client, ground: Path) -> None:
    at = ground / "stuck"
    at.mkdir()
    os.chown(at, CALLER, CALLER)
    with UnansweringMount(at, uid=CALLER):
        answers: list[RunResult] = []
        waiting = threading.Thread(
            target=lambda: answers.append(
                run_as_caller(["/bin/true"], manifest={"filesystem": {"read": [str(at / "file")]}})
            )
        )
        waiting.start()
        time.sleep(0.3)  # let it get stuck; if it has not yet, the test is merely weaker
        others = [client.run(["/bin/true"]) for _ in range(5)]
        still_stuck = waiting.is_alive()
        waiting.join(60)
    assert [other.exit_code for other in others] == [0] * 5
    assert still_stuck, "the other runs had to wait for it"
    assert answers[0].failure is not None
    assert answers[0].failure["code"] == "path_timeout"
