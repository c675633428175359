"""Snapshots: what lay in a sandbox's own places is there again, for as many as begin with it, and nobody changes it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured import Client
from immured.client.sandbox import Sandbox
from immured.client.snapshots import Snapshot, Snapshots
from immured.client.throwaway import ThrowawayDaemon
from immured.client.volumes import Volumes
from immured.errors import ImmuredError
from tests.patience import until
from tests.policies import declare
from tests.storage.conftest import PEER, as_peer

pytestmark = pytest.mark.needs_root

MANIFEST = {"schema": 1, "filesystem": {"tmpfs": ["/work"]}}


def sh(sandbox: Sandbox, script: str) -> str:
    result = sandbox.exec(["/bin/sh", "-c", script])
    assert result.exit_code == 0, (script, result.stderr)
    return result.stdout.decode()


@pytest.fixture
def saved(client: Client) -> Iterator[str]:
    """A snapshot of a sandbox that wrote to /work and /tmp."""
    name = f"n-{secrets.token_hex(4)}"
    script = """
        cd /work; mkdir d; echo one > d/file; ln d/file second; ln -s d/file link; mkfifo pipe
        chmod 750 d; chmod 640 d/file; truncate -s 64M sparse; touch -d @1000000000 d/file
        mkdir closed; echo hidden > closed/x; chmod 0 closed
        echo tmp > /tmp/there
    """
    with client.sandbox(manifest=MANIFEST) as sandbox:
        sh(sandbox, script)
        Snapshots(client).save(sandbox.id, name)
        sh(sandbox, "echo later > /work/later")
    yield name
    if name in [one.name for one in Snapshots(client).list()]:
        Snapshots(client).remove(name)


def test_what_was_saved_is_there_again_as_it_was(client: Client, saved: str) -> None:
    with client.sandbox(manifest=MANIFEST, snapshot=saved) as fork:
        assert sh(fork, "cat /work/link /tmp/there") == "one\ntmp\n"
        said = sh(fork, "cd /work; stat -c '%n %u:%g %a %h %Y' d/file; stat -c '%a %F' d pipe link; ls").split("\n")
        assert said[0] == "d/file 1000:1000 640 2 1000000000"
        assert said[1:4] == ["750 directory", "644 fifo", "777 symbolic link"]
        assert said[4:-1] == ["closed", "d", "link", "pipe", "second", "sparse"]
        assert sh(fork, "chmod 700 /work/closed && cat /work/closed/x") == "hidden\n"
        assert int(sh(fork, "stat -c %s /work/sparse")) == 64 << 20


def test_many_begin_with_one_and_none_sees_the_others(client: Client, saved: str) -> None:
    forks = [client.sandbox(manifest=MANIFEST, snapshot=saved) for _ in range(3)]
    try:
        for number, fork in enumerate(forks):
            sh(fork, f"echo {number} > /work/d/file; rm /work/link; echo {number} > /work/own-{number}")
        for number, fork in enumerate(forks):
            assert sh(fork, "cat /work/d/file") == f"{number}\n"
            assert sh(fork, "cd /work; ls own-*; test -e link || echo gone") == f"own-{number}\ngone\n"
    finally:
        for fork in forks:
            fork.remove()
    with client.sandbox(manifest=MANIFEST, snapshot=saved) as fresh:
        assert sh(fresh, "cat /work/link; ls /work | grep -c own- || true") == "one\n0\n"


def test_holes_cost_nothing_and_owners_are_nobody_s_slot(daemon: ThrowawayDaemon, client: Client, saved: str) -> None:
    place = daemon.state / "snapshots" / "default" / saved
    owners = {os.lstat(os.path.join(top, name)).st_uid for top, _, names in os.walk(place) for name in names}
    assert owners == {place.stat().st_uid}
    [row] = [one for one in Snapshots(client).list() if one.name == saved]
    assert row.bytes < 1 << 20
    assert sorted(row.places) == ["/dev/shm", "/tmp", "/work"]


def test_a_fork_can_be_saved_and_stands_without_what_it_began_with(client: Client, saved: str) -> None:
    name = f"{saved}-2"
    with client.sandbox(manifest=MANIFEST, snapshot=saved) as fork:
        sh(fork, "echo two > /work/d/file; rm /work/link")
        Snapshots(client).save(fork.id, name)
    Snapshots(client).remove(saved)
    with client.sandbox(manifest=MANIFEST, snapshot=name) as second:
        assert sh(second, "cat /work/d/file") == "two\n"
        assert sh(second, "ls /work").split() == ["closed", "d", "pipe", "second", "sparse"]
    Snapshots(client).remove(name)


def test_what_lies_below_a_live_sandbox_is_not_removed(client: Client, saved: str) -> None:
    with client.sandbox(manifest=MANIFEST, snapshot=saved), pytest.raises(ImmuredError) as refused:
        Snapshots(client).remove(saved)
    assert refused.value.code == "snapshot_in_use"
    assert isinstance(Snapshots(client).remove(saved), Snapshot)


def test_another_manifest_or_tenant_does_not_begin_with_it(daemon: ThrowawayDaemon, client: Client, saved: str) -> None:
    with pytest.raises(ImmuredError) as refused:
        client.sandbox(manifest={"schema": 1, "name": "other"}, snapshot=saved)
    assert refused.value.code == "snapshot_mismatch"
    declare(client, "[tenants.other]")
    with Client(
        socket=str(daemon.socket), key=str(daemon.admin_key), daemon_key=str(daemon.daemon_key), tenant="other"
    ) as other:
        assert Snapshots(other).list() == []
        with pytest.raises(ImmuredError) as unknown:
            other.sandbox(manifest=MANIFEST, snapshot=saved)
        assert unknown.value.code == "unknown_snapshot"


def test_two_of_one_name_are_refused(client: Client, saved: str) -> None:
    with client.sandbox(manifest=MANIFEST) as sandbox:
        with pytest.raises(ImmuredError) as refused:
            Snapshots(client).save(sandbox.id, saved)
        assert refused.value.code == "snapshot_exists"
        assert sh(sandbox, "echo still running") == "still running\n"


def test_a_tree_of_a_thousand_levels_is_saved_and_no_deeper_one(client: Client) -> None:
    deep = "i=0; cd /work; while [ $i -lt 1000 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done; echo end > bottom"
    down = "cd /work; while [ -d d ]; do cd d; done; cat bottom"
    with client.sandbox(manifest=MANIFEST) as sandbox:
        sh(sandbox, deep)
        Snapshots(client).save(sandbox.id, "deep")
        sh(sandbox, f"{down}; mkdir d")
        with pytest.raises(ImmuredError) as refused:
            Snapshots(client).save(sandbox.id, "deeper")
        assert (refused.value.code, "below 1000 directories" in refused.value.message) == ("snapshot_failed", True)
    with client.sandbox(manifest=MANIFEST, snapshot="deep") as fork:
        assert sh(fork, down) == "end\n"
    Snapshots(client).remove("deep")


def test_the_next_daemon_clears_what_was_half_done() -> None:
    """Its own state: what is tried is a start."""
    with ThrowawayDaemon() as own:
        owner = (own.state / "volumes").stat()
        for collection, name in (("volumes", ".gone-1"), ("snapshots", ".new-1"), ("snapshots", ".gone-2")):
            left = own.state / collection / "default" / name / "deep" / "er"
            left.mkdir(parents=True)
            (left / "file").write_text("left")
            for path in (own.state / collection / "default").rglob("*"):
                os.chown(path, owner.st_uid, owner.st_gid)
            os.chown(own.state / collection / "default", owner.st_uid, owner.st_gid)
        own.stop()
        own.start()
        places = [own.state / collection / "default" for collection in ("volumes", "snapshots")]
        until(lambda: not any(os.listdir(place) for place in places))
        with own.client() as again:
            assert Snapshots(again).list() == []


def test_the_changes_of_a_captured_directory_are_changes_again(daemon: ThrowawayDaemon) -> None:
    project = Path(tempfile.mkdtemp(prefix="immured-project-"))
    project.chmod(0o755)
    os.chown(project, PEER, PEER)
    try:
        for name in ("kept", "changed", "removed"):
            (project / name).write_text("old\n")
            os.chown(project / name, PEER, PEER)
        manifest = {"schema": 1, "filesystem": {"capture": [{"path": str(project), "target": "/project"}]}}
        with as_peer(daemon) as peer:
            with peer.sandbox(manifest=manifest) as sandbox:
                sh(sandbox, "cd /project; echo new > changed; rm removed; mkdir made; echo in > made/file")
                before = {(change.kind, change.path) for change in sandbox.changes.list()}
                assert sandbox.snapshot("captured").bytes < 1000
            with peer.sandbox(manifest=manifest, snapshot="captured") as fork:
                assert sh(fork, "cd /project; cat kept changed made/file; ls") == "old\nnew\nin\nchanged\nkept\nmade\n"
                assert {(change.kind, change.path) for change in fork.changes.list()} == before
                sh(fork, "rm -r /project/made")
            assert sorted(os.listdir(project)) == ["changed", "kept", "removed"]
            with peer.sandbox(manifest=manifest, snapshot="captured") as second:
                second.changes.accept()
            assert sorted(os.listdir(project)) == ["changed", "kept", "made"]
            assert (project / "made" / "file").read_text() == "in\n"
            Snapshots(peer).remove("captured")
    finally:
        shutil.rmtree(project)


def test_after_a_restart_what_is_in_use_still_is() -> None:
    manifest = {**MANIFEST, "filesystem": {"tmpfs": ["/work"], "volumes": [{"name": "kept", "target": "/cache"}]}}
    with ThrowawayDaemon() as own:
        with own.client() as first:
            Volumes(first).create("kept", bytes=16 << 20)
            with first.sandbox(manifest=manifest) as sandbox:
                sh(sandbox, "echo one > /work/file; echo two > /cache/file")
                sandbox.snapshot("saved")
            fork = first.sandbox(manifest=manifest, snapshot="saved", restart="adopt")
            name = fork.id
        own.kill()
        own.start()
        with own.client() as again:
            fork = again.open(name)
            assert sh(fork, "cat /work/file /cache/file") == "one\ntwo\n"
            with pytest.raises(ImmuredError) as volume:
                Volumes(again).remove("kept")
            with pytest.raises(ImmuredError) as snapshot:
                Snapshots(again).remove("saved")
            assert (volume.value.code, snapshot.value.code) == ("volume_in_use", "snapshot_in_use")
            fork.remove()
            Volumes(again).remove("kept")
            Snapshots(again).remove("saved")


def test_it_is_its_keys_own(daemon: ThrowawayDaemon, client: Client, saved: str) -> None:
    with as_peer(daemon) as peer:
        assert Snapshots(peer).list() == []
        for refused in (
            lambda: peer.sandbox(manifest=MANIFEST, snapshot=saved),
            lambda: Snapshots(peer).remove(saved),
        ):
            with pytest.raises(ImmuredError) as unknown:
                refused()
            assert unknown.value.code == "unknown_snapshot"
        with peer.sandbox(manifest=MANIFEST) as sandbox:
            sandbox.snapshot("peers-own")
        with pytest.raises(ImmuredError) as hidden:
            Snapshots(peer).save(client.sandbox(manifest=MANIFEST, name="not-the-peers").id, "stolen")
        assert hidden.value.code == "not_found"
        client.open("not-the-peers").remove()
        assert [one.name for one in Snapshots(peer).list()] == ["peers-own"]
    assert "peers-own" in [one.name for one in Snapshots(client).list()]
    Snapshots(client).remove("peers-own")


def test_what_does_not_fit_is_refused_and_leaves_nothing() -> None:
    with ThrowawayDaemon() as own:
        own.stop()
        (own.state / "config.toml").write_text('[storage]\nsnapshot_bytes = "1M"\nsnapshots = 2\n')
        own.start()
        with own.client() as client, client.sandbox(manifest=MANIFEST) as sandbox:
            sandbox.snapshot("first")
            sh(sandbox, "dd if=/dev/zero of=/work/big bs=1M count=2 2>/dev/null")
            with pytest.raises(ImmuredError) as large:
                sandbox.snapshot("large")
            assert large.value.code == "over_quota"
            assert "big" in large.value.message
            assert os.listdir(own.state / "snapshots" / "default") == ["first"]
            sh(sandbox, "rm /work/big")
            sandbox.snapshot("second")
            with pytest.raises(ImmuredError) as many:
                sandbox.snapshot("third")
            assert many.value.code == "over_quota"
            assert sh(sandbox, "echo goes on") == "goes on\n"
