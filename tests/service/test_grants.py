"""Narrow elevation: one command, once, for whom no rule allows it, and by nobody who has not got it himself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from immured.identity.canonical import command_digest
from immured.service.context import now_ms
from immured.wire.keys import PrivateKey
from tests.service.harness import Client, Harness, serving
from tests.service.orders import TENANTS, code_of, done, error_of, let_in, started_again, under

HOUR = 3_600_000
TRUE = {"argv": ["/bin/true"]}
FALSE = {"argv": ["/bin/false"]}


async def grant(harness: Harness, key: str, cmd: str, *, by: Client | None = None, **more: Any) -> Any:
    args = {"key": key, "cmd": cmd, "ttl_ms": HOUR, "reason": "drill", **more}
    return await done(by or harness.connect(), "grant.issue", args)


def test_a_grant_allows_its_command_once(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        assert code_of(await bob.ask("run", TRUE)) == "denied"
        issued = await grant(harness, "bob", "run")
        assert (await bob.ask("run", TRUE)).ok
        assert code_of(await bob.ask("run", FALSE)) == "denied"
        [entry] = [one for one in harness.entries() if one["data"].get("grant")]
        assert (entry["type"], entry["data"]["grant"]) == ("run.accepted", issued["grant"])

    serving(tmp_path, scenario)


def test_a_command_that_only_reads_uses_its_grant_up_as_well(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        await grant(harness, "bob", "policy.show")
        assert (await bob.ask("policy.show", {})).receipt is not None
        assert code_of(await bob.ask("policy.show", {})) == "denied"

    serving(tmp_path, scenario)


def test_a_command_that_is_refused_leaves_its_grant(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        await grant(harness, "bob", "run")
        assert code_of(await bob.ask("run", {"argv": []})) == "bad_argument"
        assert (await bob.ask("run", TRUE)).ok

    serving(tmp_path, scenario)


def test_two_at_a_time_do_not_share_a_grant(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        again = harness.connect(key=bob.key)
        await grant(harness, "bob", "run")
        replies = await asyncio.gather(bob.ask("run", TRUE), again.ask("run", FALSE))
        assert sorted(reply.ok for reply in replies) == [False, True]

    serving(tmp_path, scenario)


def test_a_grant_of_a_digest_is_for_that_very_command(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        meant = {**TRUE, "cwd": "/tmp"}
        await grant(harness, "bob", "run", digest=command_digest("run", "default", "default", meant))
        assert code_of(await bob.ask("run", {**meant, "cwd": "/"})) == "denied"
        assert (await bob.ask("run", meant)).ok

    serving(tmp_path, scenario)


def test_a_grant_ends(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        await grant(harness, "bob", "run")
        now = now_ms()
        harness.service.clock = lambda: now + HOUR
        assert code_of(await bob.ask("run", TRUE)) == "denied"
        assert (await done(harness.connect(), "grant.list", {})) == {"grants": []}

    serving(tmp_path, scenario)


def test_a_grant_is_taken_back(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        issued = await grant(harness, "bob", "run")
        assert (await done(harness.connect(), "grant.revoke", {"grant": issued["grant"]})) == issued
        assert code_of(await bob.ask("run", TRUE)) == "denied"
        assert code_of(await harness.connect().ask("grant.revoke", {"grant": issued["grant"]})) == "not_found"

    serving(tmp_path, scenario)


def test_rules_that_deny_hold_against_grants(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, '[[rules]]\nname = "never"\nroles = ["viewer"]\ndeny = ["run"]\nscope = "host"\n')
        bob = await let_in(harness, "bob", "viewer")
        await grant(harness, "bob", "run")
        refused = error_of(await bob.ask("run", TRUE))
        assert (refused["code"], refused["details"]["rule"]) == ("denied", "never")

    serving(tmp_path, scenario)


def test_a_grant_reaches_what_ones_own_rules_do_not(tmp_path: Path) -> None:
    """`worker` may end its own sandboxes alone."""

    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "worker")
        theirs = await done(harness.connect(), "session.open", {})
        await let_in(harness, "carol", "worker")
        assert code_of(await bob.ask("session.close", {"session": theirs["session"]})) == "not_found"
        await grant(harness, "bob", "session.close")
        assert (await bob.ask("session.close", {"session": theirs["session"]})).ok

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    ("cmd", "more", "code"),
    [
        ("volume.create", {}, None),
        ("volume.create", {"tenant": "acme", "project": "web"}, None),
        ("volume.create", {"tenant": "beta"}, "escalation"),
        ("policy.set", {}, "escalation"),
        ("daemon.rotate", {}, "escalation"),
        ("manifest.inline", {}, "bad_argument"),
        ("volume.creat", {}, "bad_argument"),
        ("volume.create", {"ttl_ms": 24 * HOUR + 1}, "bad_argument"),
        ("volume.create", {"key": "theirs"}, "not_found"),
        ("volume.create", {"key": "admin"}, "not_found"),
        ("volume.create", {"project": "none"}, "bad_argument"),
    ],
)
def test_nobody_grants_more_than_he_has(tmp_path: Path, cmd: str, more: dict[str, object], code: str | None) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS)
        head = await let_in(harness, "head", "tenant-admin", tenants=["acme"])
        await let_in(harness, "bob", "viewer", tenants=["acme"])
        await let_in(harness, "theirs", "viewer", tenants=["beta"])
        args = {"key": "bob", "cmd": cmd, "ttl_ms": HOUR, "reason": "drill", **more}
        reply = await head.ask("grant.issue", args)
        assert reply.ok if code is None else code_of(reply) == code

    serving(tmp_path, scenario)


def test_grants_are_seen_by_those_whom_they_concern(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS + '[[rules]]\nname = "g"\nroles = ["viewer"]\nallow = ["grant.list"]\nscope = "own"\n')
        bob = await let_in(harness, "bob", "viewer", tenants=["acme"])
        carol = await let_in(harness, "carol", "viewer", tenants=["acme"])
        issued = await grant(harness, "bob", "run", tenant="acme")
        hosts = await grant(harness, "bob", "policy.show", tenant="acme")
        assert (await done(bob, "grant.list", {}))["grants"] == [issued, hosts]
        assert (await done(carol, "grant.list", {}))["grants"] == []

    serving(tmp_path, scenario)


def test_a_start_knows_which_grants_are_left(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        used = await grant(harness, "bob", "run")
        assert (await bob.ask("run", TRUE)).ok
        back = await grant(harness, "bob", "key.list")
        await done(harness.connect(), "grant.revoke", {"grant": back["grant"]})
        left = await grant(harness, "bob", "policy.show", digest=bytes(32), project="default")
        found = [one.to_map() for one in started_again(harness).grants]
        assert found == [left]
        assert used not in found

    serving(tmp_path, scenario)


def test_a_certified_keys_grants_are_its_issuers_to_use(tmp_path: Path) -> None:
    """A grant is to a key of the keyring; an id that is none is nobody."""

    async def scenario(harness: Harness) -> None:
        args = {"key": PrivateKey.generate().id, "cmd": "policy.show", "ttl_ms": HOUR, "reason": "drill"}
        assert code_of(await harness.connect().ask("grant.issue", args)) == "not_found"

    serving(tmp_path, scenario)
