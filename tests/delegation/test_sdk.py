"""The SDK's keys, grants, proposals, sessions and policies, blocking and awaiting, against a real daemon."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from immured import AsyncClient, Client
from immured.client import Refusal, UntrustedReply
from immured.client.elevation import AsyncGrants, AsyncProposals, AsyncSessions, Grants, Proposals, Sessions
from immured.client.errors import Proposed
from immured.client.keys import AsyncKeys, Keys
from immured.client.policies import AsyncPolicies, Policies
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.certificate import chain_to_pem
from immured.wire.keys import PrivateKey
from tests.delegation.conftest import Declaring, Making, Orchestrator, certify, now_ms
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root

CONTROL = """
[[controls]]
name = "two-for-suspending"
permissions = ["key.suspend"]
approvals = 1
approvers = ["secops", "admin"]
window = "8h"
"""


def test_what_is_done_with_a_key_is_told_of_it(client: Client) -> None:
    keys, public = Keys(client), PrivateKey.generate().public
    made = keys.add("mallory", public, role="viewer", uids=[7], subjects=["user:7"], note="new")
    assert (made.id, made.uids, made.subjects, made.standing) == (public.id, (7,), ("user:7",), "active")
    assert keys.bind("mallory", role="runner", uids=[]).role == "runner"
    assert keys.suspend("mallory", reason="asks").standing == "suspended"
    assert keys.resume("mallory").standing == "active"
    assert keys.label("mallory", note="old").note == "old"
    fresh = PrivateKey.generate().public
    assert keys.rotate("mallory", fresh, overlap_ms=60_000).id == fresh.id
    assert keys.show(public.id).successor == fresh.id
    assert {public.id, fresh.id} <= {one.id for one in keys.list()}
    assert keys.revoke("mallory")["status"] == "revoked"


def test_all_of_it_can_be_awaited(daemon: ThrowawayDaemon, client: Client) -> None:
    async def do() -> None:
        async with AsyncClient(daemon.socket, daemon.admin_key, daemon.daemon_key, timeout=PATIENCE_S) as waiting:
            public = PrivateKey.generate().public
            keys = AsyncKeys(waiting)
            made = await keys.add("niaj", public, role="viewer")
            assert await keys.show("niaj") == made
            assert public.id in [one.id for one in await keys.list()]
            grants = AsyncGrants(waiting)
            grant = await grants.issue("niaj", "run", ttl_ms=60_000, reason="ticket 1")
            assert [one.id for one in await grants.list() if one.key == public.id] == [grant.id]
            assert (await grants.revoke(grant.id)).id == grant.id
            sessions = AsyncSessions(waiting)
            session = await sessions.open(note="ticket 1", ttl_ms=60_000)
            assert (await sessions.show(session.id)).note == "ticket 1"
            assert session.id in [one.id for one in await sessions.list()]
            await sessions.close(session.id)
            proposals = AsyncProposals(waiting)
            proposal = await proposals.create("kill", {"sandbox": "s1"}, reason="it hangs")
            assert (await proposals.show(proposal.id)).args == {"sandbox": "s1"}
            assert proposal.id in [one.id for one in await proposals.list()]
            assert (await proposals.withdraw(proposal.id)).id == proposal.id
            policies = AsyncPolicies(waiting)
            assert (await policies.show()) == Policies(client).show()
            assert (await policies.explain("key.add", key="niaj")).allowed is False
            assert (await waiting.whoami())["role"] == "admin"

    asyncio.run(do())


def test_a_session_is_of_its_key_and_of_those_whom_it_certified(orchestrators: Making) -> None:
    first, second = orchestrators(), orchestrators()
    with first.client() as client:
        session = Sessions(client).open(idle_ms=60_000)
    with first.client(session=session.id) as client:
        client.run(["/bin/true"])
    with second.client(session=session.id) as other, pytest.raises(Refusal, match="session_unknown"):
        other.status()
    key = PrivateKey.generate()
    with first.agent(certify(first.key, key), key=key, session=session.id) as agent:
        agent.run(["/bin/true"])


def test_a_chain_is_renewed_while_its_client_goes_on(daemon: ThrowawayDaemon, orchestrator: Orchestrator) -> None:
    key = PrivateKey.generate()
    narrow, wide = (
        certify(orchestrator.key, key, permissions=["run"]),
        certify(orchestrator.key, key, permissions=["run", "status"]),
    )
    with orchestrator.agent(narrow, key=key) as agent:
        agent.run(["/bin/true"])
        with pytest.raises(Refusal, match="denied"):
            agent.status()
        agent.renew(chain_to_pem([wide]))
        agent.status()
        agent.close()
        agent.status()

    async def do() -> None:
        pem = chain_to_pem([narrow])
        async with AsyncClient(daemon.socket, key, daemon.daemon_key, timeout=PATIENCE_S, certificate=pem) as waiting:
            with pytest.raises(Refusal, match="denied"):
                await waiting.status()
            await waiting.renew(chain_to_pem([wide]))
            await waiting.status()

    asyncio.run(do())


def test_a_renewed_chain_that_does_not_hold_ends_the_connection_with_the_reason(orchestrator: Orchestrator) -> None:
    key = PrivateKey.generate()
    with orchestrator.agent(certify(orchestrator.key, key), key=key) as agent:
        agent.status()
        agent.renew(chain_to_pem([certify(PrivateKey.generate(), key)]))
        with pytest.raises(Refusal, match="unknown_key"):
            agent.status()


def test_grants_are_listed_with_what_narrows_them(client: Client, orchestrator: Orchestrator) -> None:
    digest = "sha256:" + "ab" * 32
    made = Grants(client).issue(orchestrator.name, "key.list", ttl_ms=60_000, reason="once", digest=digest)
    assert (made.digest, made.key, made.tenant, made.project) == (digest, orchestrator.key.id, "default", None)
    with orchestrator.client() as other, pytest.raises(Refusal, match="denied"):
        Keys(other).list()
    Grants(client).revoke(made.id)


def test_a_policy_is_shown_explained_and_set(client: Client) -> None:
    policies = Policies(client)
    before = policies.show()
    with pytest.raises(Refusal, match="conflict"):
        policies.set(before.policy + b"\n# changed\n", expect="sha256:" + "00" * 32)
    changed = policies.set(before.policy + b"\n# changed\n", expect=before.digest)
    assert (changed.previous, policies.show().digest) == (before.digest, changed.digest)
    assert policies.explain("policy.set").allowed
    assert policies.explain("run", manifest_class="default", tenant="default").allowed


def test_nobody_approves_what_a_key_proposed_that_he_certified(orchestrators: Making, declared: Declaring) -> None:
    boss, other = orchestrators("admin"), orchestrators("secops")
    declared(CONTROL)
    victim = orchestrators()
    key = PrivateKey.generate()
    allowed = ["proposal.create", "proposal.show", "key.suspend", "key.show", "proposal.approve"]
    certificate = certify(boss.key, key, permissions=allowed)
    with (
        boss.agent(certificate, key=key, propose="it leaks") as agent,
        boss.agent(certificate, key=key) as acting,
        boss.client() as himself,
        other.client() as second,
    ):
        with pytest.raises(Proposed) as proposed:
            Keys(agent).suspend(victim.name)
        proposal = proposed.value.proposal
        for one in (himself, acting):
            with pytest.raises(Refusal, match="himself"):
                Proposals(one).approve(proposal.id, proposal.digest)
            with pytest.raises(Refusal, match="approval_required"):
                Keys(one).suspend(victim.name)
        Proposals(second).approve(proposal.id, proposal.digest)
        assert Keys(acting).suspend(victim.name).standing == "suspended"
        with pytest.raises(Refusal, match="not_found"):
            Proposals(second).show(proposal.id)


def test_nobody_approves_what_a_key_gives_that_he_certified(orchestrators: Making, declared: Declaring) -> None:
    boss, other, runner = orchestrators("admin"), orchestrators("secops"), orchestrators()
    declared(CONTROL)
    victim = orchestrators()
    key = PrivateKey.generate()
    allowed = ["proposal.show", "key.suspend", "key.show", "proposal.approve"]
    with (
        runner.client(propose="it leaks") as proposing,
        boss.agent(certify(boss.key, key, permissions=allowed), key=key) as agent,
        boss.client() as himself,
        other.client() as second,
    ):
        with pytest.raises(Proposed) as proposed:
            Keys(proposing).suspend(victim.name)
        proposal = proposed.value.proposal
        for approves, gives in ((himself, agent), (agent, himself)):
            Proposals(approves).approve(proposal.id, proposal.digest)
            with pytest.raises(Refusal, match="approval_required"):
                Keys(gives).suspend(victim.name)
        Proposals(second).approve(proposal.id, proposal.digest)
        assert Keys(agent).suspend(victim.name).standing == "suspended"


def served(client: Client, *, until_ms: int) -> bool:
    """Whether it believes its daemon; no longer, once the overlap is over."""
    try:
        assert client.run(["/bin/true"]).exit_code == 0
    except UntrustedReply:
        assert now_ms() >= until_ms
        return False
    return True


def test_a_client_that_pins_the_old_key_is_served_until_the_overlap_is_over(tmp_path: Path) -> None:
    state = tmp_path / "state"
    ThrowawayDaemon.immure("init", "--state", str(state))
    with ThrowawayDaemon(state=state) as daemon:
        old = daemon.daemon_key.read_bytes()
        admin = daemon.admin_key.read_bytes()
        with Client(daemon.socket, admin, old, timeout=PATIENCE_S) as client:
            told = client.daemon_rotate(overlap_ms=3_000)
            until: Any = told["until_ms"]
            served(client, until_ms=until)
            assert told["previous"] != told["daemon"]
        new = daemon.daemon_key.read_bytes()
        assert new != old
        certified = PrivateKey.generate()
        chain = chain_to_pem([certify(PrivateKey.from_pem(admin), certified, aud=[str(told["daemon"])])])
        with Client(daemon.socket, certified, new, certificate=chain, timeout=PATIENCE_S) as client:
            client.status()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with Client(daemon.socket, admin, old, timeout=PATIENCE_S) as client:
                if not served(client, until_ms=until):
                    break
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with Client(daemon.socket, admin, new, timeout=PATIENCE_S) as client:
            assert client.run(["/bin/true"]).exit_code == 0
