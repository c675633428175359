"""A tenant's things are nobody else's to see: every get and every list, word for word and step for step as of none.

What is compared: the answer about another tenant's thing with the answer about one that never was, and the lines of
this package that were gone through on the way to it. The same lines take the same time, on any host.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

from immured.identity.keyring import KeyRecord
from immured.identity.policy.parse import parse_policy
from immured.identity.policy.permissions import PERMISSIONS, RIGHTS, TargetKind
from immured.identity.policy.warrant import Target
from immured.manifest.signature import show_signatures, sign
from immured.service.commands import load_commands
from immured.service.policies import shipped_policy
from immured.service.sandboxes.record import read_record, restore
from immured.wire.keys import PrivateKey
from immured.wire.messages import Reply
from tests.service.harness import Client, Harness, serving, until
from tests.service.test_runs import code_of, result_of

POLICY: Final = parse_policy(
    shipped_policy().text + b'[tenants.acme]\nprojects = ["web", "ml"]\n[tenants.rival]\nprojects = ["web"]\n'
)
SANDBOX: Final = {"path": "/tmp/x"}
ABOUT_A_SANDBOX: Final[dict[str, Mapping[str, object]]] = {
    "sandbox.show": {},
    "sandbox.pause": {},
    "sandbox.resume": {},
    "sandbox.extend": {"ttl_ms": 60_000},
    "sandbox.kill": {},
    "sandbox.remove": {},
    "sandbox.stats": {},
    "sandbox.exec": {"argv": ["/bin/true"]},
    "sandbox.execs": {},
    "sandbox.signal": {"exec": "e" + "0" * 20, "signal": 15},
    "sandbox.resize": {"exec": "e" + "0" * 20, "rows": 24, "columns": 80},
    "sandbox.logs": {"exec": "e" + "0" * 20},
    "sandbox.attach": {"exec": "e" + "0" * 20},
    "file.put": {**SANDBOX, "data": b"x"},
    "file.get": SANDBOX,
    "file.list": SANDBOX,
    "file.stat": SANDBOX,
    "file.mkdir": SANDBOX,
    "file.move": {**SANDBOX, "to": "/tmp/y"},
    "file.remove": SANDBOX,
    "file.chmod": {**SANDBOX, "mode": 0o644},
    "file.glob": SANDBOX,
    "file.archive": SANDBOX,
    "file.extract": {**SANDBOX, "data": b""},
    "changes.list": {},
    "changes.diff": {"path": "/usr/x"},
    "changes.accept": {},
    "changes.discard": {},
    "snapshot.save": {"name": "kept"},
}
ELSEWHERE: Final = {
    # Makes something, or lists: see the tests below.
    *("sandbox.create", "sandbox.list", "sandbox.prune", "kill"),
    *("snapshot.list", "snapshot.remove", "volume.create", "volume.list", "volume.remove"),
}


def test_every_command_about_what_a_tenant_has_is_asked_here() -> None:
    about = {name for name, kind in PERMISSIONS.items() if kind in (TargetKind.SANDBOX, TargetKind.STORAGE)}
    assert set(ABOUT_A_SANDBOX) | ELSEWHERE == about - set(RIGHTS)


def admit(harness: Harness, tenant: str, role: str = "tenant-admin", **bindings: Any) -> PrivateKey:
    """A new key of that tenant, as if it had always been there."""
    key = PrivateKey.generate()
    authority = harness.service.authority
    name = f"{tenant}-{len(authority.keyring)}"
    record = KeyRecord(key.public, name, role, "2026-01-02T03:04:05Z", tenants=frozenset({tenant}), **bindings)
    authority.keyring = authority.keyring.with_key(record, as_of=0)
    return key


@dataclass
class Two:
    """Two tenants' admins; what `acme` has is asked for by `rival`."""

    harness: Harness
    acme: Client
    rival: Client
    sandbox: str


@asynccontextmanager
async def two(harness: Harness) -> AsyncIterator[Two]:
    acme, rival = (harness.connect(key=admit(harness, tenant)) for tenant in ("acme", "rival"))
    manifest = {"schema": 1, "filesystem": {"capture": ["/usr"]}}
    [row] = result_of(await acme.ask("sandbox.create", {"name": "dev", "manifest": manifest}))["sandboxes"]
    yield Two(harness, acme, rival, row["sandbox"])


def over(tmp_path: Path, scenario: Callable[[Two], Awaitable[None]]) -> None:
    async def whole(harness: Harness) -> None:
        async with two(harness) as both:
            await scenario(both)

    serving(tmp_path, whole, policy=POLICY)


def words(reply: Reply, *ids: str) -> object:
    """A refusal without the ids that were asked for."""
    assert reply.error is not None, reply.result
    text = repr(sorted(reply.error.items()))
    for one in ids:
        text = text.replace(one, "ID")
    return text


class Steps:
    """The lines of what looks things up and decides that were gone through: `with Steps() as steps`."""

    _WATCHED: Final = ("/service/commands/", "/service/sandboxes/", "/identity/")
    _FILES: Final = (
        *("registry.py", "seen.py", "volumes.py", "snapshots.py", "storage.py", "planning.py"),
        *("manifests.py", "manifest_store.py", "manifest_register.py"),
    )

    def __init__(self) -> None:
        self.lines: list[tuple[str, int]] = []

    def __enter__(self) -> Steps:
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, _event: str, _what: object) -> Any:
        name = frame.f_code.co_filename
        watched = any(part in name for part in self._WATCHED) or name.endswith(self._FILES)
        return self._line if watched and "/replay.py" not in name else None

    def _line(self, frame: FrameType, event: str, _what: object) -> Any:
        if event == "line":
            self.lines.append((frame.f_code.co_filename, frame.f_lineno))
        return self._line


async def asked(client: Client, cmd: str, args: Mapping[str, object]) -> tuple[Reply, list[tuple[str, int]]]:
    with Steps() as steps:
        reply = await client.ask(cmd, args)
    assert steps.lines
    return reply, steps.lines


async def same_as_none(client: Client, cmd: str, field: str, theirs: str, none: str, **args: object) -> str:
    """What is another's is answered, word for word and step for step, as what is not there. The code."""
    await client.ask(cmd, {**args, field: none})  # what is remembered of the key's rights is remembered from here on
    about_none, steps_to_none = await asked(client, cmd, {**args, field: none})
    about_theirs, steps_to_theirs = await asked(client, cmd, {**args, field: theirs})
    assert words(about_theirs, theirs) == words(about_none, none)
    assert steps_to_theirs == steps_to_none
    return code_of(about_theirs)


async def by_its_owner(both: Two, cmd: str, args: Mapping[str, object]) -> Reply:
    """His question gets as far as the clerk, where there is one to ask; and that one is gone."""
    await both.acme.send(both.acme.envelope(cmd, args))
    if not cmd.startswith(("file.", "changes.", "snapshot.")):
        reply = await both.acme.reply()
    else:
        await until(lambda: bool(both.harness.launcher.asked))
        for *_, theirs in both.harness.launcher.asked:
            theirs.close()
        reply = await both.acme.reply()
    assert reply is not None
    return reply


def unknown_id() -> str:
    return "s" + secrets.token_hex(10)


@pytest.mark.parametrize("cmd", sorted(ABOUT_A_SANDBOX))
def test_anothers_sandbox_is_as_one_that_is_not_there(tmp_path: Path, cmd: str) -> None:
    args = ABOUT_A_SANDBOX[cmd]

    async def scenario(both: Two) -> None:
        assert await same_as_none(both.rival, cmd, "sandbox", both.sandbox, unknown_id(), **args) == "not_found"
        assert await same_as_none(both.rival, cmd, "sandbox", "dev", "abc", **args) == "not_found"
        [one] = both.harness.service.sandboxes
        assert one.live
        assert one.stilled is None
        # The same question is one, where it is asked by whose it is.
        found = await by_its_owner(both, cmd, {**args, "sandbox": both.sandbox})
        assert found.error is None or found.error["code"] in ("clerk_lost", "not_found", "wrong_state")
        assert found.error is None or "no sandbox of yours" not in str(found.error["message"])

    over(tmp_path, scenario)


def test_a_list_has_ones_own_tenants_alone(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        assert result_of(await both.rival.ask("sandbox.list", {})) == {"sandboxes": []}
        [row] = result_of(await both.acme.ask("sandbox.list", {}))["sandboxes"]
        assert (row["sandbox"], row["tenant"]) == (both.sandbox, "acme")
        assert result_of(await both.rival.ask("sandbox.prune", {"alive": True})) == {"removed": []}
        assert [one.live for one in both.harness.service.sandboxes] == [True]

    over(tmp_path, scenario)


def test_nobody_names_anothers_tenant(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        answers = [
            await both.rival.ask("sandbox.show", {"sandbox": both.sandbox}, tenant=tenant)
            for tenant in ("acme", "nobody", "default")
        ]
        assert {code_of(one) for one in answers} == {"denied"}
        names = ("acme", "nobody", "default")
        said = {str(words(one, name)) for one, name in zip(answers, names, strict=True)}
        assert len(said) == 1

    over(tmp_path, scenario)


def test_the_same_name_is_free_in_every_tenant_and_project(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        taken = await both.acme.ask("sandbox.create", {"name": "dev"})
        assert code_of(taken) == "name_taken"
        assert result_of(await both.rival.ask("sandbox.create", {"name": "dev"}))
        assert result_of(await both.acme.ask("sandbox.create", {"name": "dev"}, project="web"))
        [web] = result_of(await both.acme.ask("sandbox.list", {}, project="web"))["sandboxes"]
        found = result_of(await both.acme.ask("sandbox.show", {"sandbox": "dev"}, project="web"))
        assert found["sandbox"] == web["sandbox"] != both.sandbox
        assert found["project"] == "web"

    over(tmp_path, scenario)


def test_a_key_of_one_project_sees_no_other_of_its_tenant(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        web = both.harness.connect(key=admit(both.harness, "acme", projects=frozenset({"web"})))
        assert result_of(await web.ask("sandbox.list", {})) == {"sandboxes": []}
        shown = {"sandbox": both.sandbox}
        assert code_of(await web.ask("sandbox.show", shown)) == "not_found"
        assert code_of(await web.ask("sandbox.show", shown, project="ml")) == "denied"
        assert code_of(await web.ask("sandbox.show", shown, project="default")) == "denied"
        made = result_of(await web.ask("sandbox.create", {}))["sandboxes"][0]
        assert made["project"] == "web"
        assert len(result_of(await both.acme.ask("sandbox.list", {}))["sandboxes"]) == 2

    over(tmp_path, scenario)


def test_what_may_be_seen_and_not_touched_is_denied_by_name(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        worker = both.harness.connect(key=admit(both.harness, "acme", "worker"))
        looker = both.harness.connect(key=admit(both.harness, "acme", "platform-engineer"))
        shown = {"sandbox": both.sandbox}
        assert code_of(await worker.ask("sandbox.kill", shown)) == "not_found"
        assert result_of(await looker.ask("sandbox.show", shown))
        assert code_of(await looker.ask("sandbox.kill", shown)) == "denied"

    over(tmp_path, scenario)


def test_who_reaches_every_tenant_finds_what_is_there(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        operator = both.harness.connect(key=admit(both.harness, "default", "operator"))
        [row] = result_of(await operator.ask("sandbox.list", {}))["sandboxes"]
        assert row["tenant"] == "acme"
        assert result_of(await operator.ask("sandbox.list", {}, tenant="rival")) == {"sandboxes": []}
        assert result_of(await operator.ask("sandbox.show", {"sandbox": both.sandbox}))
        assert code_of(await operator.ask("sandbox.show", {"sandbox": "dev"})) == "not_found"
        assert result_of(await operator.ask("sandbox.show", {"sandbox": "dev"}, tenant="acme"))
        assert code_of(await operator.ask("file.get", {"sandbox": both.sandbox, "path": "/etc/passwd"})) == "denied"
        assert result_of(await operator.ask("sandbox.kill", {"sandbox": both.sandbox}))["ended"]

    over(tmp_path, scenario)


def test_anothers_run_is_as_one_that_is_not_there(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        await both.acme.send(both.acme.envelope("run", {"argv": ["/bin/sleep", "60"]}))
        await until(lambda: len(both.harness.launcher.gone) == 1)
        [live] = both.harness.service.registry
        assert await same_as_none(both.rival, "kill", "sandbox", live.sandbox, unknown_id()) == "bad_argument"
        status = result_of(await both.rival.ask("status", {}))
        assert (status["live"], status["runs"]) == (0, [])
        assert both.harness.launcher.kills == []
        again = both.harness.connect(key=both.acme.key)
        assert result_of(await again.ask("kill", {"sandbox": live.sandbox}))["ended"]

    over(tmp_path, scenario)


def test_anothers_volume_is_as_one_that_is_not_there(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        volumes = both.harness.service.storage.volumes
        volumes._means = "file system"  # nothing is mounted here
        assert result_of(await both.acme.ask("volume.create", {"name": "cargo"}))["name"] == "cargo"
        assert result_of(await both.rival.ask("volume.list", {})) == {"volumes": []}
        assert await same_as_none(both.rival, "volume.remove", "name", "cargo", "other") == "unknown_volume"
        for cmd, args in (("run", {"argv": ["/bin/true"]}), ("plan", {"argv": ["/bin/true"]}), ("sandbox.create", {})):
            theirs, none = [
                await both.rival.ask(cmd, {**args, "manifest": _mounting(name)}) for name in ("cargo", "other")
            ]
            assert words(theirs, "cargo") == words(none, "other")
            assert code_of(theirs) == "unknown_volume"
        assert result_of(await both.rival.ask("volume.create", {"name": "cargo"}))
        assert len(result_of(await both.acme.ask("volume.list", {}))["volumes"]) == 1

    over(tmp_path, scenario)


def _mounting(volume: str) -> dict[str, object]:
    return {"schema": 1, "filesystem": {"volumes": [{"name": volume, "target": "/cache"}]}}


def test_how_busy_others_are_is_the_hosts_to_know(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        operator = both.harness.connect(key=admit(both.harness, "default", "operator"))
        told = [result_of(await one.ask("status", {}))["identity"] for one in (both.acme, both.rival, operator)]
        assert told[0] == told[1] == {"policy": POLICY.digest}
        assert told[2]["policy"] == POLICY.digest
        assert told[2]["nonces"] > 0

    over(tmp_path, scenario)


def test_a_volume_is_its_projects(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        both.harness.service.storage.volumes._means = "file system"
        assert result_of(await both.acme.ask("volume.create", {"name": "cargo"}, project="web"))["project"] == "web"
        plan = {"argv": ["/bin/true"], "manifest": _mounting("cargo")}
        assert code_of(await both.acme.ask("plan", plan)) == "unknown_volume"
        assert code_of(await both.acme.ask("plan", plan, project="ml")) == "unknown_volume"
        assert result_of(await both.acme.ask("plan", plan, project="web"))
        ml = both.harness.connect(key=admit(both.harness, "acme", projects=frozenset({"ml"})))
        assert result_of(await ml.ask("volume.list", {})) == {"volumes": []}
        assert code_of(await ml.ask("volume.remove", {"name": "cargo"})) == "unknown_volume"

    over(tmp_path, scenario)


def test_anothers_snapshot_is_as_one_that_is_not_there(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        snapshots = both.harness.service.storage.snapshots
        [one] = both.harness.service.sandboxes
        staged, _ = snapshots.begin("acme", "kept")
        snapshots.finish(
            one.target, "kept", staged, sandbox=one.id, manifest=one.manifest, now_ms=1, places=[], skipped=0
        )
        assert result_of(await both.rival.ask("snapshot.list", {})) == {"snapshots": []}
        assert await same_as_none(both.rival, "snapshot.remove", "name", "kept", "nope") == "unknown_snapshot"
        theirs, none = [await both.rival.ask("sandbox.create", {"snapshot": name}) for name in ("kept", "nope")]
        assert words(theirs, "kept") == words(none, "nope")
        worker = both.harness.connect(key=admit(both.harness, "acme", "runner"))
        assert result_of(await worker.ask("snapshot.list", {})) == {"snapshots": []}
        assert code_of(await worker.ask("sandbox.create", {"snapshot": "kept"})) == "unknown_snapshot"
        [row] = result_of(await both.acme.ask("snapshot.list", {}))["snapshots"]
        assert row["name"] == "kept"

    over(tmp_path, scenario)


def test_a_manifest_that_is_for_others_is_as_one_that_is_not_there(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        text, now = b'schema = 1\nname = "theirs"\ntenants = ["acme"]\n', both.harness.service.clock()
        signatures = show_signatures([sign(both.acme.key, text, now, now + 60_000)]).encode()
        loaded = result_of(await both.acme.ask("manifest.load", {"manifest": text, "signatures": signatures}))
        digest, none = str(loaded["digest"]), "sha256:" + "0" * 64
        for cmd in ("run", "plan"):
            code = await same_as_none(both.rival, cmd, "manifest", digest, none, argv=["/bin/true"])
            assert code == "unknown_manifest"
        assert await same_as_none(both.rival, "sandbox.create", "manifest", digest, none) == "unknown_manifest"
        assert await same_as_none(both.rival, "manifest.show", "digest", digest, none) == "unknown_manifest"
        assert (
            await same_as_none(both.rival, "manifest.revoke", "digest", digest, none, reason="x") == "unknown_manifest"
        )
        listed = result_of(await both.rival.ask("manifest.list", {}))["manifests"]
        assert digest not in {row["digest"] for row in listed}
        assert digest not in result_of(await both.rival.ask("status", {}))["manifests"]
        assert digest in result_of(await both.acme.ask("status", {}))["manifests"]
        assert result_of(await both.acme.ask("plan", {"argv": ["/bin/true"], "manifest": digest}))

    over(tmp_path, scenario)


def test_what_a_tenant_makes_is_entered_as_its(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        await both.acme.ask("run", {"argv": ["/bin/true"]}, project="web")
        [accepted] = both.harness.of_type("run.accepted")
        assert (accepted["actor"]["tenant"], accepted["actor"]["project"]) == ("acme", "web")
        [created] = both.harness.of_type("sandbox.created")
        assert created["data"]["tenant"] == "acme"
        assert created["actor"]["role"] == "tenant-admin"

    over(tmp_path, scenario)


def test_a_sandbox_that_is_adopted_is_still_its_owners(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        web = result_of(await both.acme.ask("sandbox.create", {"labels": {"a": "b"}}, project="web"))["sandboxes"][0]
        [one] = [each for each in both.harness.service.sandboxes if each.id == web["sandbox"]]
        assert one.record is not None
        record, values = read_record(os.dup(one.record.fd))
        adopted = restore(values, one.number)
        record.close()
        assert adopted.target == one.target
        older = {name: value for name, value in values.items() if name not in ("project", "owners")}
        assert restore(older, one.number).target.owners == (both.acme.key.id,)
        assert one.target == Target("acme", "web", (both.acme.key.id,), "default", {"a": "b"})

    over(tmp_path, scenario)


def test_what_an_older_daemon_kept_is_the_default_projects(tmp_path: Path) -> None:
    async def scenario(both: Two) -> None:
        storage = both.harness.service.storage
        places = both.harness.state.paths
        volume = places.volumes / "acme" / "old"
        volume.mkdir(parents=True)
        (volume / "volume.json").write_text('{"schema": 1, "bytes": 33554432, "files": 300, "created_ms": 1}')
        snapshot = places.snapshots / "acme" / "old"
        snapshot.mkdir(parents=True)
        (snapshot / "snapshot.json").write_text(
            '{"schema": 1, "sandbox": "s0", "key": "ed25519:a", "manifest": "sha256:0", "created_ms": 1, "skipped": 0,'
            ' "places": []}'
        )
        assert storage.volumes.find("acme", "old").target == Target("acme", "default", ())
        [kept] = storage.snapshots.list("acme")
        assert kept.target == Target("acme", "default", ("ed25519:a",), "default", {})
        assert kept.to_map()["key"] == "ed25519:a"
        [row] = result_of(await both.acme.ask("volume.list", {}))["volumes"]
        assert row["name"] == "old"
        [row] = result_of(await both.acme.ask("snapshot.list", {}))["snapshots"]
        assert row["name"] == "old"
        worker = both.harness.connect(key=admit(both.harness, "acme", "runner"))
        assert result_of(await worker.ask("snapshot.list", {})) == {"snapshots": []}

    over(tmp_path, scenario)


def test_no_command_is_missing_from_the_table_of_permissions() -> None:
    assert set(load_commands()) <= set(PERMISSIONS) - set(RIGHTS)


def test_a_control_tells_nobody_what_is_there(tmp_path: Path) -> None:
    control = (
        b'[[controls]]\nname = "two"\npermissions = ["sandbox.kill", "volume.remove", "snapshot.remove", "kill"]\n'
        b'approvals = 1\napprovers = ["admin"]\nwindow = "1h"\n'
    )

    async def scenario(harness: Harness) -> None:
        async with two(harness) as both:
            both.harness.service.authority.set_policy(parse_policy(POLICY.text + control))
            worker = harness.connect(key=admit(harness, "acme", "worker"))
            assert await same_as_none(both.rival, "sandbox.kill", "sandbox", both.sandbox, unknown_id()) == "not_found"
            none = unknown_id()
            said = [await worker.ask("sandbox.kill", {"sandbox": one}) for one in (both.sandbox, none)]
            assert words(said[0], both.sandbox) == words(said[1], none)
            assert code_of(said[0]) == "not_found"
            assert code_of(await both.acme.ask("sandbox.kill", {"sandbox": both.sandbox})) == "approval_required"
            for cmd, args in (("volume.remove", {"name": "x"}), ("snapshot.remove", {"name": "x"})):
                assert code_of(await both.acme.ask(cmd, args)).startswith("unknown_")

    serving(tmp_path, scenario, policy=POLICY)
