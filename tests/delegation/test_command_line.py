"""The command line of keys, grants, proposals, sessions and certificates, against a real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from immured import Client
from immured.client.elevation import Proposals
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.client.ssh_agents import make_key, ssh_agent
from tests.delegation.conftest import Declaring
from tests.entries import entries_in

pytestmark = pytest.mark.needs_root

CONTROL = """
[[controls]]
name = "two-for-labels"
permissions = ["key.label"]
approvals = 1
approvers = ["secops", "admin"]
window = "8h"
"""


class Immure:
    """`immure`, with the daemon's socket; by default as its admin."""

    def __init__(self, daemon: ThrowawayDaemon, tmp: Path) -> None:
        self.tmp = tmp
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("IMMURE_")},
            "IMMURE_SOCKET": str(daemon.socket),
            "IMMURE_DAEMON_KEY": str(daemon.daemon_key),
            "IMMURE_KEY": str(daemon.admin_key),
        }

    def __call__(
        self, *words: str, code: int = 0, given: str = "", environment: Mapping[str, str] | None = None
    ) -> str:
        """What it printed; on stderr, where it was to fail."""
        done = subprocess.run(
            [sys.executable, "-m", "immured.cli", *words],
            env={**self.environment, **(environment or {})},
            input=given, capture_output=True, text=True, timeout=120, cwd=self.tmp, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def key(self, name: str) -> Path:
        """A new key's file, not let in."""
        self("key", "new", "--out", str(self.tmp / f"{name}.pem"))
        return self.tmp / f"{name}.pem"

    def member(self, name: str, *options: str) -> Path:
        """One that was let in."""
        path = self.key(name)
        self("key", "add", name, str(path.with_suffix(".pub")), *options)
        return path


@pytest.fixture
def immure(daemon: ThrowawayDaemon, tmp_path: Path) -> Immure:
    return Immure(daemon, tmp_path)


def test_the_life_of_a_key(immure: Immure) -> None:
    first = immure.member("carol", "--role", "viewer", "--uid", "0", "--until", "30d", "--note", "on loan")
    shown = json.loads(immure("key", "show", "carol", "--json"))
    assert (shown["role"], shown["uids"], shown["note"]) == ("viewer", [0], "on loan")
    immure("key", "bind", "carol", "--role", "runner", "--free", "uids", "--free", "expires_ms")
    shown = json.loads(immure("key", "show", "carol", "--json"))
    assert (shown["role"], "uids" in shown, "expires_ms" in shown) == ("runner", False, False)
    assert "carol" in immure("key", "list")
    immure("key", "suspend", "carol", "--reason", "asks who that is")
    assert "key_suspended" in immure("whoami", "--key", str(first), code=1)
    immure("key", "resume", "carol")
    assert "runner" in immure("whoami", "--key", str(first))
    second = immure.key("carol-2")
    immure("key", "rotate", "carol", str(second.with_suffix(".pub")), "--overlap", "0s")
    assert "key_expired" in immure("whoami", "--key", str(first), code=1)
    assert "carol" in immure("whoami", "--key", str(second))
    immure("key", "label", "carol", "--name", "caroline", "--note", "was carol")
    assert "revoked" in immure("key", "revoke", "caroline")
    assert "key_revoked" in immure("whoami", "--key", str(second), code=1)


def test_a_key_that_leaked_is_replaced_without_acting_once_more(immure: Immure) -> None:
    """What docs/identity.md tells an operator to do."""
    leaked, fresh = immure.member("oscar"), immure.key("oscar-2")
    immure("key", "suspend", "oscar", "--reason", "leaked")
    pub = str(fresh.with_suffix(".pub"))
    watching = immure.member("peggy", "--role", "secops")
    assert "denied" in immure("key", "rotate", "oscar", pub, "--key", str(watching), code=1)
    immure("key", "rotate", "oscar", pub, "--overlap", "0s")
    assert "oscar" in immure("whoami", "--key", str(fresh))
    assert "key_suspended" in immure("whoami", "--key", str(leaked), code=1)
    immure("key", "revoke", "oscar")
    assert "wrong_state" in immure("key", "rotate", "oscar", str(immure.key("oscar-3").with_suffix(".pub")), code=1)


def test_openssh_s_keys_come_in_and_go_out(immure: Immure, tmp_path: Path) -> None:
    made = make_key(tmp_path / "id_ed25519")
    immure("key", "import", str(made), "--out", str(tmp_path / "dave.pem"))
    line = Path(str(made) + ".pub").read_text().split()[:2]
    assert immure("key", "public", str(tmp_path / "dave.pem"), "--form", "openssh").split() == line
    assert immure("key", "public", f"{made}.pub", "--form", "id") == immure("key", "public", str(made), "--form", "id")
    immure("key", "add", "dave", f"{made}.pub")
    assert "dave" in immure("whoami", "--key", str(made))
    assert "dave" in immure("whoami", "--key", str(tmp_path / "dave.pem"))


@pytest.mark.parametrize("named", ["agent:erin", "the .pub", "IMMURE_KEY"])
def test_an_agent_signs(immure: Immure, tmp_path: Path, named: str) -> None:
    made = make_key(tmp_path / "erin")
    name = f"erin-{named[:6].strip(': ').replace(' ', '')}"
    immure("key", "add", name, f"{made}.pub")
    with ssh_agent(tmp_path) as agent:
        agent.add(made)
        made.unlink()
        auth = {"SSH_AUTH_SOCK": str(agent.path)}
        if named == "IMMURE_KEY":
            assert name in immure("whoami", environment=auth | {"IMMURE_KEY": "agent:erin"})
            assert immure("run", "--", "echo", "hello", environment=auth | {"IMMURE_KEY": "agent:erin"}) == "hello\n"
        else:
            assert name in immure("whoami", "--key", named if ":" in named else f"{made}.pub", environment=auth)


def test_a_session_is_named_in_what_is_done_in_it(immure: Immure, daemon: ThrowawayDaemon) -> None:
    opened = immure("session", "open", "--note", "incident 7", "--idle", "10m").strip()
    immure("run", "--", "true", environment={"IMMURE_SESSION": opened})
    assert opened in immure("session", "list")
    assert opened in immure("whoami", "--session", opened)
    accepted = [entry for entry in entries_in(daemon.state) if entry["type"] == "run.accepted"]
    assert accepted[-1]["actor"]["session"] == opened
    immure("session", "close", opened)
    assert "session_expired" in immure("whoami", "--session", opened, code=1)
    assert "incident 7" in immure("session", "show", opened)


def test_a_grant_is_good_once(immure: Immure) -> None:
    frank = immure.member("frank", "--role", "viewer")
    assert "denied" in immure("run", "--key", str(frank), "--", "true", code=125)
    granted = immure("grant", "issue", "frank", "run", "--ttl", "10m", "--reason", "ticket 8").strip()
    assert granted in immure("grant", "list")
    immure("run", "--key", str(frank), "--", "true")
    assert "denied" in immure("run", "--key", str(frank), "--", "true", code=125)
    again = immure("grant", "issue", "frank", "run", "--reason", "ticket 9").strip()
    immure("grant", "revoke", again)
    assert "denied" in immure("run", "--key", str(frank), "--", "true", code=125)


def test_an_agent_s_chain_from_end_to_end(immure: Immure, tmp_path: Path) -> None:
    orchestrator, agent, helper = immure.member("grace"), immure.key("agent"), immure.key("helper")
    chain, longer = str(tmp_path / "agent.chain"), str(tmp_path / "helper.chain")
    immure(
        *("key", "certify", "agent", str(agent.with_suffix(".pub")), "--allow", "run", "--allow", "whoami"),
        *("--depth", "1", "--commands", "3", "--key", str(orchestrator), "--out", chain),
    )
    immure(
        *("key", "certify", "helper", str(helper.with_suffix(".pub")), "--allow", "run", "--key", str(agent)),
        *("--certificate", chain, "--out", longer),
    )
    assert "3" in immure("key", "inspect", chain)
    assert [row["name"] for row in json.loads(immure("key", "inspect", longer, "--json"))["chain"]] == [
        "agent",
        "helper",
    ]
    assert immure("run", "--key", str(agent), "--certificate", chain, "--", "echo", "one") == "one\n"
    with_chain = {"IMMURE_KEY": str(helper), "IMMURE_CERTIFICATE": longer}
    assert immure("run", "--", "echo", "two", environment=with_chain) == "two\n"
    assert "denied" in immure("whoami", environment=with_chain, code=1)
    assert "grace/agent" in immure("whoami", "--key", str(agent), "--certificate", chain)
    key_id = immure("key", "public", str(agent), "--form", "id").strip()
    assert "certified" in immure("key", "revoke", key_id)
    assert "key_revoked" in immure("run", "--", "true", environment=with_chain, code=125)


def test_a_name_before_the_subcommand_holds_and_one_behind_it_counts(immure: Immure) -> None:
    assert "denied" in immure("--tenant", "nobodys", "whoami", code=1)
    assert "default" in immure("--tenant", "nobodys", "whoami", "--tenant", "default")


def test_what_is_proposed_and_approved_is_done_once(immure: Immure, client: Client, declared: Declaring) -> None:
    ivan = immure.member("ivan", "--role", "secops")
    declared(CONTROL)
    immure.member("heidi")
    words = ("key", "label", "heidi", "--note", "of team red")
    assert "approval_required" in immure(*words, code=1)
    proposed = immure("--propose", "they asked", *words).strip()
    assert proposed in immure("proposal", "list")
    assert "of team red" in immure("proposal", "show", proposed)
    assert "approval_required" in immure(*words, code=1)
    assert "denied" in immure("proposal", "approve", proposed, given="y\n", code=1)
    assert "1/1" in immure("proposal", "approve", proposed, "--key", str(ivan), given="y\n")
    assert "approval_required" in immure("key", "label", "heidi", "--note", "of team blue", code=1)
    immure(*words)
    assert "approval_required" in immure(*words, code=1)
    assert proposed not in [one.id for one in Proposals(client).list()]


def test_what_is_withdrawn_is_not_done(immure: Immure, declared: Declaring) -> None:
    immure.member("jack", "--role", "secops")
    declared(CONTROL)
    immure.member("judy")
    proposed = immure("key", "label", "judy", "--note", "x", "--propose", "they asked").strip()
    immure("proposal", "withdraw", proposed)
    assert "not_found" in immure("proposal", "show", proposed, code=1)


def test_what_one_did_not_look_at_is_not_approved(immure: Immure, client: Client, declared: Declaring) -> None:
    liam = immure.member("liam", "--role", "secops")
    declared(CONTROL)
    immure.member("kim")
    proposed = immure("key", "label", "kim", "--note", "x", "--propose", "they asked").strip()
    other = "sha256:" + "00" * 32
    assert "bad_argument" in immure("proposal", "approve", proposed, "--digest", other, "--key", str(liam), code=1)
    immure("proposal", "approve", proposed, "--key", str(liam), given="n\n", code=130)
    assert Proposals(client).show(proposed).approvals == ()


def test_a_key_of_the_orchestrator_is_not_needed_to_read_a_chain(immure: Immure, tmp_path: Path) -> None:
    key = PrivateKey.generate()
    issuer = tmp_path / "issuer.pem"
    issuer.write_bytes(key.to_pem())
    chain = immure("key", "certify", "a", key.public.raw.hex(), "--allow", "run", "--key", str(issuer), "--life", "2h")
    (tmp_path / "chain").write_text(chain)
    assert key.id in immure("key", "inspect", str(tmp_path / "chain"))
    assert "bad_certificate" in immure(
        "key", "certify", "a", key.public.raw.hex(), "--allow", "sandbox.*", "--key", str(issuer), code=1
    )
    assert "usage" in immure("key", "certify", "a", key.public.raw.hex(), "--key", str(issuer), code=2)
