"""The policy in force: how another takes its place, and what a start makes of damaged files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immured.errors import ConfigurationError
from immured.identity.policy.parse import parse_policy
from immured.service.policies import choose, save_policy, shipped_policy
from immured.service.state import Paths
from tests.service.harness import Harness, serving
from tests.service.orders import code_of, done, error_of, let_in, started_again

CLOSED = b"""schema = 1
[roles.admin]
[[rules]]
name = "all"
roles = ["admin"]
allow = ["policy.set", "policy.show", "key.add", "whoami"]
scope = "host"
"""


def digest_of(text: bytes) -> str:
    return "sha256:" + hashlib.sha256(text).hexdigest()


def test_a_policy_is_in_force_at_once_and_after_a_start(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        admin, bob = harness.connect(), await let_in(harness, "bob", "viewer")
        before = harness.service.authority.policy.digest
        said = await done(admin, "policy.set", {"policy": CLOSED, "expect": before})
        assert said == {"digest": digest_of(CLOSED), "previous": before, "roleless": ["bob"]}
        assert code_of(await bob.ask("whoami", {})) == "denied"
        assert code_of(await admin.ask("key.list", {})) == "denied"
        assert await done(admin, "policy.show", {}) == {"digest": digest_of(CLOSED), "policy": CLOSED}
        [entry] = harness.of_type("policy.changed")
        assert (entry["data"]["digest"], entry["data"]["previous"]) == (digest_of(CLOSED), before)
        assert started_again(harness).policy.text == CLOSED

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"policy": b"schema = 2"}, "policy_invalid"),
        ({"policy": "schema = 1\n[roles.admin]\n"}, "lockout"),
        ({"policy": CLOSED, "expect": "sha256:" + "0" * 64}, "conflict"),
        ({"policy": 1}, "bad_argument"),
        ({}, "bad_argument"),
        ({"policy": CLOSED, "dry": True}, "unknown_field"),
    ],
)
def test_what_is_no_policy_changes_nothing(tmp_path: Path, args: dict[str, object], code: str) -> None:
    async def scenario(harness: Harness) -> None:
        before = harness.service.authority.policy
        assert code_of(await harness.connect().ask("policy.set", args)) == code
        assert harness.service.authority.policy is before
        assert harness.of_type("policy.changed") == []

    serving(tmp_path, scenario)


def test_a_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        text = CLOSED.replace(b'"key.add"', b'"key.ad"')
        error = error_of(await harness.connect().ask("policy.set", {"policy": text}))
        assert error["details"]["line"] == 6
        assert "key.add" in error["remedy"]

    serving(tmp_path, scenario)


def test_a_control_that_nobody_could_fulfil_locks_out(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        control = b"""
[[controls]]
name = "c"
permissions = ["key.add"]
approvals = 1
approvers = ["admin"]
window = "1h"
"""
        text = shipped_policy().text + control
        assert code_of(await harness.connect().ask("policy.set", {"policy": text})) == "lockout"
        await let_in(harness, "second", "admin")
        assert (await harness.connect().ask("policy.set", {"policy": text})).ok

    serving(tmp_path, scenario)


def test_only_who_may_on_the_whole_host_sets_it(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        for role in ("secops", "tenant-admin", "sre", "viewer", "runner"):
            client = await let_in(harness, role, role)
            assert code_of(await client.ask("policy.set", {"policy": CLOSED})) == "denied"

    serving(tmp_path, scenario)


def test_explaining_says_which_rule_and_what_fails(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        admin, bob = harness.connect(), await let_in(harness, "bob", "viewer")
        yes = await done(admin, "policy.explain", {"key": "bob", "cmd": "sandbox.list"})
        assert (yes["allowed"], yes["rule"], yes["role"], yes["key"]) == (True, "viewers-look", "viewer", bob.key.id)
        no = await done(admin, "policy.explain", {"key": "bob", "cmd": "sandbox.kill"})
        assert no["allowed"] is False
        assert no["rules"]
        assert code_of(await bob.ask("policy.explain", {"cmd": "status"})) == "denied"
        assert code_of(await admin.ask("policy.explain", {"key": "eve", "cmd": "status"})) == "not_found"
        assert code_of(await admin.ask("policy.explain", {"cmd": "statu"})) == "bad_argument"
        await done(admin, "key.suspend", {"key": "bob"})
        gone = await done(admin, "policy.explain", {"key": "bob", "cmd": "status"})
        assert (gone["allowed"], gone["why"]) == (False, "the key 'bob' is suspended")

    serving(tmp_path, scenario)


def test_explaining_takes_what_is_acted_on(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        admin = harness.connect()
        await let_in(harness, "bob", "worker")
        await let_in(harness, "carol", "worker")
        args = {"key": "bob", "cmd": "sandbox.kill"}
        assert (await done(admin, "policy.explain", {**args, "owner": "bob"}))["allowed"] is True
        assert (await done(admin, "policy.explain", {**args, "owner": "carol"}))["allowed"] is False

    serving(tmp_path, scenario)


def test_everybody_is_told_who_he_is(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "worker")
        said = await done(bob, "whoami", {})
        assert (said["name"], said["role"], said["tenant"], said["standing"]) == ("bob", "worker", "default", "active")
        assert "run" in said["permissions"]
        assert "key.add" not in said["permissions"]
        assert said["policy"] == harness.service.authority.policy.digest

    serving(tmp_path, scenario)


# -- a start


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "policy").mkdir()
    return Paths(tmp_path)


def kept(paths: Paths, *notes: str) -> list[str]:
    found = []
    for note in notes:
        policy = parse_policy(CLOSED + f"# {note}\n".encode())
        save_policy(paths, policy)
        found.append(policy.digest)
    return found


def file_of(paths: Paths, digest: str) -> Path:
    return paths.policies / f"{digest.removeprefix('sha256:')}.toml"


def test_the_first_start_takes_the_one_that_is_shipped(paths: Paths) -> None:
    chosen = choose(paths, [], shipped_policy())
    assert chosen.shipped
    assert file_of(paths, chosen.policy.digest).read_bytes() == shipped_policy().text
    assert choose(paths, [chosen.policy.digest], shipped_policy()).shipped is False


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        lambda path: path.write_bytes(b""),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_damaged_one_is_passed_over_for_the_last_good_one(paths: Paths, damage: Callable[[Path], Any]) -> None:
    first, second, third = kept(paths, "first", "second", "third")
    damage(file_of(paths, third))
    chosen = choose(paths, [first, third, second, third], shipped_policy())
    assert chosen.policy.digest == second
    assert [digest for digest, _ in chosen.refused] == [third]


def test_a_policy_that_this_version_does_not_read_is_passed_over(paths: Paths) -> None:
    [first] = kept(paths, "first")
    future = b"schema = 2\n"
    file_of(paths, digest_of(future)).write_bytes(future)
    chosen = choose(paths, [first, digest_of(future)], shipped_policy())
    assert chosen.policy.digest == first
    assert "schema" in chosen.refused[0][1]


def test_without_any_there_is_no_start(paths: Paths) -> None:
    [first] = kept(paths, "first")
    file_of(paths, first).unlink()
    with pytest.raises(ConfigurationError) as caught:
        choose(paths, [first], shipped_policy())
    assert caught.value.code == "no_policy"
    assert first.removeprefix("sha256:") in caught.value.remedy
