"""Manifests that are loaded: who may, under what conditions, what uses of them are let in, and what ends that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from immured.manifest.builtin import default_manifest, parse_toml
from immured.service.commands import manifest as commands
from immured.wire.keys import PrivateKey
from tests.service.harness import Client, Harness, serving
from tests.service.manifest_scenes import (
    DAY,
    NONE,
    files_of,
    loaded,
    manifest,
    orders,
    row,
    signed,
    standing,
    started_anew,
    with_tenants,
)
from tests.service.orders import code_of, done, error_of, let_in

TRUE = {"argv": ["/bin/true"]}
SMALL = manifest()
GROWN = manifest('[limits]\nmemory = "1G"\npids = 4096\n')
ACME = manifest('tenants = ["acme"]\n')


async def uses(client: Client, digest: str, sandbox: str | None = None) -> dict[str, str]:
    """What each use of it comes to: `ok`, or the refusal's code."""
    asked: dict[str, tuple[str, Mapping[str, object]]] = {
        "run": ("run", {**TRUE, "manifest": digest}),
        "plan": ("plan", {**TRUE, "manifest": digest}),
        "batch": ("run.batch", {"manifest": digest, "runs": [TRUE, TRUE]}),
        "create": ("sandbox.create", {"manifest": digest}),
    }
    if sandbox is not None:
        asked["exec"] = ("sandbox.exec", {"sandbox": sandbox, **TRUE})
    found = {}
    for name, (cmd, args) in asked.items():
        reply = await client.ask(cmd, args)
        found[name] = "ok" if reply.ok else code_of(reply)
    return found


async def sandbox_of(client: Client, digest: str) -> str:
    made = await done(client, "sandbox.create", {"manifest": digest})
    return str(made["sandboxes"][0]["sandbox"])


def all_are(code: str) -> dict[str, str]:
    return dict.fromkeys(("run", "plan", "batch", "create", "exec"), code)


# -- loaded


def test_what_is_loaded_may_be_used_by_its_digest(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        result = await done(client, "manifest.load", orders(SMALL, client.key))
        digest = result["digest"]
        assert digest == parse_toml(SMALL).digest
        assert (result["stored"], result["known"], result["passes"]) == (True, False, True)
        assert await uses(client, digest, await sandbox_of(client, digest)) == all_are("ok")

    serving(tmp_path, scenario)


def test_its_entry_says_who_signed_it_and_every_verdict(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        reply = await client.ask("manifest.load", orders(GROWN, client.key))
        [entry] = harness.of_type("manifest.loaded")
        assert reply.receipt is not None
        assert (reply.receipt.seq, entry["actor"]["name"]) == (entry["seq"], "admin")
        data = entry["data"]
        assert (data["name"], data["class"], data["bytes"]) == ("build", "default", len(GROWN))
        assert [(one["stage"], one["verdict"]) for one in data["stages"]] == [
            ("signature", "pass"),
            ("schema", "pass"),
            ("capabilities", "warn"),
        ]
        assert {one["field"] for one in data["added"]} == {"limits.memory", "limits.pids"}
        assert data["baseline"] == {"kind": "class", "name": "default", "digest": default_manifest().digest}
        assert [one["key"] for one in data["signers"]] == [client.key.id]
        assert data["cmd"] == "manifest.load"

    serving(tmp_path, scenario)


def test_a_run_names_the_entry_that_has_its_manifest(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        digest = await loaded(client, SMALL)
        seq = harness.of_type("manifest.loaded")[0]["seq"]
        sandbox = await sandbox_of(client, digest)
        for cmd, args in (
            ("run", {**TRUE, "manifest": digest}),
            ("run.batch", {"manifest": digest, "runs": [TRUE]}),
            ("sandbox.exec", {"sandbox": sandbox, **TRUE}),
        ):
            await done(client, cmd, args)
        kinds = ("run.accepted", "batch.accepted", "sandbox.created", "exec.accepted")
        found = [entry["data"] for kind in kinds for entry in harness.of_type(kind)]
        assert [(one["manifest"], one["manifest_entry"]) for one in found] == [(digest, seq)] * 4
        await done(client, "run", TRUE)
        assert "manifest_entry" not in harness.of_type("run.accepted")[-1]["data"]

    serving(tmp_path, scenario)


def test_loaded_twice_it_is_there_once(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        args = orders(SMALL, client.key)
        first = await done(client, "manifest.load", args)
        second = await done(client, "manifest.load", args)
        assert (second["stored"], second["known"], second["seq"]) == (False, True, first["seq"])
        assert len(harness.of_type("manifest.loaded")) == 1
        again = await done(client, "manifest.load", orders(SMALL, client.key, life_ms=DAY))
        assert (again["stored"], again["known"]) == (True, True)
        [shown] = [one for one in (await done(client, "manifest.list", {}))["manifests"] if not one["built_in"]]
        assert (shown["seq"], shown["signers"]) == (again["seq"], again["signers"])

    serving(tmp_path, scenario)


def test_a_check_stores_nothing_and_says_everything(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, before = harness.connect(), len(harness.entries())
        good = await done(client, "manifest.load", {**orders(GROWN, client.key), "check": True})
        assert (good["passes"], good["stored"], good["severity"]) == (True, False, "medium")
        bad = await done(client, "manifest.load", {"manifest": GROWN, "check": True})
        assert (bad["passes"], bad["code"]) == (False, "manifest_unsigned")
        assert [one["verdict"] for one in bad["stages"]] == ["fail", "pass", "warn"]
        worse = await done(client, "manifest.load", {"manifest": b"\xff", "check": True})
        assert [one["verdict"] for one in worse["stages"]] == ["fail", "fail"]
        assert len(harness.entries()) == before
        assert code_of(await client.ask("run", {**TRUE, "manifest": good["digest"]})) == "unknown_manifest"
        assert not files_of(harness, good["digest"])["toml"].exists()

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    ("raw", "by", "code", "stage"),
    [
        (SMALL, "nobody", "manifest_unsigned", "signature"),
        (SMALL, "stranger", "manifest_unsigned", "signature"),
        (SMALL, "another file", "signature_invalid", "signature"),
        (b"schema = 1\n", "admin", "manifest_invalid", "schema"),
        (manifest('tenants = ["nowhere"]\n'), "admin", "manifest_invalid", "schema"),
        (manifest('personas = ["wroker"]\n'), "admin", "manifest_invalid", "schema"),
    ],
)
def test_what_does_not_pass_is_refused_and_entered(tmp_path: Path, raw: bytes, by: str, code: str, stage: str) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        signatures = {
            "nobody": b"",
            "stranger": signed(raw, PrivateKey.generate()),
            "another file": signed(GROWN, client.key),
            "admin": signed(raw, client.key),
        }[by]
        reply = await client.ask("manifest.load", {"manifest": raw, "signatures": signatures})
        error = error_of(reply)
        assert (error["code"], error["details"]["stage"]) == (code, stage)
        [entry] = harness.of_type("manifest.refused")
        assert reply.receipt is not None
        assert (reply.receipt.seq, entry["data"]["code"]) == (entry["seq"], code)
        assert [one["stage"] for one in entry["data"]["stages"]][-1] == stage
        assert harness.of_type("command.denied") == harness.of_type("manifest.loaded") == []
        assert [one.name for one in harness.state.paths.manifests.glob("*.next")] == []

    serving(tmp_path, scenario)


def test_what_was_refused_is_not_done_when_it_comes_again(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        body = client.envelope("manifest.load", {"manifest": SMALL})
        await client.send(body)
        first = await client.reply()
        await client.send(body)
        assert await client.reply() == first
        assert len(harness.of_type("manifest.refused")) == 1

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    "args", [{}, {"manifest": "text"}, {"manifest": b"x" * (256 * 1024 + 1)}, {"manifest": b"", "x": 1}]
)
def test_arguments_are_strict(tmp_path: Path, args: Mapping[str, object]) -> None:
    async def scenario(harness: Harness) -> None:
        assert code_of(await harness.connect().ask("manifest.load", args)) in ("bad_argument", "unknown_field")

    serving(tmp_path, scenario)


def test_a_built_in_one_is_not_loaded_over(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, digest = harness.connect(), default_manifest().digest
        raw = (await row(client, digest))["manifest"]
        assert code_of(await client.ask("manifest.load", orders(raw, client.key))) == "wrong_state"
        assert code_of(await client.ask("manifest.revoke", {"digest": digest, "reason": "x"})) == "wrong_state"
        assert await standing(client, digest) == "in_force"

    serving(tmp_path, scenario)


# -- who may


def test_a_tenant_s_engineer_signs_and_loads_for_the_tenant_alone(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_tenants(harness)
        eve = await let_in(harness, "eve", "platform-engineer", tenants=["acme"])
        bob = await let_in(harness, "bob", "worker", tenants=["acme"])
        digest = await loaded(eve, ACME)
        assert (await bob.ask("run", {**TRUE, "manifest": digest})).ok
        assert code_of(await harness.connect().ask("run", {**TRUE, "manifest": digest})) == "unknown_manifest"
        assert code_of(await eve.ask("manifest.load", orders(SMALL, eve.key))) == "manifest_unsigned"
        assert code_of(await eve.ask("manifest.load", orders(SMALL, harness.admin))) == "denied"
        assert code_of(await bob.ask("manifest.load", orders(ACME, eve.key))) == "denied"
        assert code_of(await eve.ask("manifest.revoke", {"digest": digest, "reason": "x"})) == "denied"

    serving(tmp_path, scenario)


def test_nothing_tells_one_tenant_of_another(tmp_path: Path) -> None:
    """Neither a tenant's name, nor a persona's, nor whose key it is."""

    async def scenario(harness: Harness) -> None:
        with_tenants(harness)
        eve = await let_in(harness, "eve", "platform-engineer", tenants=["acme"])
        spy = await let_in(harness, "spy", "platform-engineer", tenants=["beta"], personas=["agent-x"])
        told = []
        for raw in (
            manifest('tenants = ["beta"]\n'),
            manifest('tenants = ["nowhere"]\n'),
            manifest('tenants = ["acme"]\npersonas = ["agent-x"]\n'),
            manifest('tenants = ["acme"]\npersonas = ["agent-y"]\n'),
        ):
            said = await done(eve, "manifest.load", {**orders(raw, spy.key, PrivateKey.generate()), "check": True})
            told.append(said["stages"])
        for ours, none in ((told[0], told[1]), (told[2], told[3])):
            swapped = repr(ours[1]).replace("beta", "nowhere").replace("agent-x", "agent-y")
            assert swapped == repr(none[1])
            assert ours[1]["verdict"] == "fail"
        assert f"{spy.key.id} is no key of this daemon" in told[0][0]["words"]

    serving(tmp_path, scenario)


def test_for_two_tenants_it_takes_who_may_in_both(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_tenants(harness)
        both = manifest('tenants = ["acme", "beta"]\n')
        eve = await let_in(harness, "eve", "tenant-admin", tenants=["acme", "beta"])
        assert code_of(await eve.ask("manifest.load", orders(both, eve.key), tenant="acme")) == "manifest_invalid"
        digest = await loaded(harness.connect(), both, eve.key)
        for tenant in ("acme", "beta"):
            assert (await eve.ask("plan", {**TRUE, "manifest": digest}, tenant=tenant)).ok
        refused = await eve.ask("manifest.revoke", {"digest": digest, "reason": "x"}, tenant="acme")
        assert code_of(refused) == "denied"

    serving(tmp_path, scenario)


def test_a_key_of_one_project_loads_nothing_for_its_tenant(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_tenants(harness)
        eve = await let_in(harness, "eve", "platform-engineer", tenants=["acme"], projects=["web"])
        assert code_of(await eve.ask("manifest.load", orders(ACME, eve.key))) == "manifest_unsigned"
        assert code_of(await eve.ask("manifest.load", orders(ACME, harness.admin))) == "denied"

    serving(tmp_path, scenario)


def test_a_right_to_sign_can_be_for_a_class_alone(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_tenants(
            harness,
            '[[rules]]\nname = "no-networks"\nroles = ["platform-engineer"]\n'
            'deny = ["manifest.sign"]\nclasses = ["networked"]\n',
        )
        eve = await let_in(harness, "eve", "platform-engineer", tenants=["acme"])
        await loaded(eve, ACME)
        other = manifest('class = "networked"\ntenants = ["acme"]\n')
        error = error_of(await eve.ask("manifest.load", orders(other, eve.key)))
        assert error["code"] == "manifest_unsigned"
        assert "'networked'" in error["message"]

    serving(tmp_path, scenario)


@pytest.mark.parametrize("persona", [None, "worker"])
def test_personas_are_asked_at_every_use(tmp_path: Path, persona: str | None) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        digest = await loaded(client, manifest('personas = ["worker"]\n'))
        bob = await let_in(harness, "bob", "runner")
        reply = await bob.ask("run", {**TRUE, "manifest": digest}, persona=persona)
        assert reply.ok if persona else code_of(reply) == "denied"

    serving(tmp_path, scenario)


# -- growth


GROWTH = """
[[controls]]
name = "growth"
permissions = ["manifest.load"]
added = "medium"
approvers = ["secops"]
"""


def test_growth_is_approved_by_others_and_loaded_once(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_tenants(harness, GROWTH)
        eve = await let_in(harness, "eve", "platform-engineer", tenants=["acme"])
        guard = await let_in(harness, "guard", "secops")
        raw = manifest('tenants = ["acme"]\n[limits]\nmemory = "1G"\n')
        await loaded(eve, ACME)  # it adds nothing
        args = orders(raw, eve.key)
        error = error_of(await eve.ask("manifest.load", args))
        assert (error["code"], error["details"]["stage"]) == ("approval_required", "capabilities")
        [refused] = harness.of_type("manifest.refused")
        assert [one["verdict"] for one in refused["data"]["stages"]] == ["pass", "pass", "fail"]
        check = await done(eve, "manifest.load", {**args, "check": True})
        assert (check["passes"], check["code"]) == (False, "approval_required")
        proposed = await done(eve, "proposal.create", {"cmd": "manifest.load", "args": args, "reason": "more memory"})
        digest = bytes.fromhex(proposed["digest"].removeprefix("sha256:"))
        await done(guard, "proposal.approve", {"proposal": proposed["proposal"], "digest": digest})
        await done(eve, "manifest.load", args)
        [_, entry] = harness.of_type("manifest.loaded")
        assert entry["data"]["proposal"] == proposed["proposal"]
        grown = manifest('tenants = ["acme"]\n[limits]\nmemory = "2G"\n')
        assert code_of(await eve.ask("manifest.load", orders(grown, eve.key))) == "approval_required"
        await loaded(eve, manifest('tenants = ["acme"]\n[limits]\nmemory = "768M"\n'))  # less than was approved

    serving(tmp_path, scenario)


def test_a_refusal_uses_no_approval_up(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_tenants(harness, GROWTH.replace('added = "medium"\n', ""))
        eve = await let_in(harness, "eve", "platform-engineer", tenants=["acme"])
        guard, now = await let_in(harness, "guard", "secops"), harness.service.clock()
        args = orders(ACME, eve.key, at_ms=now + 120_000)
        proposed = await done(eve, "proposal.create", {"cmd": "manifest.load", "args": args, "reason": "first"})
        digest = bytes.fromhex(proposed["digest"].removeprefix("sha256:"))
        await done(guard, "proposal.approve", {"proposal": proposed["proposal"], "digest": digest})
        assert (
            code_of(await eve.ask("manifest.load", args)) == "manifest_unsigned"
        )  # signed in what is still the future
        harness.service.clock = lambda: now + 120_000
        await done(eve, "manifest.load", args)
        [entry] = harness.of_type("manifest.loaded")
        assert entry["data"]["proposal"] == proposed["proposal"]

    serving(tmp_path, scenario)


def test_a_baseline_is_of_that_name_and_of_tenants_in_common(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_tenants(harness)
        client = harness.connect()

        async def baseline(raw: bytes) -> Any:
            said = await done(client, "manifest.load", {**orders(raw, client.key), "check": True})
            return said["baseline"]["digest"]

        memory = '[limits]\nmemory = "1G"\n'
        for_acme = await loaded(client, manifest('tenants = ["acme"]\n' + memory))
        for_all = manifest(memory)
        assert await baseline(manifest('tenants = ["acme"]\n')) == for_acme
        assert await baseline(manifest('tenants = ["beta"]\n')) == default_manifest().digest
        assert await baseline(for_all) == for_acme
        assert await baseline(manifest(name="another")) == default_manifest().digest
        hosts = await loaded(client, for_all)
        assert await baseline(manifest('tenants = ["beta"]\n')) == hosts
        await done(client, "manifest.revoke", {"digest": hosts, "reason": "x"})
        assert await baseline(manifest('tenants = ["beta"]\n')) == default_manifest().digest
        assert await baseline(manifest('tenants = ["acme"]\n')) == for_acme

    serving(tmp_path, scenario)


# -- what ends it


def test_what_is_revoked_is_used_and_loaded_never_again(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        digest = await loaded(client, SMALL)
        sandbox = await sandbox_of(client, digest)
        result = await done(client, "manifest.revoke", {"digest": digest, "reason": "it leaked"})
        [entry] = harness.of_type("manifest.revoked")
        assert (result["seq"], entry["data"]["reason"]) == (entry["seq"], "it leaked")
        assert await uses(client, digest, sandbox) == all_are("manifest_revoked")
        assert code_of(await client.ask("manifest.load", orders(SMALL, client.key))) == "manifest_revoked"
        assert code_of(await client.ask("manifest.revoke", {"digest": digest, "reason": "x"})) == "wrong_state"
        shown = await row(client, digest)
        assert (shown["standing"], shown["revoked"]["reason"], shown["manifest"]) == ("revoked", "it leaked", SMALL)
        assert digest not in (await done(client, "status", {}))["manifests"]

    serving(tmp_path, scenario)


def test_what_was_never_loaded_can_be_revoked_by_who_governs_the_host(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_tenants(harness)
        client, digest = harness.connect(), parse_toml(SMALL).digest
        carol = await let_in(harness, "carol", "tenant-admin", tenants=["acme"])
        assert code_of(await carol.ask("manifest.revoke", {"digest": digest, "reason": "x"})) == "unknown_manifest"
        guard = await let_in(harness, "guard", "secops")
        await done(guard, "manifest.revoke", {"digest": digest, "reason": "seen elsewhere"})
        assert code_of(await client.ask("manifest.load", orders(SMALL, client.key))) == "manifest_revoked"
        for wrong in ("sha256:", "x", "sha256:" + "A" * 64):
            assert code_of(await client.ask("manifest.revoke", {"digest": wrong, "reason": "x"})) == "bad_argument"

    serving(tmp_path, scenario)


@pytest.mark.parametrize("stop", ["key.suspend", "key.revoke"])
def test_a_key_that_is_stopped_takes_its_signature_with_it(tmp_path: Path, stop: str) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        eve = await let_in(harness, "eve", "admin")
        digest = await loaded(client, SMALL, eve.key)
        sandbox = await sandbox_of(client, digest)
        await done(client, stop, {"key": eve.key.id})
        assert await uses(client, digest, sandbox) == all_are("manifest_unsigned")
        assert await standing(client, digest) == "unsigned"
        if stop == "key.suspend":
            await done(client, "key.resume", {"key": eve.key.id})
            assert await uses(client, digest, sandbox) == all_are("ok")

    serving(tmp_path, scenario)


def test_a_key_s_successor_answers_for_what_it_signed(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, heir = harness.connect(), PrivateKey.generate()
        eve = await let_in(harness, "eve", "admin")
        digest = await loaded(client, SMALL, eve.key)
        await done(eve, "key.rotate", {"key": eve.key.id, "public": heir.public.raw, "overlap_ms": 0})
        assert await standing(client, digest) == "in_force"
        assert code_of(await client.ask("manifest.load", orders(GROWN, eve.key))) == "manifest_unsigned"
        await loaded(client, GROWN, heir)
        await done(client, "key.revoke", {"key": heir.id})
        assert await standing(client, digest) == "unsigned"

    serving(tmp_path, scenario)


def test_a_key_that_lost_the_right_has_not_signed(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_tenants(harness)
        client = harness.connect()
        eve = await let_in(harness, "eve", "platform-engineer", tenants=["acme"])
        digest = await loaded(eve, ACME)
        await done(client, "key.bind", {"key": eve.key.id, "role": "worker"})
        assert await standing(client, digest) == "unsigned"
        await done(client, "key.bind", {"key": eve.key.id, "role": "platform-engineer"})
        assert await standing(client, digest) == "in_force"

    serving(tmp_path, scenario)


def test_signatures_end_with_their_time(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        result = await done(client, "manifest.load", orders(SMALL, client.key, life_ms=DAY))
        digest, end = result["digest"], result["expires_ms"]
        sandbox = await sandbox_of(client, digest)
        begin = harness.service.clock()
        harness.service.clock = lambda: end - 1
        assert await standing(client, digest) == "in_force"
        harness.service.clock = lambda: end
        assert await uses(client, digest, sandbox) == all_are("manifest_expired")
        assert await standing(client, digest) == "expired"
        again = orders(SMALL, client.key, at_ms=end - 1)
        await done(client, "manifest.load", again)
        assert await uses(client, digest, sandbox) == all_are("ok")
        harness.service.clock = lambda: begin

    serving(tmp_path, scenario)


def test_policy_may_ask_for_more_signatures_at_any_time(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        eve = await let_in(harness, "eve", "admin")
        digest = await loaded(client, SMALL)
        with_tenants(harness, "[manifests]\nsignatures = 2\n")
        assert await standing(client, digest) == "unsigned"
        assert code_of(await client.ask("manifest.load", orders(GROWN, client.key))) == "manifest_unsigned"
        await loaded(client, SMALL, client.key, eve.key)
        assert await standing(client, digest) == "in_force"

    serving(tmp_path, scenario)


def test_policy_lists_what_may_be_used_built_in_and_inline_too(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        digest = await loaded(client, SMALL)
        inline = {"schema": 1, "limits": {"pids": 7}}
        sandbox = await sandbox_of(client, digest)
        plain = str((await done(client, "sandbox.create", {}))["sandboxes"][0]["sandbox"])
        with_tenants(harness, f'[manifests]\nonly = ["{digest}"]\n')
        assert await uses(client, digest, sandbox) == all_are("ok")
        for args in (TRUE, {**TRUE, "manifest": inline}, {**TRUE, "manifest": default_manifest().digest}):
            error = error_of(await client.ask("run", args))
            assert (error["code"], error["details"]["field"]) == ("denied", "manifests.only")
        assert code_of(await client.ask("sandbox.exec", {"sandbox": plain, **TRUE})) == "denied"
        assert await standing(client, default_manifest().digest) == "not_allowed"

    serving(tmp_path, scenario)


@pytest.mark.parametrize("which", ["default", "inline", "loaded"])
def test_policy_revokes_any_manifest_and_may_take_that_back(tmp_path: Path, which: str) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        inline = {"schema": 1, "limits": {"pids": 7}}
        named: dict[str, object] = {"default": {}, "inline": {"manifest": inline}}
        named["loaded"] = {"manifest": await loaded(client, SMALL)}
        args: Any = {**TRUE, **named[which]}  # type: ignore[dict-item]
        await done(client, "run", args)
        digest = harness.of_type("run.accepted")[-1]["data"]["manifest"]
        with_tenants(harness, f'[manifests]\nrevoked = ["{digest}"]\n')
        assert code_of(await client.ask("run", args)) == "manifest_revoked"
        with_tenants(harness)
        assert (await client.ask("run", args)).ok

    serving(tmp_path, scenario)


# -- bounds


def test_so_many_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MAX_LOADED", 3)
    monkeypatch.setattr(commands, "MAX_OF_TENANT", 1)

    async def scenario(harness: Harness) -> None:
        with_tenants(harness)
        client = harness.connect()
        first = await loaded(client, ACME)
        error = error_of(await client.ask("manifest.load", orders(ACME + b"\n", client.key)))
        assert (error["code"], error["details"]["limit"]) == ("over_quota", 1)
        await done(client, "manifest.load", orders(ACME, client.key, life_ms=DAY))  # renewed
        await done(client, "manifest.revoke", {"digest": first, "reason": "room"})
        await loaded(client, ACME + b"\n")
        await loaded(client, SMALL)
        await loaded(client, GROWN)
        assert code_of(await client.ask("manifest.load", orders(SMALL + b"\n", client.key))) == "over_quota"
        assert harness.of_type("manifest.refused") == []

    serving(tmp_path, scenario)


def test_a_long_list_comes_in_pages(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        made = [await loaded(client, manifest(name=f"n{at}")) for at in range(5)]
        found, after = [], None
        while True:
            args: dict[str, object] = {"limit": 2, **({} if after is None else {"after": after})}
            page = await done(client, "manifest.list", args)
            assert 0 < len(page["manifests"]) <= 2
            found += [one["digest"] for one in page["manifests"]]
            after = page.get("next")
            if after is None:
                break
        assert len(found) == len(set(found))
        assert found[-5:] == made
        assert set(found[:-5]) == set(harness.state.classes.values())
        [named] = (await done(client, "manifest.list", {"name": "n3"}))["manifests"]
        assert named["digest"] == made[3]
        for wrong in ({"after": "x"}, {"limit": 0}, {"limit": 257}):
            assert code_of(await client.ask("manifest.list", wrong)) == "bad_argument"

    serving(tmp_path, scenario)


def test_nobody_names_what_is_not_there(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        assert set((await uses(client, NONE)).values()) == {"unknown_manifest"}
        assert code_of(await client.ask("manifest.show", {"digest": NONE})) == "unknown_manifest"

    serving(tmp_path, scenario)


# -- another start


def test_the_ledger_says_at_the_next_start_what_is_in_force(tmp_path: Path) -> None:
    digests: dict[str, str] = {}

    async def before(harness: Harness) -> None:
        with_tenants(harness)
        client = harness.connect()
        digests["kept"] = await loaded(client, SMALL)
        digests["acme"] = await loaded(client, ACME)
        digests["gone"] = await loaded(client, GROWN)
        await done(client, "manifest.revoke", {"digest": digests["gone"], "reason": "it leaked"})
        digests["rows"] = repr((await done(client, "manifest.list", {}))["manifests"])

    async def after(harness: Harness) -> None:
        client = harness.connect()
        assert repr((await done(client, "manifest.list", {}))["manifests"]) == digests["rows"]
        assert (await client.ask("run", {**TRUE, "manifest": digests["kept"]})).ok
        assert code_of(await client.ask("run", {**TRUE, "manifest": digests["gone"]})) == "manifest_revoked"
        assert code_of(await client.ask("run", {**TRUE, "manifest": digests["acme"]})) == "unknown_manifest"
        assert code_of(await client.ask("manifest.load", orders(GROWN, client.key))) == "manifest_revoked"
        said = await done(client, "manifest.load", {**orders(SMALL + b"\n", client.key), "check": True})
        assert said["baseline"]["digest"] == digests["acme"]

    serving(tmp_path, before)
    started_anew(tmp_path, after)
