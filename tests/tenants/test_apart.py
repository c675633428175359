"""Two tenants with everything a tenant can have, on a real daemon: neither finds what is the other's."""

from __future__ import annotations

from typing import Any

import pytest

from immured import Client
from immured.client.snapshots import Snapshots
from immured.client.throwaway import ThrowawayDaemon
from immured.client.volumes import Volumes
from immured.errors import ImmuredError
from tests.tenants.conftest import as_tenant

pytestmark = pytest.mark.needs_root
MIB = 1 << 20


def refused(client: Client, cmd: str, **args: object) -> tuple[str, str, str]:
    with pytest.raises(ImmuredError) as caught:
        client.call(cmd, args)
    return caught.value.code, caught.value.message, caught.value.remedy


def ids(client: Client) -> set[str]:
    listed: Any = client.call("key.list", {}).result["keys"]
    return {row["id"] for row in listed}


def test_files_execs_volumes_and_snapshots_are_a_tenants_own(acme: Client, rival: Client) -> None:
    Volumes(acme).create("shared-name", bytes=32 * MIB, files=300)
    with acme.sandbox(name="dev") as sandbox:
        sandbox.exec(["/bin/sh", "-c", 'printf "acme\'s" > /tmp/secret'])
        assert sandbox.exec(["/bin/cat", "/tmp/secret"]).stdout == b"acme's"
        Snapshots(acme).save(sandbox.id, "saved")
        for word in (sandbox.id, "dev"):
            for cmd, args in (
                ("sandbox.show", {}),
                ("sandbox.exec", {"argv": ["/bin/cat", "/tmp/secret"]}),
                ("file.get", {"path": "/tmp/secret"}),
                ("sandbox.kill", {}),
            ):
                code, message, _ = refused(rival, cmd, sandbox=word, **args)
                assert (code, message) == ("not_found", f"no sandbox of yours is called {word!r}")
        assert rival.call("sandbox.list", {}).result["sandboxes"] == []
        assert Volumes(rival).list() == []
        assert Snapshots(rival).list() == []
        assert refused(rival, "volume.remove", name="shared-name")[0] == "unknown_volume"
        assert refused(rival, "snapshot.remove", name="saved")[0] == "unknown_snapshot"
        with rival.sandbox(name="dev") as own:
            assert own.id != sandbox.id
            assert rival.call("sandbox.show", {"sandbox": "dev"}).result["sandbox"] == own.id
        assert sandbox.exec(["/bin/true"]).exit_code == 0
    Snapshots(acme).remove("saved")
    Volumes(acme).remove("shared-name")


def test_keys_and_their_names_are_a_tenants_own(daemon: ThrowawayDaemon, admin: Client) -> None:
    with (
        as_tenant(daemon, admin, "acme", "tenant-admin") as acme,
        as_tenant(daemon, admin, "rival", "tenant-admin") as rival,
    ):
        mine, theirs = ids(acme), ids(rival)
        assert mine
        assert theirs
        assert not mine & theirs
        for one in mine:
            none = "ed25519:" + "0" * 32
            said = [" ".join(refused(rival, "key.show", key=word)).replace(word, "KEY") for word in (one, none)]
            assert said[0] == said[1]


def test_the_ledger_says_whose_each_was(daemon: ThrowawayDaemon, acme: Client) -> None:
    answer = acme.run(["/bin/true"])
    assert answer.exit_code == 0
    text = (daemon.state / "ledger" / "current.jsonl").read_text()
    [accepted] = [line for line in text.splitlines() if '"run.accepted"' in line and answer.sandbox in line]
    assert '"tenant":"acme"' in accepted
    assert '"role":"platform-engineer"' in accepted
    assert '"pid":' in accepted
    assert '"exe":' in accepted
