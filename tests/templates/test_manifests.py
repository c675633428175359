"""What a template's manifest says of who may use it, and what ends that, holds for sandboxes that were ready before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from immured.manifest.read import inline_digest
from immured.service.policies import shipped_policy
from tests.entries import entries_in
from tests.sandboxes.waiting import code

pytestmark = pytest.mark.needs_root

OPEN = {"schema": 1, "name": "open", "limits": {"pids": 33}}
AGENTS = {"schema": 1, "name": "agents", "personas": ["agent"]}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ThrowawayDaemon]:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o011)
    state = tmp_path / "state"
    ThrowawayDaemon.immure("init", "--state", str(state))
    (state / "templates").mkdir()
    (state / "templates/open.toml").write_text('[manifest]\nschema = 1\nname = "open"\nlimits = { pids = 33 }\n')
    (state / "templates/agents.toml").write_text('[manifest]\nschema = 1\nname = "agents"\npersonas = ["agent"]\n')
    with ThrowawayDaemon(state=state) as running:
        yield running


def entries(daemon: ThrowawayDaemon, kind: str) -> list[dict[str, Any]]:
    return [one for one in entries_in(daemon.state) if one["type"] == kind]


def refused(client: Client, cmd: str, args: dict[str, object]) -> str:
    with pytest.raises(ImmuredError) as caught:
        client.call(cmd, args)
    return code(caught)


def test_it_is_for_whom_it_says(daemon: ThrowawayDaemon) -> None:
    with daemon.client() as client:
        assert refused(client, "sandbox.create", {"template": "agents"}) == "denied"
        with client.sandbox(template="open") as sandbox:
            [created] = [one for one in entries(daemon, "sandbox.created") if one["data"]["sandbox"] == sandbox.id]
    inline = {one["seq"]: one["data"] for one in entries(daemon, "manifest.inline")}
    assert inline[created["data"]["manifest_entry"]] == {"digest": inline_digest(OPEN), "manifest": OPEN}


def test_policy_takes_it_away_from_what_is_ready_and_from_what_was_taken(daemon: ThrowawayDaemon) -> None:
    with daemon.client() as client:
        sandbox = client.sandbox(template="open")
        revoked = f'\n[manifests]\nrevoked = ["{inline_digest(OPEN)}"]\n'
        client.call("policy.set", {"policy": shipped_policy().text + revoked.encode()})
        assert refused(client, "sandbox.create", {"template": "open"}) == "manifest_revoked"
        execute: dict[str, object] = {"sandbox": sandbox.id, "argv": ["/bin/true"]}
        assert refused(client, "sandbox.exec", execute) == "manifest_revoked"
        client.call("policy.set", {"policy": shipped_policy().text})
        assert sandbox.exec(["/bin/true"]).ok
        sandbox.kill()
