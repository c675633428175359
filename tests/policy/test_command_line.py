"""`immure policy` with a daemon: the policy that is in force, another in its place, and why it says what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from immured import Client
from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey

PATIENCE = 120


class Line:
    """The command line, with one daemon's admin key."""

    def __init__(self, daemon: ThrowawayDaemon) -> None:
        self._state = str(daemon.state)

    def __call__(self, *words: str, status: int = 0) -> str:
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("IMMURE", "SUDO_"))}
        done = subprocess.run(
            [sys.executable, "-m", "immured.cli", "policy", *words, "--state", self._state],
            capture_output=True, timeout=PATIENCE, check=False, cwd="/", env=surroundings, text=True,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def immure(daemon: ThrowawayDaemon) -> Line:
    return Line(daemon)


def in_force(client: Client) -> str:
    policy = client.call("policy.show").result["policy"]
    assert isinstance(policy, bytes)
    return policy.decode()


def test_a_policy_is_shown_compared_and_put_in_force(immure: Line, client: Client, tmp_path: Path) -> None:
    before = in_force(client)
    assert immure("show") == before
    after = tmp_path / "after.toml"
    after.write_text(before + "[tenants.shown]\n[[rules]]\nname='s'\nroles=['viewer']\nallow=['plan']\nscope='own'\n")
    said = immure("diff", str(after)).splitlines()
    assert "tenant shown begins" in said
    assert "viewer gains plan (in its own tenants, what is its own)" in said
    assert "secops gains plan (in its own tenants, what is its own)" in said, "it includes viewer"
    assert "is in force" in immure("set", str(after))
    assert in_force(client) == after.read_text()
    assert immure("diff", str(after)) == "nobody gains or loses anything\n"


def test_a_policy_is_set_in_place_of_the_one_that_was_looked_at(immure: Line, client: Client, tmp_path: Path) -> None:
    after = tmp_path / "after.toml"
    after.write_text(in_force(client) + "# a note\n")
    assert "immure: conflict:" in immure("set", str(after), "--expect", "sha256:" + 64 * "0", status=1)
    digest = json.loads(immure("show", "--json"))["digest"]
    assert "is in force" in immure("set", str(after), "--expect", digest)


def test_a_policy_that_nobody_could_change_is_refused(immure: Line, client: Client, tmp_path: Path) -> None:
    after = tmp_path / "after.toml"
    after.write_text(in_force(client).replace('"policy.set", ', ""))
    assert "immure: lockout:" in immure("set", str(after), status=1)


def test_what_is_no_policy_does_not_leave_the_command_line(immure: Line, client: Client, tmp_path: Path) -> None:
    after = tmp_path / "after.toml"
    after.write_text(in_force(client).replace('"policy.set"', '"policy.sett"'))
    assert "did you mean 'policy.set'?" in immure("set", str(after), status=1)
    with pytest.raises(Refusal, match=r"policy\.sett") as caught:
        client.call("policy.set", {"policy": after.read_bytes()})
    assert caught.value.code == "policy_invalid"


def test_what_explain_says_is_what_happens(immure: Line, client: Client, daemon: ThrowawayDaemon) -> None:
    key = PrivateKey.generate()
    client.key_add("explained", key.public, role="worker")
    with Client(daemon.socket, key, daemon.daemon_key) as worker:
        for permission, allowed in (("status", True), ("volume.list", False), ("key.list", False)):
            said = immure("explain", permission, "--who", "explained", status=0 if allowed else 1)
            if allowed:
                worker.call(permission)
                assert said.startswith("allowed: the rule 'workers-run' allows it")
                continue
            with pytest.raises(Refusal) as caught:
                worker.call(permission)
            assert caught.value.code == "denied"
            assert said.splitlines()[0] == f"denied: {caught.value.message}"


def test_a_rule_holds_from_the_moment_that_it_is_set(client: Client, daemon: ThrowawayDaemon) -> None:
    """And a decision that was remembered does not outlive the policy that it was made by."""
    key = PrivateKey.generate()
    client.key_add("bounded", key.public, role="worker")
    before = in_force(client)
    with Client(daemon.socket, key, daemon.daemon_key) as worker:
        worker.call("status")
        client.call("policy.set", {"policy": before + "[[rules]]\nname='no'\nkeys=['bounded']\ndeny=['status']\n"})
        with pytest.raises(Refusal, match="the rule 'no' denies"):
            worker.call("status")
        client.call("policy.set", {"policy": before + "# without it\n"})
        worker.call("status")
