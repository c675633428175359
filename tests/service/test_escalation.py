"""Ways to more than one has, tried one by one: what a key leaves behind, whom it acts for, who agrees with himself."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from immured.identity.policy.permissions import PERMISSIONS, RIGHTS
from immured.service.context import now_ms
from immured.wire.certificate import issue
from immured.wire.keys import PrivateKey
from tests.service.harness import Client, Harness, serving
from tests.service.orders import code_of, done, error_of, let_in, under

MINUTE = 60_000
TENANTS = """
[tenants.acme]
projects = ["web", "ml"]
[tenants.beta]
"""


async def certified(harness: Harness, issuer: PrivateKey, permissions: Collection[str], **more: Any) -> Client:
    """A key that is in no keyring, by a certificate of that issuer; connected, and its certificate presented."""
    key = PrivateKey.generate()
    client = harness.connect(key=key)
    body = issue(
        issuer, key.public, "agent", now_ms=now_ms(), permissions=permissions, **{"life_ms": 60 * MINUTE, **more}
    )
    await client.send(body)
    return client


def new_key(name: str, role: str, **bindings: Any) -> dict[str, Any]:
    return {"name": name, "public": PrivateKey.generate().public.raw, "role": role, **bindings}


# -- what a key leaves behind ends with it


@pytest.mark.parametrize("later", [None, 10 * MINUTE])
def test_a_certified_key_leaves_none_behind_that_outlives_its_certificate(tmp_path: Path, later: int | None) -> None:
    async def scenario(harness: Harness) -> None:
        agent = await certified(harness, harness.admin, PERMISSIONS, life_ms=5 * MINUTE)
        ends = {} if later is None else {"expires_ms": now_ms() + later}
        assert code_of(await agent.ask("key.add", new_key("stays", "admin", **ends))) == "escalation"
        assert (await agent.ask("key.add", new_key("goes", "admin", expires_ms=now_ms() + MINUTE))).ok

    serving(tmp_path, scenario)


def test_a_key_that_ends_leaves_none_behind_that_does_not(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        ends = now_ms() + MINUTE
        guest = await let_in(harness, "guest", "admin", expires_ms=ends)
        assert code_of(await guest.ask("key.add", new_key("stays", "viewer"))) == "escalation"
        assert (await guest.ask("key.add", new_key("goes", "viewer", expires_ms=ends))).ok

    serving(tmp_path, scenario)


def test_nor_does_one_that_another_took_the_place_of(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS)
        leaked = await let_in(harness, "lead", "tenant-admin", tenants=["acme"])
        args = {"key": "lead", "public": PrivateKey.generate().public.raw, "overlap_ms": MINUTE}
        await done(harness.connect(), "key.rotate", args)
        refused = await leaked.ask("key.add", new_key("door", "tenant-admin", tenants=["acme"]))
        assert code_of(refused) == "escalation"

    serving(tmp_path, scenario)


def test_nor_does_it_put_off_its_own_end(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS)
        ends = now_ms() + MINUTE
        lead = await let_in(harness, "lead", "tenant-admin", tenants=["acme"], expires_ms=ends)
        assert code_of(await lead.ask("key.bind", {"key": "lead", "expires_ms": 0})) == "escalation"
        assert code_of(await lead.ask("key.bind", {"key": "lead", "expires_ms": ends + 1})) == "escalation"
        assert (await lead.ask("key.bind", {"key": "lead", "expires_ms": ends - 1})).ok

    serving(tmp_path, scenario)


# -- whose key it is


@pytest.mark.parametrize("of", ["bob", "boss"])
def test_who_is_bound_to_a_project_changes_no_key_that_reaches_further(tmp_path: Path, of: str) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS)
        lead = await let_in(harness, "lead", "tenant-admin", tenants=["acme"], projects=["default"])
        await let_in(harness, "bob", "runner", tenants=["acme"], projects=["web", "ml"])
        await let_in(harness, "boss", "tenant-admin", tenants=["acme"])
        await let_in(harness, "mate", "runner", tenants=["acme"], projects=["default"])
        orders: tuple[tuple[str, dict[str, Any]], ...] = (
            ("key.show", {}),
            ("key.label", {"note": "mine"}),
            ("key.bind", {"uids": [4711]}),
            ("key.suspend", {}),
            ("key.revoke", {}),
        )
        for cmd, args in orders:
            assert code_of(await lead.ask(cmd, {"key": of, **args})) == "not_found"
            assert (await lead.ask(cmd, {"key": "mate", **args})).ok
        listed = await done(lead, "key.list", {})
        assert {one["name"] for one in listed["keys"]} == {"lead", "mate"}

    serving(tmp_path, scenario)


def test_nobody_binds_his_own_key_to_others_than_himself(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        admin = harness.connect()
        me = (await done(admin, "whoami", {}))["key"]
        assert code_of(await admin.ask("key.bind", {"key": me, "uids": [4711]})) == "lockout"
        assert code_of(await admin.ask("key.bind", {"key": me, "gids": [4711]})) == "lockout"
        assert (await admin.ask("key.bind", {"key": me, "uids": [0, 4711]})).ok

    serving(tmp_path, scenario)


def test_the_last_that_could_change_the_policy_gets_no_end(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        admin = harness.connect()
        me = (await done(admin, "whoami", {}))["key"]
        await let_in(harness, "guest", "admin", expires_ms=now_ms() + 9 * MINUTE)
        assert code_of(await admin.ask("key.bind", {"key": me, "expires_ms": now_ms() + MINUTE})) == "lockout"
        assert code_of(await admin.ask("key.suspend", {"key": me})) == "lockout"

    serving(tmp_path, scenario)


def test_nor_is_it_lost_where_something_else_is_lost_already(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        admin = harness.connect()
        me = (await done(admin, "whoami", {}))["key"]
        await let_in(harness, "bob", "worker")
        under(harness, CONTROL.replace('"policy.set", "key.add"', '"run"').replace('"secops", "admin"', '"secops"'))
        assert (await admin.ask("key.suspend", {"key": "bob"})).ok  # nobody approves runs, and that is so before too
        assert code_of(await admin.ask("key.revoke", {"key": me})) == "lockout"

    serving(tmp_path, scenario)


# -- on whose behalf


@pytest.mark.parametrize("role", ["silent", "admin"])
def test_who_acts_for_one_adds_no_key_that_speaks_for_others(tmp_path: Path, role: str) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, '[roles.silent]\n[[rules]]\nname = "s"\nroles = ["silent"]\nallow = ["whoami"]\nscope = "own"\n')
        boss = await let_in(harness, "boss", "admin", subjects=["alice", "bob"])
        agent = await certified(harness, boss.key, PERMISSIONS, sub="bob")
        ends, subject = now_ms() + MINUTE, "alice" if role == "silent" else "bob"
        refused = error_of(await agent.ask("key.add", new_key("x", role, subjects=[subject], expires_ms=ends)))
        assert (refused["code"], refused["details"]["permission"]) == ("escalation", "speak")
        assert (await agent.ask("key.add", new_key("y", "silent", subjects=["bob"], expires_ms=ends))).ok

    serving(tmp_path, scenario)


def test_an_agent_does_not_become_somebody_elses_by_being_added_to_the_keyring(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS)
        orchestrator = await let_in(harness, "orchestrator", "runner", tenants=["acme"])
        thief = await let_in(harness, "thief", "tenant-admin", tenants=["beta"])
        agent = await certified(harness, orchestrator.key, PERMISSIONS.keys() - RIGHTS.keys())
        assert (await done(agent, "whoami", {}))["tenant"] == "acme"
        args = {"name": "trap", "public": agent.key.public.raw, "role": "runner", "tenants": ["beta"]}
        await done(thief, "key.add", args)
        assert code_of(await agent.ask("whoami", {})) == "bad_certificate"

    serving(tmp_path, scenario)


# -- who agrees with himself

CONTROL = """
[[controls]]
name = "two"
permissions = ["policy.set", "key.add"]
approvals = 1
approvers = ["secops", "admin"]
window = "8h"
"""


def as_approved(proposal: Any) -> dict[str, Any]:
    return {"proposal": proposal["proposal"], "digest": bytes.fromhex(proposal["digest"].removeprefix("sha256:"))}


@pytest.mark.parametrize("way", ["add", "bind", "rotate"])
def test_nobody_makes_himself_the_second_who_agrees(tmp_path: Path, way: str) -> None:
    async def scenario(harness: Harness) -> None:
        guard, bob = await let_in(harness, "guard", "secops"), await let_in(harness, "bob", "viewer")
        under(harness, CONTROL)
        admin, mine = harness.connect(), PrivateKey.generate()
        ways: dict[str, dict[str, Any]] = {
            "add": {"name": "me-too", "public": mine.public.raw, "role": "secops"},
            "bind": {"key": "bob", "role": "secops"},
            "rotate": {"key": "guard", "public": mine.public.raw, "overlap_ms": 0},
        }
        args = ways[way]
        assert code_of(await admin.ask(f"key.{way}", args)) == "approval_required"
        proposal = await done(admin, "proposal.create", {"cmd": f"key.{way}", "args": args, "reason": "two see it"})
        assert [one["name"] for one in proposal["controls"]] == ["two"]
        assert code_of(await bob.ask("proposal.approve", as_approved(proposal))) in ("denied", "not_found")
        await done(guard, "proposal.approve", as_approved(proposal))
        assert (await admin.ask(f"key.{way}", args)).ok

    serving(tmp_path, scenario)


def test_ones_own_key_is_rotated_without_asking(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        guard = await let_in(harness, "guard", "secops")
        under(harness, CONTROL)
        args = {"key": "guard", "public": PrivateKey.generate().public.raw}
        assert (await guard.ask("key.rotate", args)).ok

    serving(tmp_path, scenario)
