"""Keys on their way: who may change what of whom, what each standing answers, and what a start finds again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from immured.identity.keyring import MAX_LABELS
from immured.service.context import now_ms
from immured.wire.keys import PrivateKey
from tests.service.harness import Harness, serving
from tests.service.orders import TENANTS, code_of, done, error_of, let_in, started_again, under


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        (["suspend"], "key_suspended"),
        (["suspend", "resume"], None),
        (["revoke"], "key_revoked"),
        (["suspend", "revoke"], "key_revoked"),
    ],
)
def test_a_key_serves_as_its_status_says(tmp_path: Path, steps: list[str], code: str | None) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        for step in steps:
            await done(harness.connect(), f"key.{step}", {"key": "bob", "reason": "drill"})
        reply = await bob.ask("status", {})
        assert reply.ok if code is None else code_of(reply) == code

    serving(tmp_path, scenario)


@pytest.mark.parametrize("step", ["suspend", "resume", "revoke", "bind", "rotate"])
def test_a_revoked_key_is_so_for_good(tmp_path: Path, step: str) -> None:
    async def scenario(harness: Harness) -> None:
        await let_in(harness, "bob", "viewer")
        await done(harness.connect(), "key.revoke", {"key": "bob"})
        args: dict[str, Any] = {"key": "bob"}
        if step == "rotate":
            args["public"] = PrivateKey.generate().public.raw
        assert code_of(await harness.connect().ask(f"key.{step}", args)) == "wrong_state"

    serving(tmp_path, scenario)


def test_a_key_serves_from_and_until_when_it_says(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        now = now_ms()
        early = await let_in(harness, "early", "viewer", not_before_ms=now + 60_000)
        late = await let_in(harness, "late", "viewer", expires_ms=now + 60_000)
        assert code_of(await early.ask("status", {})) == "key_not_yet_valid"
        assert (await late.ask("status", {})).ok
        harness.service.clock = lambda: now + 60_000
        assert (await early.ask("status", {})).ok
        refused = error_of(await late.ask("status", {}))
        assert (refused["code"], refused["details"]["expires_ms"]) == ("key_expired", now + 60_000)

    serving(tmp_path, scenario)


def test_a_key_bound_to_a_group_serves_nobody_else(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer", gids=[4711])
        assert code_of(await bob.ask("status", {})) == "peer_not_bound"
        assert (await harness.connect(uid=4711, key=bob.key).ask("status", {})).ok

    serving(tmp_path, scenario)


def test_a_successor_takes_name_bindings_and_what_was_made(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        now = now_ms()
        bob = await let_in(harness, "bob", "worker", uids=[0, 7])
        made = await done(bob, "session.open", {})
        new = PrivateKey.generate()
        args = {"key": "bob", "public": new.public.raw, "overlap_ms": 60_000}
        after = await done(harness.connect(), "key.rotate", args)
        assert (after["name"], after["uids"], after["predecessors"]) == ("bob", [0, 7], [bob.key.id])
        assert (after["old"]["successor"], after["old"]["standing"]) == (new.id, "active")
        heir = harness.connect(key=new)
        assert (await done(heir, "session.show", {"session": made["session"]}))["session"] == made["session"]
        assert (await bob.ask("whoami", {})).ok
        harness.service.clock = lambda: now + 70_000
        assert code_of(await bob.ask("whoami", {})) == "key_expired"
        assert (await heir.ask("whoami", {})).ok

    serving(tmp_path, scenario)


def test_a_key_that_leaked_is_suspended_and_gets_a_successor(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "worker")
        admin, guard = harness.connect(), await let_in(harness, "guard", "secops")
        await done(guard, "key.suspend", {"key": "bob"})
        new = PrivateKey.generate()
        after = await done(admin, "key.rotate", {"key": "bob", "public": new.public.raw})
        assert (after["standing"], after["old"]["standing"]) == ("active", "suspended")
        assert code_of(await bob.ask("whoami", {})) == "key_suspended"
        assert (await harness.connect(key=new).ask("whoami", {})).ok

    serving(tmp_path, scenario)


def test_who_may_not_resume_a_key_gives_it_no_successor(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        rule = '[[rules]]\nname = "x"\nroles = ["tenant-admin"]\ndeny = ["key.resume"]\nscope = "host"\n'
        under(harness, rule)
        head = await let_in(harness, "head", "tenant-admin")
        await let_in(harness, "bob", "viewer")
        await done(head, "key.suspend", {"key": "bob"})
        args = {"key": "bob", "public": PrivateKey.generate().public.raw}
        assert code_of(await head.ask("key.rotate", args)) == "denied"

    serving(tmp_path, scenario)


def test_nobody_resumes_a_key_that_may_more_than_he(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(
            harness, '[[rules]]\nname = "x"\nroles = ["viewer"]\nallow = ["key.resume", "key.show"]\nscope = "tenant"\n'
        )
        head = await let_in(harness, "head", "viewer")
        for name, role, code in (("less", "viewer", None), ("more", "worker", "escalation")):
            await let_in(harness, name, role)
            await done(harness.connect(), "key.suspend", {"key": name})
            reply = await head.ask("key.resume", {"key": name})
            assert reply.ok if code is None else code_of(reply) == code

    serving(tmp_path, scenario)


def test_no_rotation_slips_out_of_a_rule_that_names_the_key(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        denied = f'[[rules]]\nname = "x"\nkeys = ["{bob.key.id}"]\ndeny = ["sandbox.list"]\nscope = "host"\n'
        under(harness, OWN_ROTATION + denied)
        new = PrivateKey.generate()
        await done(bob, "key.rotate", {"key": "bob", "public": new.public.raw})
        assert code_of(await harness.connect(key=new).ask("sandbox.list", {})) == "denied"

    serving(tmp_path, scenario)


def test_a_key_is_rotated_once(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        for expected in (None, "bad_argument"):
            args = {"key": bob.key.id, "public": PrivateKey.generate().public.raw}
            reply = await harness.connect().ask("key.rotate", args)
            assert reply.ok if expected is None else code_of(reply) == expected

    serving(tmp_path, scenario)


OWN_ROTATION = """
[[rules]]
name = "everybody-rotates"
roles = ["viewer"]
allow = ["key.rotate", "key.show"]
scope = "own"
"""


def test_whoever_rotates_his_own_key_does_not_make_it_last_longer(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, OWN_ROTATION)
        ends = now_ms() + 60_000
        bob = await let_in(harness, "bob", "viewer", expires_ms=ends)
        new = PrivateKey.generate()
        args = {"key": "bob", "public": new.public.raw}
        assert code_of(await bob.ask("key.rotate", {**args, "expires_ms": ends + 1})) == "escalation"
        assert code_of(await bob.ask("key.rotate", {**args, "expires_ms": 0})) == "escalation"
        assert (await done(bob, "key.rotate", args))["expires_ms"] == ends

    serving(tmp_path, scenario)


def test_whoever_rotates_anothers_key_takes_no_more_than_he_has(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(
            harness, '[[rules]]\nname = "x"\nroles = ["viewer"]\nallow = ["key.rotate", "key.show"]\nscope = "tenant"\n'
        )
        await let_in(harness, "worker", "worker")
        bob = await let_in(harness, "bob", "viewer")
        args = {"key": "worker", "public": PrivateKey.generate().public.raw}
        refused = error_of(await bob.ask("key.rotate", args))
        assert refused["code"] == "escalation"
        assert refused["details"]["permission"] in ("run", "run.batch", "kill", "plan")

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    ("role", "bindings", "code"),
    [
        ("viewer", {"tenants": ["acme"]}, None),
        ("tenant-admin", {"tenants": ["acme"]}, None),
        ("viewer", {"tenants": ["acme"], "projects": ["web"]}, None),
        ("admin", {"tenants": ["acme"]}, "escalation"),
        ("operator", {"tenants": ["acme"]}, "escalation"),
        ("viewer", {"tenants": ["acme"], "personas": ["admin"]}, "escalation"),
        ("viewer", {"tenants": ["acme", "beta"]}, "escalation"),
        ("viewer", {"tenants": ["gamma"]}, "escalation"),
        ("viewer", {}, "escalation"),
        ("viewer", {"tenants": ["acme"], "subjects": ["carol"]}, "escalation"),
    ],
)
def test_a_tenants_admin_adds_keys_to_his_tenant_alone(
    tmp_path: Path, role: str, bindings: dict[str, object], code: str | None
) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS)
        head = await let_in(harness, "head", "tenant-admin", tenants=["acme"])
        args = {"name": "new", "public": PrivateKey.generate().public.raw, "role": role, **bindings}
        reply = await head.ask("key.add", args)
        assert reply.ok if code is None else code_of(reply) == code

    serving(tmp_path, scenario)


def test_a_foreign_and_an_undeclared_tenant_are_refused_in_the_same_words(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS)
        head = await let_in(harness, "head", "tenant-admin", tenants=["acme"])
        said = []
        for tenant in ("beta", "gone"):
            args = {"name": "n", "public": PrivateKey.generate().public.raw, "role": "viewer", "tenants": [tenant]}
            said.append(str(error_of(await head.ask("key.add", args))).replace(tenant, "T"))
        assert said[0] == said[1]

    serving(tmp_path, scenario)


def test_a_key_that_is_bound_to_projects_reaches_nothing_of_the_hosts(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS)
        web = await let_in(harness, "web", "admin", tenants=["acme"], projects=["web"])
        asked = {"key": "admin"}
        assert code_of(await web.ask("key.suspend", asked)) == "not_found"
        assert code_of(await web.ask("key.show", asked)) == "not_found"
        lost = PrivateKey.generate().id
        assert (await done(web, "key.revoke", {"key": lost}))["issuer"] == web.key.id

    serving(tmp_path, scenario)


def test_keys_of_another_tenant_are_as_if_there_were_none(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS)
        head = await let_in(harness, "head", "tenant-admin", tenants=["acme"])
        await let_in(harness, "theirs", "worker", tenants=["beta"])
        await let_in(harness, "both", "worker", tenants=["acme", "beta"])
        assert [one["name"] for one in (await done(head, "key.list", {}))["keys"]] == ["head"]
        for cmd in ("key.show", "key.suspend", "key.revoke", "key.label"):
            theirs = error_of(await head.ask(cmd, {"key": "theirs"}))
            nobody = error_of(await head.ask(cmd, {"key": "nobody"}))
            assert str(theirs).replace("theirs", "X") == str(nobody).replace("nobody", "X")
            assert theirs["code"] == "not_found"
        for cmd in ("key.show", "key.suspend"):
            assert code_of(await head.ask(cmd, {"key": "admin"})) == "not_found"

    serving(tmp_path, scenario)


def test_what_one_may_see_and_not_do_is_denied(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        guard = await let_in(harness, "guard", "secops")
        assert (await guard.ask("key.show", {"key": "admin"})).ok
        assert code_of(await guard.ask("key.bind", {"key": "admin", "role": "viewer"})) == "denied"

    serving(tmp_path, scenario)


def test_the_last_key_that_keeps_the_policy_stays(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        admin = harness.connect()
        for cmd, more in (("suspend", {}), ("revoke", {}), ("bind", {"role": "viewer"})):
            assert code_of(await admin.ask(f"key.{cmd}", {"key": "admin", **more})) == "lockout"
        await let_in(harness, "second", "admin")
        assert (await admin.ask("key.revoke", {"key": "admin"})).ok

    serving(tmp_path, scenario)


def test_a_rules_name_is_not_to_be_had_by_being_renamed(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        more = """
[[rules]]
name = "x"
keys = ["chosen"]
allow = ["volume.create"]
scope = "tenant"
[[rules]]
name = "y"
roles = ["worker"]
allow = ["key.label", "key.show"]
scope = "own"
[[rules]]
name = "z"
keys = ["bob"]
deny = ["run"]
scope = "host"
"""
        under(harness, more)
        bob = await let_in(harness, "bob", "worker")
        for name in ("chosen", "free"):
            assert code_of(await bob.ask("key.label", {"key": "bob", "name": name})) == "escalation"
        assert (await done(bob, "key.label", {"key": "bob", "note": "on call"}))["note"] == "on call"

    serving(tmp_path, scenario)


def test_a_certified_key_is_barred_by_its_id(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, OWN_ROTATION.replace("key.rotate", "key.revoke"))
        bob = await let_in(harness, "bob", "viewer")
        lost = PrivateKey.generate().id
        assert (await done(harness.connect(), "key.revoke", {"key": lost})) == {"key": lost}
        own = await done(bob, "key.revoke", {"key": lost, "reason": "lost"})
        assert own == {"key": lost, "issuer": bob.key.id, "reason": "lost"}
        authority = started_again(harness)
        assert authority.barred == {lost}
        assert authority.barred_under == {bob.key.id: {lost}}

    serving(tmp_path, scenario)


def test_a_start_finds_the_keys_as_they_were_left(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        await let_in(harness, "bob", "viewer")
        admin = harness.connect()
        before = harness.state.paths.keyring.read_bytes()
        new = PrivateKey.generate()
        full = {
            "personas": [f"{'p' * 60}{n:02}" for n in range(MAX_LABELS)],
            "subjects": ["ö" * 60 + f"{n}" for n in range(64)],
        }
        await done(admin, "key.bind", {"key": "bob", "gids": [5], "note": "x" * 256, **full})
        await done(admin, "key.rotate", {"key": "bob", "public": new.public.raw})
        await done(admin, "key.suspend", {"key": "bob"})
        await done(admin, "key.label", {"key": "bob", "name": "robert"})
        live = harness.service.authority.keyring
        written = harness.state.paths.keyring.read_bytes()
        assert started_again(harness).keyring.to_json() == live.to_json() == written
        # As if none of it had reached the file.
        harness.state.paths.keyring.write_bytes(before)
        assert started_again(harness).keyring.to_json() == live.to_json()

    serving(tmp_path, scenario)


def test_the_list_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        for name in ("a", "b", "c"):
            await let_in(harness, name, "viewer")
        admin = harness.connect()
        first = await done(admin, "key.list", {"limit": 3})
        rest = await done(admin, "key.list", {"limit": 3, "after": first["next"]})
        assert [one["name"] for one in (*first["keys"], *rest["keys"])] == ["admin", "a", "b", "c"]
        assert "next" not in rest

    serving(tmp_path, scenario)
