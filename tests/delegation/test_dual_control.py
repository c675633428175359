"""Dual control is of two people of authority: whoever gives a command is not among those whose approval it needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.delegation.test_command_line import Immure
from tests.entries import entries_in

pytestmark = pytest.mark.needs_root

CONTROL = """
[[controls]]
name = "two-for-policy"
permissions = ["policy.set"]
approvals = 1
approvers = ["secops", "admin"]
window = "8h"
"""


@pytest.fixture
def immure(tmp_path: Path) -> Iterator[Immure]:
    """Of a daemon of its own: its policy is not to be changed back by one key."""
    with ThrowawayDaemon() as running:
        yield Immure(running, tmp_path)


def state_of(immure: Immure) -> Path:
    return Path(immure.environment["IMMURE_SOCKET"]).parent


def policies(immure: Immure) -> tuple[str, str]:
    """Two files: the shipped policy under the control, and another that would take its place."""
    (immure.tmp / "two.toml").write_text(immure("policy", "show") + CONTROL)
    (immure.tmp / "open.toml").write_text(immure("policy", "show") + "# under no control\n")
    return "two.toml", "open.toml"


def approve(immure: Immure, proposal: str, *options: str) -> str:
    return immure("proposal", "approve", proposal, *options, given="y\n")


def test_one_admin_and_anybodys_key_do_not_change_the_policy(immure: Immure) -> None:
    two, open_ = policies(immure)
    alice, guard = immure.member("alice", "--role", "runner"), immure.member("guard", "--role", "secops")
    immure("policy", "set", two)
    proposal = immure("--propose", "the move", "policy", "set", open_, "--key", str(alice)).strip()
    assert "two-for-policy 1/1" in approve(immure, proposal)

    refused = immure("policy", "set", open_, code=1)
    assert "approval_required" in refused
    assert "have another key give it, or approve it" in " ".join(refused.split())
    heir = immure.key("heir")  # what takes the admin's place is he
    immure("key", "rotate", "admin", str(heir.with_suffix(".pub")))
    assert "approval_required" in immure("policy", "set", open_, "--key", str(heir), code=1)
    assert "under no control" not in immure("policy", "show")

    approve(immure, proposal, "--key", str(guard))
    immure("policy", "set", open_, "--key", str(heir))
    [entry] = [one for one in entries_in(state_of(immure)) if one["data"].get("proposal") == proposal]
    assert (entry["type"], entry["actor"]["name"]) == ("policy.changed", "admin")


def test_a_grant_of_ones_own_right_is_no_second_voice(immure: Immure) -> None:
    two, open_ = policies(immure)
    alice, guard = immure.member("alice", "--role", "runner"), immure.member("guard", "--role", "secops")
    immure("policy", "set", two)
    immure("grant", "issue", "alice", "policy.set", "--reason", "the move")
    hers = ("policy", "set", open_, "--key", str(alice))
    proposal = immure("--propose", "the move", *hers).strip()
    approve(immure, proposal)
    assert "granted it" in immure(*hers, code=1)
    approve(immure, proposal, "--key", str(guard))
    immure(*hers)


def test_one_alone_puts_nothing_under_the_control_of_two(immure: Immure) -> None:
    two, _ = policies(immure)
    immure.member("alice", "--role", "runner")
    refused = immure("policy", "set", two, code=1)
    assert "lockout" in refused
    assert "two-for-policy" in refused
    guard = immure.member("guard", "--role", "secops")
    immure("policy", "set", two)
    assert "lockout" in immure("key", "suspend", "guard", code=1)
    assert "lockout" in immure("key", "bind", "guard", "--until", "30d", code=1)
    assert "lockout" in immure("key", "bind", "guard", "--role", "runner", code=1)
    heir = immure.key("heir")
    immure("key", "rotate", "guard", str(heir.with_suffix(".pub")), "--key", str(guard))  # his heir's voice is there
