"""Loaded manifests through a daemon's death: what was in force is, what was revoked is not, a change is found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from immured.manifest.builtin import default_manifest, load_classes
from immured.manifest.signature import show_signatures, sign
from immured.wire.keys import PrivateKey
from tests.restart.test_sandboxes import die_and_come_back, entries
from tests.sandboxes.waiting import code

pytestmark = pytest.mark.needs_root

SMALL = b'schema = 1\nname = "small"\n[limits]\npids = 32\n'
OTHER = b'schema = 1\nname = "other"\n'


def load(daemon: ThrowawayDaemon, client: Client, raw: bytes) -> str:
    """Signed by the admin. Its digest."""
    key, now = PrivateKey.from_pem((daemon.state / "keys" / "admin.pem").read_bytes()), time.time_ns() // 1_000_000
    return client.manifests.load(raw, show_signatures([sign(key, raw, now, now + 3_600_000)]).encode()).digest


def file(daemon: ThrowawayDaemon, digest: str, end: str) -> Path:
    return daemon.state / "manifests" / f"{digest.removeprefix('sha256:')}.{end}"


def refusal(client: Client, digest: str) -> str:
    with pytest.raises(ImmuredError) as refused:
        client.run(["/bin/true"], manifest=digest)
    return code(refused)


def test_what_was_in_force_is_after_it_died(mortal: ThrowawayDaemon) -> None:
    with mortal.client() as client:
        kept, gone = load(mortal, client, SMALL), load(mortal, client, OTHER)
        client.manifests.revoke(gone, "not any more")
        client.sandbox(name="work", manifest=kept)
        inline = client.sandbox(name="inline", manifest={"schema": 1, "limits": {"pids": 9}})
        inline.exec(["/bin/true"])
    die_and_come_back(mortal)
    with mortal.client() as client:
        assert client.run(["/bin/true"], manifest=kept).exit_code == 0
        assert refusal(client, gone) == "manifest_revoked"
        [loaded, _] = entries(mortal, "manifest.loaded")
        assert client.open("work").exec(["/bin/true"]).exit_code == 0
        assert client.open("inline").exec(["/bin/true"]).exit_code == 0
        client.manifests.revoke(kept, "nor that one")
        with pytest.raises(ImmuredError) as refused:
            client.open("work").exec(["/bin/true"])
        assert code(refused) == "manifest_revoked"
    created, other = entries(mortal, "sandbox.created")
    first, second, third = entries(mortal, "exec.accepted")
    assert (created["manifest"], loaded["digest"]) == (kept, kept)
    assert second["manifest_entry"] == created["manifest_entry"]
    assert first["manifest_entry"] == third["manifest_entry"] == other["manifest_entry"]


@pytest.mark.parametrize("end", ["toml", "sig", "signatures"])
def test_what_was_changed_while_no_daemon_was_there_is_said_at_its_start(mortal: ThrowawayDaemon, end: str) -> None:
    with mortal.client() as client:
        digest = load(mortal, client, SMALL)
    mortal.stop()
    path = file(mortal, digest, end)
    raw = bytearray(path.read_bytes())
    raw[-2] ^= 1
    path.write_bytes(raw)
    mortal.start()
    with mortal.client() as client:
        assert refusal(client, digest) == "manifest_damaged"
        [said] = entries(mortal, "manifest.damaged")  # durable before the denial, which came after it
        assert (said["digest"], said["file"]) == (digest, path.name)
        assert client.run(["/bin/true"]).exit_code == 0
        assert load(mortal, client, SMALL) == digest
        assert client.run(["/bin/true"], manifest=digest).exit_code == 0
    assert len(entries(mortal, "manifest.damaged")) == 1


def test_a_state_directory_without_classes_gets_them(mortal: ThrowawayDaemon) -> None:
    """As one of an earlier version, which had but one; and where a copy was damaged, it is put right, and said."""
    mortal.stop()
    directory, default = mortal.state / "manifests", default_manifest().digest.removeprefix("sha256:")
    for path in directory.iterdir():
        if not path.name.startswith(default):
            path.unlink()
    (directory / f"{default}.toml").write_bytes(b"x")
    mortal.start()
    classes = {name: one.digest for name, one in load_classes().items()}
    with mortal.client() as client:
        found = {one.digest: one.standing for one in client.manifests.list() if one.built_in}
        assert found == dict.fromkeys(classes.values(), "in_force")
    started: Any = entries(mortal, "daemon.started")[-1]
    assert started["classes"] == classes
    [mended] = entries(mortal, "manifest.damaged")
    assert (mended["digest"], mended["mended"]) == (f"sha256:{default}", True)


def test_the_daemon_s_key_may_change_in_between(mortal: ThrowawayDaemon) -> None:
    with mortal.client() as client:
        digest = load(mortal, client, SMALL)
        client.daemon_rotate()
    die_and_come_back(mortal)
    with mortal.client() as client:
        assert client.run(["/bin/true"], manifest=digest).exit_code == 0
