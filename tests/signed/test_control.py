"""What adds more than one key may add: told, proposed, approved by another, and then loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured import Client
from immured.client import Refusal
from immured.client.elevation import Proposals
from immured.client.throwaway import ThrowawayDaemon
from immured.manifest.builtin import parse_toml
from immured.wire.keys import PrivateKey
from tests.signed.line import Line

CONTROL = """
[[controls]]
name = "two-for-growth"
permissions = ["manifest.load"]
added = "high"
approvals = 1
approvers = ["admin"]
window = "1h"
"""
HEAD = 'schema = 1\nname = "controlled"\n'


@pytest.fixture
def other(client: Client, daemon: ThrowawayDaemon, tmp_path: Path) -> Iterator[Client]:
    """Another admin's key."""
    key = PrivateKey.generate()
    (tmp_path / "other.pem").write_bytes(key.to_pem())
    client.key_add(f"other-{key.public.raw.hex()[:8]}", key.public, role="admin")
    with daemon.client(tmp_path / "other.pem") as connected:
        yield connected
    client.call("key.revoke", {"key": key.id})


@pytest.fixture
def controlled(client: Client, other: Client) -> Iterator[None]:
    """While the test lasts. There are two who could approve."""
    before = client.call("policy.show").result["policy"]
    assert isinstance(before, bytes)
    client.call("policy.set", {"policy": before + CONTROL.encode()})
    try:
        yield
    finally:
        client.call("policy.set", {"policy": before})


def test_what_adds_much_waits_for_another(
    immure: Line, daemon: ThrowawayDaemon, controlled: None, other: Client
) -> None:
    file = immure.here / "growing.toml"
    file.write_text(HEAD + '[limits]\nmemory = "1G"\n')
    immure.sign(file.name)
    immure("manifest", "load", file.name)

    file.write_text(HEAD + '[limits]\nmemory = "1G"\n[filesystem]\nwrite = ["/srv/out"]\n')
    immure.sign(file.name)
    refused = immure("manifest", "load", file.name, status=1)
    assert "immure: approval_required:" in refused
    assert "+ high      filesystem.write          writes to /srv/out, which it could not" in refused.splitlines()
    assert immure("manifest", "load", file.name, "--check", status=1).splitlines()[-1].endswith("would not be loaded")

    proposed = immure("--propose", "a place for what is built", "manifest", "load", file.name)
    proposal = next(word for word in proposed.split() if word.startswith("proposal-"))
    lines = immure("proposal", "show", proposal).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("adds, beside the last one of its name"))
    assert lines[at + 1 :] == ["  + high      filesystem.write          writes to /srv/out, which it could not"]
    shown = json.loads(immure("proposal", "show", proposal, "--json"))
    other.call(
        "proposal.approve", {"proposal": proposal, "digest": bytes.fromhex(shown["digest"].removeprefix("sha256:"))}
    )
    said = immure("manifest", "load", file.name)
    assert said.splitlines()[-1] == f"{parse_toml(file.read_bytes()).digest}  loaded"


def test_who_loads_it_is_not_who_approves_what_it_adds(
    immure: Line, daemon: ThrowawayDaemon, controlled: None, client: Client, other: Client
) -> None:
    """Another proposed it: the approval of the key that loads it is none, whoever else may load it has it."""
    file = immure.here / "reaching.toml"
    file.write_text('schema = 1\nname = "reaching"\n[filesystem]\nwrite = ["/srv/out"]\n')
    immure.sign(file.name)
    signatures = file.with_name(file.name + ".sig").read_bytes()
    args = {"manifest": file.read_bytes(), "signatures": signatures}
    runner = PrivateKey.generate()
    client.key_add("proposer", runner.public, role="runner")
    with Client(daemon.socket, runner, daemon.daemon_key.read_bytes()) as proposing:
        made = Proposals(proposing).create("manifest.load", args, reason="a place for what is built")
    Proposals(client).approve(made.id, made.digest)
    with pytest.raises(Refusal, match="approval_required"):
        client.call("manifest.load", args)
    assert "another key" in immure("manifest", "load", file.name, status=1)
    other.call("manifest.load", args)
    with pytest.raises(Refusal, match="not_found"):
        Proposals(client).show(made.id)
