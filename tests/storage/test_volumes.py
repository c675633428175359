"""Volumes: they outlive what used them, they are bounded, and they are one sandbox's and one tenant's at a time."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.client.volumes import Volumes
from immured.errors import ImmuredError
from immured.host import probes_storage
from immured.host.check import Status
from immured.identity.policy.warrant import Target
from immured.service.volumes import Volumes as StoredVolumes
from tests.policies import declare
from tests.storage.conftest import MIB, Shell

pytestmark = pytest.mark.needs_root


def at(volume: str, target: str = "/cache") -> list[dict[str, str]]:
    return [{"name": volume, "target": target}]


def test_what_one_run_wrote_the_next_one_finds_as_its_own(shell: Shell, volume: str) -> None:
    first = shell("echo kept > /cache/note && mkdir /cache/d && ln -s note /cache/link", volumes=at(volume))
    assert first.exit_code == 0, first.stderr
    second = shell("cat /cache/link; stat -c %u:%a /cache/note; rm -r /cache/d", volumes=at(volume, "/cache"))
    assert second.stdout.decode().split() == ["kept", "1000:644"]


def test_what_is_protected_in_it_cannot_be_made_while_a_run_lasts(shell: Shell, volume: str) -> None:
    made = "echo new > /cache/.envrc; cat /cache/.envrc; stat -c %a /cache/.envrc"
    held = shell(made, volumes=at(volume), protect=["/cache/.envrc"])
    assert (held.stdout, b"Read-only" in held.stderr) == (b"1444\n", True)
    assert shell(made, volumes=at(volume)).stdout == b"new\n644\n"


def test_no_more_bytes_go_in_than_it_holds(client: Client, shell: Shell, volume: str) -> None:
    script = "dd if=/dev/zero of=/cache/big bs=1M count=64 2>&1; stat -c %s /cache/big"
    said = shell(script, volumes=at(volume)).stdout.decode()
    assert "No space left" in said or "quota exceeded" in said
    assert int(said.split()[-1]) <= 32 * MIB
    [row] = [one for one in Volumes(client).list() if one.name == volume]
    assert row.means
    assert row.used_bytes is not None
    assert row.used_bytes <= 40 * MIB


def test_no_more_files_go_in_than_it_holds(shell: Shell, volume: str) -> None:
    script = "i=0; while [ $i -lt 1000 ]; do touch /cache/f$i || break; i=$((i+1)); done 2>/dev/null; ls /cache | wc -l"
    count = int(shell(script, volumes=at(volume)).stdout)
    assert 100 < count <= 304


def test_one_sandbox_has_it_at_a_time(client: Client, shell: Shell, volume: str) -> None:
    manifest = {"schema": 1, "filesystem": {"volumes": at(volume)}, "limits": {"wall": "10m"}}
    command = ["/bin/sh", "-c", "echo yes > /cache/held; echo there; exec sleep 600"]
    with client.start(command, manifest=manifest) as running:
        assert next(iter(running)) == ("stdout", b"there\n")
        [row] = [one for one in Volumes(client).list() if one.name == volume]
        assert row.sandbox
        with pytest.raises(ImmuredError) as refused:
            shell("true", volumes=at(volume))
        assert refused.value.code == "volume_in_use"
        with pytest.raises(ImmuredError) as kept:
            Volumes(client).remove(volume)
        assert kept.value.code == "volume_in_use"
        client.kill(row.sandbox)
        assert list(running) == []
        assert running.result.cause == "killed"
    assert shell("cat /cache/held", volumes=at(volume)).stdout == b"yes\n"


def test_another_tenants_volume_is_not_there(daemon: ThrowawayDaemon, client: Client, volume: str) -> None:
    declare(client, "[tenants.other]")
    with Client(
        socket=str(daemon.socket), key=str(daemon.admin_key), daemon_key=str(daemon.daemon_key), tenant="other"
    ) as other:
        assert Volumes(other).list() == []
        with pytest.raises(ImmuredError) as refused:
            other.run(["/bin/true"], manifest={"schema": 1, "filesystem": {"volumes": at(volume)}})
        assert refused.value.code == "unknown_volume"
        with pytest.raises(ImmuredError) as gone:
            Volumes(other).remove(volume)
        assert gone.value.code == "unknown_volume"


def test_a_name_leads_nowhere_else(client: Client) -> None:
    for name in ("..", "../default/x", "a/b", ".gone-1", "A", "", "x" * 65):
        with pytest.raises(ImmuredError) as refused:
            Volumes(client).create(name)
        assert refused.value.code == "bad_argument", name


def test_what_is_removed_is_gone_from_the_disk_whatever_lies_in_it(
    client: Client, daemon: ThrowawayDaemon, shell: Shell, volume: str
) -> None:
    script = (
        "cd /cache; mkdir closed; touch closed/f; chmod 0 closed; mkfifo fifo; ln -s /etc/passwd link; "
        "i=0; while [ $i -lt 150 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done"
    )
    assert shell(script, volumes=at(volume)).exit_code == 0
    Volumes(client).remove(volume)
    assert os.listdir(daemon.state / "volumes" / "default") == [
        one for one in os.listdir(daemon.state / "volumes" / "default") if not one.startswith((volume, "."))
    ]
    with pytest.raises(ImmuredError) as refused:
        shell("true", volumes=at(volume))
    assert refused.value.code == "unknown_volume"


def test_each_change_is_an_intent_and_an_outcome(daemon: ThrowawayDaemon, client: Client) -> None:
    Volumes(client).create("told", bytes=16 * MIB)
    Volumes(client).remove("told")
    lines = (daemon.state / "ledger" / "current.jsonl").read_text().splitlines()
    told = [line for line in lines if '"volume":"told"' in line]
    assert [("command.accepted" in line, "command.done" in line) for line in told] == [(True, False), (False, True)] * 2


def test_the_doctor_says_what_bounds_one_here(
    daemon: ThrowawayDaemon, client: Client, shell: Shell, volume: str
) -> None:
    shell("true", volumes=at(volume))
    [row] = [one for one in Volumes(client).list() if one.name == volume]
    check = probes_storage.volumes(daemon.state)
    assert check.status is Status.OK
    assert check.facts == {"means": row.means}


def test_one_that_a_full_disk_has_no_room_for_leaves_nothing(tmp_path: Path) -> None:
    # Two directories and no file: the root, the tenant's and the new volume's are all the inodes that there are.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=3", "tmpfs", tmp_path], check=True)
    try:
        store = StoredVolumes(tmp_path, "file system", 64, 1 << 30)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                store.create(Target("t", "default", ()), "v", 32 * MIB, 300, 0)
            assert list((tmp_path / "t").iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)
