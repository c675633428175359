"""Handing the state over to the broker's user: what is given, what stays root's, what is no longer believed."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ConfigurationError
from immured.host.ids import BROKER_IDS
from immured.service.broker_user import User
from immured.service.ownership import hand_over
from immured.service.state import Paths, init_state, publish_key
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root

BROKER = User(BROKER_IDS[7], BROKER_IDS[7])
OTHER = User(BROKER_IDS[8], BROKER_IDS[8])


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return init_state(tmp_path / "state").paths


def owners(paths: Paths) -> dict[str, int]:
    found = {}
    for directory, _, files in os.walk(paths.root):
        for name in (".", *files):
            place = Path(directory, name)
            found[str(place.relative_to(paths.root))] = place.lstat().st_uid
    return found


def modes(paths: Paths) -> dict[str, int]:
    return {name: stat.S_IMODE((paths.root / name).lstat().st_mode) for name in owners(paths)}


def refusal(paths: Paths) -> str:
    with pytest.raises(ConfigurationError) as caught:
        hand_over(paths, BROKER)
    assert caught.value.code == "bad_state"
    assert caught.value.remedy
    return caught.value.message


def test_the_broker_gets_what_it_writes_and_signs_with_and_root_keeps_the_rest(paths: Paths) -> None:
    hand_over(paths, BROKER)
    roots = {name for name, uid in owners(paths).items() if uid == 0}
    assert roots == {".", "config.toml", "daemon.pub", "images", "lock", "launcher.lock", "keys/admin.pem"}
    assert set(owners(paths).values()) == {0, BROKER.uid}


def test_no_mode_is_changed(paths: Paths) -> None:
    before = modes(paths)
    hand_over(paths, BROKER)
    assert modes(paths) == before


def test_what_a_restore_left_roots_is_handed_over_again(paths: Paths) -> None:
    hand_over(paths, BROKER)
    (paths.ledger / "checkpoints" / "00000000000000000009").write_bytes(b"")
    os.chown(paths.keyring, 0, 0)
    hand_over(paths, BROKER)
    assert {name for name, uid in owners(paths).items() if uid == 0 and "/" in name} == {"keys/admin.pem"}


def test_a_state_that_was_another_brokers_of_ours_is_taken_over(paths: Paths) -> None:
    """Its id follows from the directory's path, and directories are moved."""
    hand_over(paths, OTHER)
    hand_over(paths, BROKER)
    assert OTHER.uid not in owners(paths).values()


def test_a_state_of_a_user_configured_before_is_taken_over_by_the_remedy(paths: Paths) -> None:
    hand_over(paths, User(54321, 54321))
    with pytest.raises(ConfigurationError, match="belongs to uid 54321") as caught:
        hand_over(paths, BROKER)
    remedies = re.findall(r"chown -R [^;]+", caught.value.remedy)
    assert len(remedies) == 2
    for remedy in remedies:
        subprocess.run(remedy.split(), cwd=paths.root, check=True)
    hand_over(paths, BROKER)
    assert {name for name, uid in owners(paths).items() if uid == 0 and "/" in name} == {"keys/admin.pem"}


def test_a_hard_link_to_somebody_elses_file_is_not_given_away(paths: Paths, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.touch()
    os.link(precious, paths.ledger / "checkpoints" / "innocent")
    assert "innocent is no regular file with one name" in refusal(paths)
    assert precious.stat().st_uid == 0


def test_a_symlink_is_not_followed(paths: Paths, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.touch()
    paths.keyring.unlink()
    paths.keyring.symlink_to(precious)
    assert "keyring.json is a symlink" in refusal(paths)
    assert precious.stat().st_uid == 0


def test_a_directory_behind_a_symlink_is_not_walked(paths: Paths, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (paths.ledger / "quarantine").rmdir()
    (paths.ledger / "quarantine").symlink_to(precious)
    assert "quarantine is a symlink" in refusal(paths)
    assert precious.stat().st_uid == 0


def test_the_operators_own_symlink_to_another_disk_is_followed(paths: Paths, tmp_path: Path) -> None:
    paths.ledger.rename(tmp_path / "disk")
    paths.ledger.symlink_to(tmp_path / "disk")
    hand_over(paths, BROKER)
    assert (tmp_path / "disk" / "current.jsonl").stat().st_uid == BROKER.uid


def _strangers_file(paths: Paths) -> None:
    os.chown(paths.ledger / "current.jsonl", 1000, 1000)


def _writable_file(paths: Paths) -> None:
    (paths.manifests / "x.toml").touch()
    (paths.manifests / "x.toml").chmod(0o666)


def _fifo(paths: Paths) -> None:
    os.mkfifo(paths.ledger / "fifo")


def _others_directory(paths: Paths) -> None:
    os.chown(paths.root, BROKER.uid, BROKER.gid)


def _too_deep(paths: Paths) -> None:
    (paths.ledger / "a" / "b" / "c" / "d").mkdir(parents=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_strangers_file, "belongs to uid 1000"),
        (_writable_file, "may be written by others"),
        (_fifo, "fifo is no regular file"),
        (_others_directory, "is not root's alone to write"),
        (_too_deep, "deeper"),
    ],
)
def test_what_is_not_as_we_left_it_is_named(paths: Paths, change: Callable[[Paths], None], said: str) -> None:
    change(paths)
    assert said in refusal(paths)


def test_what_is_published_as_root_is_a_key_and_no_file_behind_a_symlink(paths: Paths, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's alone")
    published = (paths.root / "daemon.pub").read_bytes()
    paths.daemon_public.unlink()
    paths.daemon_public.symlink_to(secret)
    with pytest.raises(ConfigurationError):
        publish_key(paths, paths.socket)
    paths.daemon_public.unlink()
    paths.daemon_public.write_text("root's alone")
    with pytest.raises(ConfigurationError):
        publish_key(paths, paths.socket)
    assert (paths.root / "daemon.pub").read_bytes() == published


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that others may pass, for a daemon's state."""
    made = Path(tempfile.mkdtemp(prefix="immured-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def uid_of(daemon: ThrowawayDaemon) -> int:
    return int(
        next(line for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines() if line.startswith("Uid:"))
        .split()[1]
    )  # fmt: skip


def test_the_configured_user_is_whom_it_becomes(reachable: Path) -> None:
    paths = init_state(reachable / "state").paths
    paths.config.write_text('[broker]\nuser = "54321"\n')
    daemon = ThrowawayDaemon(state=paths.root).start()
    try:
        assert uid_of(daemon) == 54321
        with daemon.client() as client:
            assert client.run(["/bin/true"]).ok
    finally:
        assert daemon.stop() == 0
    assert paths.daemon_key.stat().st_uid == 54321
    assert paths.admin_key.stat().st_uid == 0


def test_a_restart_serves_what_the_last_one_wrote_and_roots_verifier_reads_it(reachable: Path) -> None:
    paths = init_state(reachable / "state").paths
    uids = set()
    for _ in range(2):
        daemon = ThrowawayDaemon(state=paths.root).start()
        try:
            uids.add(uid_of(daemon))
            with daemon.client() as client:
                assert client.run(["/bin/true"]).ok
        finally:
            daemon.kill()
    [uid] = uids
    assert uid in BROKER_IDS
    assert ThrowawayDaemon.immure("ledger", "verify", "--state", str(paths.root)).returncode == 0


def test_a_state_below_a_directory_of_roots_alone_is_served(tmp_path: Path) -> None:
    """As before there was a user: /root/state, and pytest's own directories."""
    tmp_path.chmod(0o700)
    paths = init_state(tmp_path / "state").paths
    daemon = ThrowawayDaemon(state=paths.root).start()
    try:
        with daemon.client() as client:
            assert client.run(["/bin/true"]).ok
    finally:
        assert daemon.stop() == 0
    assert ThrowawayDaemon.immure("ledger", "verify", "--state", str(paths.root)).returncode == 0


def test_a_key_added_is_written_by_the_broker(reachable: Path) -> None:
    paths = init_state(reachable / "state").paths
    daemon = ThrowawayDaemon(state=paths.root).start()
    try:
        ThrowawayDaemon.immure("key", "new", "--out", str(reachable / "new.pem"))
        added = ThrowawayDaemon.immure(
            *("key", "add", "new", str(reachable / "new.pub"), "--state", str(paths.root)), check=False
        )
        assert added.returncode == 0, added.stderr
    finally:
        assert daemon.stop() == 0
    assert paths.keyring.stat().st_uid in BROKER_IDS
    assert len(paths.keyring.read_text()) > 0


def test_without_root_it_does_not_start(tmp_path: Path) -> None:
    program = (
        "import os, shutil, sys; from immured.service import privilege; privilege.prepare();"
        "from immured.service.main import main; os.setresuid(65534, 65534, 65534);"
        "sys.exit(main(['--state', '/nonexistent']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 1
    assert "needs_root" in done.stderr
