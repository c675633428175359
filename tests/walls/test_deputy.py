"""Nobody gains a right by asking root: every host path that a caller names is opened as that caller."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client, RunResult
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from immured.wire.keys import PrivateKey
from tests.patience import PATIENCE_S
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
    return as_caller(daemon, caller_key)


def as_caller(daemon: ThrowawayDaemon, key: Path) -> Run:
    def run(argv: list[str], *, manifest: dict[str, Any] | None = None, **more: Any) -> RunResult:
        def work() -> RunResult:
            with daemon.client(key) as connected:
                return connected.run(argv, manifest=inline(manifest) if manifest is not None else None, **more)

        result: RunResult = as_user(CALLER, work)
        return result

    return run


def inline(manifest: dict[str, Any]) -> dict[str, Any]:
    return {"schema": 1, "name": "inline", "class": "default", **manifest}


def reading(path: Path) -> list[str]:
    return ["/bin/cat", str(path)]


def test_the_callers_own_private_file_can_be_read(run_as_caller: Run, ground: Path) -> None:
    note = ground / "own" / "note"
    result = run_as_caller(reading(note), manifest={"filesystem": {"read": [str(ground / "own")]}})
    assert result.stdout == b"the caller's\n"


FIELDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "read a file": lambda base: {"filesystem": {"read": [str(base / "secret")]}},
    "read below a closed directory": lambda base: {"filesystem": {"read": [str(base / "closed" / "secret")]}},
    "read a closed directory": lambda base: {"filesystem": {"read": [str(base / "closed")]}},
    "read through a symlink to a file": lambda base: {"filesystem": {"read": [str(base / "own" / "link")]}},
    "read through a symlink to a directory": lambda base: {"filesystem": {"read": [str(base / "own" / "way")]}},
    "write a closed directory": lambda base: {"filesystem": {"write": [str(base / "closed")]}},
    "write a root-owned file": lambda base: {"filesystem": {"write": [str(base / "secret")]}},
    "a closed directory as root": lambda base: {"filesystem": {"root": str(base / "closed")}},
    "root's home": lambda base: {"filesystem": {"read": ["/root"]}},
    "shadow": lambda base: {"filesystem": {"read": ["/etc/shadow"]}},
    "a process's root": lambda base: {"filesystem": {"read": [{"path": "/proc/1/root", "target": "/mnt"}]}},
    "a process's cwd": lambda base: {"filesystem": {"read": [{"path": "/proc/1/cwd", "target": "/mnt"}]}},
}


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_opens_what_the_caller_could_not(run_as_caller: Run, ground: Path, field: str) -> None:
    result = run_as_caller(["/bin/true"], manifest=FIELDS[field](ground))
    assert result.cause == "setup_failed"
    assert result.failure is not None
    assert result.failure["code"] in {"path_denied", "path_missing", "root_owned"}


def test_the_daemons_private_keys_stay_closed(run_as_caller: Run, daemon: ThrowawayDaemon) -> None:
    private = daemon.state / "keys" / "daemon.pem"
    result = run_as_caller(["/bin/true"], manifest={"filesystem": {"read": [str(private)]}})
    assert result.failure is not None
    assert result.failure["code"] == "path_denied"


def test_a_tree_of_roots_is_never_writable_even_where_its_mode_says_so(run_as_caller: Run, ground: Path) -> None:
    result = run_as_caller(["/bin/true"], manifest={"filesystem": {"write": [str(ground / "shared")]}})
    assert result.failure is not None
    assert result.failure["code"] == "root_owned"


def test_a_tree_of_roots_is_not_writable_for_root_either(client: Client, ground: Path) -> None:
    result = client.run(["/bin/true"], manifest=inline({"filesystem": {"write": [str(ground / "shared")]}}))
    assert result.failure is not None
    assert result.failure["code"] == "root_owned"


def test_what_the_payload_writes_belongs_to_the_caller(run_as_caller: Run, ground: Path) -> None:
    own = ground / "own"
    result = run_as_caller(["/bin/sh", "-c", f"echo made > {own}/made"], manifest={"filesystem": {"write": [str(own)]}})
    assert result.exit_code == 0, result.stderr
    written = (own / "made").stat()
    assert (written.st_uid, written.st_gid) == (CALLER, CALLER)


def test_a_setuid_file_cannot_be_planted_in_the_callers_directory(run_as_caller: Run, ground: Path) -> None:
    own = ground / "own"
    run_as_caller(
        ["/bin/sh", "-c", f"cp /bin/true {own}/planted; chmod 4755 {own}/planted"],
        manifest={"filesystem": {"write": [str(own)]}},
    )
    assert (own / "planted").stat().st_mode & 0o6000 == 0


def test_a_read_only_bind_takes_no_write(run_as_caller: Run, ground: Path) -> None:
    own = ground / "own"
    result = run_as_caller(["/bin/sh", "-c", f"echo x > {own}/note"], manifest={"filesystem": {"read": [str(own)]}})
    assert result.exit_code != 0
    assert (own / "note").read_text() == "the caller's\n"


@pytest.mark.parametrize("means", ["protect", "read"])
def test_what_is_protected_in_a_writable_directory_cannot_be_moved_away(
    run_as_caller: Run, ground: Path, means: str
) -> None:
    """With the directory above it: then another stands in its place."""
    above = ground / "own" / f"above-{means}"
    kept = above / "kept"
    kept.mkdir(parents=True)
    for path in (above, kept):
        os.chown(path, CALLER, CALLER)
    filesystem = {"write": [str(ground / "own")], means: [str(kept)]}
    result = run_as_caller(["/bin/mv", str(above), f"{above}-moved"], manifest={"filesystem": filesystem})
    assert (result.exit_code != 0, above.exists()) == (True, True)


def test_a_collected_symlink_brings_nothing_back(run_as_caller: Run, ground: Path) -> None:
    result = run_as_caller(["/bin/ln", "-s", "/etc/passwd", "/tmp/out"], collect=["/tmp/out"])
    assert "/tmp/out" not in result.files


def test_a_key_bound_to_a_uid_is_refused_from_another(daemon: ThrowawayDaemon, caller_key: Path) -> None:
    """This very process is root, and holds the caller's key."""
    with (
        daemon.client(caller_key) as connected,
        pytest.raises(ImmuredError, match="peer_not_bound"),
    ):
        connected.run(["/bin/true"])


def test_a_runner_may_not_add_keys(daemon: ThrowawayDaemon, caller_key: Path) -> None:
    def work() -> None:
        with daemon.client(caller_key) as connected:
            connected.key_add("more", PrivateKey.generate().public.to_pem(), role="admin")

    with pytest.raises(AsUserError) as refused:
        as_user(CALLER, work)
    assert refused.value.code == "denied"


PATIENT_MS = 20_000
"""As long as a path may take to open: the other runs are over long before."""


@pytest.fixture
def patient() -> Iterator[ThrowawayDaemon]:
    daemon = ThrowawayDaemon()
    (daemon.state / "config.toml").write_text(f"[launcher]\nopen_timeout_ms = {PATIENT_MS}\n")
    with daemon:
        yield daemon


def test_a_mount_that_never_answers_delays_its_own_run_alone(
    patient: ThrowawayDaemon, caller_key: Path, ground: Path
) -> None:
    at = ground / "stuck"
    at.mkdir()
    os.chown(at, CALLER, CALLER)
    run_as_caller = as_caller(patient, caller_key)
    with UnansweringMount(at, uid=CALLER) as mount, patient.client() as client:
        client.key_add("caller", PrivateKey.from_pem(caller_key.read_bytes()).public.to_pem(), uids=[CALLER])
        answers: list[RunResult] = []
        stuck = {"filesystem": {"read": [str(at / "file")]}}
        waiting = threading.Thread(target=lambda: answers.append(run_as_caller(["/bin/true"], manifest=stuck)))
        waiting.start()
        assert mount.was_asked()
        others = [client.run(["/bin/true"])]
        still_stuck = waiting.is_alive()
        others += [client.run(["/bin/true"]) for _ in range(4)]
        waiting.join(PATIENCE_S)
    assert [other.exit_code for other in others] == [0] * 5
    assert still_stuck, "the other runs had to wait for it"
    assert answers[0].failure is not None
    assert answers[0].failure["code"] == "path_timeout"
