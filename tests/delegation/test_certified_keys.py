"""Keys that are in no keyring, against a real daemon: what a certificate gives them, and that it is never more."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from immured import Client
from immured.client import Refusal
from immured.client.keys import Keys
from immured.client.session import Behalf
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.certificate import chain_to_pem
from immured.wire.keys import PrivateKey
from tests.delegation.conftest import RUNNING, Making, Orchestrator, certify, now_ms
from tests.entries import entries_in

pytestmark = pytest.mark.needs_root


def refused(client: Client, cmd: str = "status", args: Mapping[str, object] | None = None) -> str:
    with pytest.raises(Refusal) as error:
        client.call(cmd, args)
    return error.value.code


def refused_for(agent: Client, sub: str) -> str:
    """Of a command that names somebody on whose behalf it is."""
    agent._behalf = Behalf(sub=sub)
    return refused(agent)


def entries(daemon: ThrowawayDaemon) -> list[dict[str, object]]:
    return entries_in(daemon.state)


def test_an_agent_runs_by_what_its_orchestrator_certified(orchestrator: Orchestrator) -> None:
    with orchestrator.certified() as agent:
        assert agent.run(["/bin/echo", "hello"]).stdout == b"hello\n"


def test_without_its_certificate_its_key_is_nobodys(orchestrator: Orchestrator) -> None:
    key = PrivateKey.generate()
    certify(orchestrator.key, key)
    with pytest.raises(Refusal, match="unknown_key"), orchestrator.agent(key=key) as agent:
        agent.status()


def test_what_it_does_not_name_is_denied_and_what_its_issuer_may_not_as_well(orchestrator: Orchestrator) -> None:
    with orchestrator.certified(permissions=["run", "key.list", "policy.set"]) as agent:
        assert refused(agent, "status") == "denied"
        assert refused(agent, "key.list") == "denied"
        assert refused(agent, "policy.set", {"policy": b""}) == "denied"


def test_rights_are_taken_link_by_link(orchestrator: Orchestrator) -> None:
    middle, last = PrivateKey.generate(), PrivateKey.generate()
    chain = [
        certify(orchestrator.key, middle, depth=1, permissions=["run", "plan"]),
        certify(middle, last, permissions=["run", "status"]),
    ]
    with orchestrator.agent(*chain, key=last) as agent:
        agent.run(["/bin/true"])
        assert refused(agent, "status") == "denied"
        assert refused(agent, "plan", {"argv": ["true"]}) == "denied"


def test_the_ledger_says_who_it_was_and_by_whom(daemon: ThrowawayDaemon, orchestrators: Making) -> None:
    orchestrator = orchestrators(subjects=["user:7"])
    key = PrivateKey.generate()
    with orchestrator.agent(certify(orchestrator.key, key, sub="user:7"), key=key) as agent:
        receipt = agent.run(["/bin/true"]).receipt
        assert refused_for(agent, "user:8") == "denied"
    actor = entries(daemon)[receipt.seq - 1]["actor"]
    assert isinstance(actor, dict)
    assert (actor["key"], actor["root"]) == (key.id, orchestrator.key.id)
    assert actor["name"] == f"{orchestrator.name}/agent"
    assert actor["sub"] == "user:7"
    assert [len(digest) for digest in actor["chain"]] == [len("sha256:") + 64]


def test_agents_of_one_orchestrator_do_not_touch_each_others_and_it_may_touch_all(orchestrators: Making) -> None:
    orchestrator = orchestrators()
    permissions = ["sandbox.create", "sandbox.list", "sandbox.show", "sandbox.kill", "sandbox.exec", "sandbox.remove"]
    with (
        orchestrator.certified(permissions=permissions) as first,
        orchestrator.certified(permissions=permissions) as second,
        orchestrator.client() as whole,
        first.sandbox() as made,
    ):
        assert refused(second, "sandbox.kill", {"sandbox": made.id}) in ("denied", "not_found")
        assert second.sandboxes() == []
        assert [one.id for one in whole.sandboxes()] == [made.id]
        assert whole.open(made.id).exec(["/bin/true"]).exit_code == 0


def test_it_ends_with_its_time(orchestrator: Orchestrator) -> None:
    began = now_ms()
    over = began + 1_500
    with orchestrator.certified(now_ms=began, life_ms=1_500) as agent:
        code = ""
        while not code:
            time.sleep(0.1)
            asked = now_ms()
            try:
                agent.status()
                assert asked < over
            except Refusal as error:
                code = error.code
                assert now_ms() >= over
        assert code == "certificate_expired"


def test_one_that_is_over_is_refused_when_it_is_presented(orchestrator: Orchestrator) -> None:
    with orchestrator.certified(now_ms=now_ms() - 10_000, life_ms=5_000) as agent:
        assert refused(agent) == "certificate_expired"


def test_it_is_good_for_so_many_commands_also_on_another_connection(orchestrator: Orchestrator) -> None:
    key = PrivateKey.generate()
    certificate = certify(orchestrator.key, key, commands=3)
    with orchestrator.agent(certificate, key=key) as agent:
        agent.run(["/bin/true"])
        agent.run(["/bin/true"])
    with orchestrator.agent(certificate, key=key) as agent:
        agent.run(["/bin/true"])
        assert refused(agent, "run", {"argv": ["/bin/true"]}) == "certificate_used_up"


def test_what_only_tells_and_what_is_denied_uses_nothing_up(orchestrator: Orchestrator) -> None:
    with orchestrator.certified(commands=1) as agent:
        agent.status()
        assert refused(agent, "key.list") == "denied"
        agent.run(["/bin/true"])
        assert refused(agent, "run", {"argv": ["/bin/true"]}) == "certificate_used_up"


def test_many_at_once_are_no_more_than_were_certified(orchestrator: Orchestrator) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def once(agent: Client) -> str:
        try:
            agent.run(["/bin/true"])
        except Refusal as error:
            return error.code
        return "ran"

    with orchestrator.certified(commands=4) as agent, ThreadPoolExecutor(8) as pool:
        came = list(pool.map(once, [agent] * 12))
    assert sorted(came) == ["certificate_used_up"] * 8 + ["ran"] * 4


def test_a_bound_user_binds_those_whom_he_certifies(orchestrators: Making, daemon: ThrowawayDaemon) -> None:
    with orchestrators(uids=[os.geteuid() + 12345]).certified() as agent:
        assert refused(agent) == "peer_not_bound"


def test_a_suspended_key_takes_its_agents_with_it(orchestrator: Orchestrator, client: Client) -> None:
    with orchestrator.certified() as agent:
        agent.status()
        client.call("key.suspend", {"key": orchestrator.name})
        assert refused(agent) == "key_suspended"
        client.call("key.resume", {"key": orchestrator.name})
        agent.status()


def test_one_agent_is_barred_and_the_others_are_not(orchestrator: Orchestrator, client: Client) -> None:
    key = PrivateKey.generate()
    certificate = certify(orchestrator.key, key)
    with orchestrator.agent(certificate, key=key) as agent, orchestrator.certified() as other:
        agent.status()
        client.call("key.revoke", {"key": key.id})
        assert refused(agent) == "key_revoked"
        other.status()
    with orchestrator.agent(certificate, key=key) as agent:
        assert refused(agent) == "key_revoked"


def test_a_tenant_is_narrowed_and_never_widened(orchestrators: Making) -> None:
    orchestrator = orchestrators()
    with orchestrator.certified(tenants=["default"]) as agent:
        agent.status()
    with orchestrator.certified(tenants=["acme"]) as agent:
        assert refused(agent) == "denied"
    key = PrivateKey.generate()
    with orchestrator.agent(certify(orchestrator.key, key, tenants=["acme"]), key=key, tenant="acme") as agent:
        assert refused(agent) == "denied"


def test_it_may_not_take_more_by_the_rights_of_keys(orchestrators: Making, client: Client) -> None:
    """An admin's agent that may only add keys adds no admin, and one that may rotate takes nobody's place."""
    orchestrator = orchestrators("admin")
    new = PrivateKey.generate()
    with orchestrator.certified(permissions=["key.add", "key.rotate", "grant.issue"]) as agent:
        args = {"name": f"new-{new.id[-8:]}", "public": new.public.raw, "role": "admin"}
        assert refused(agent, "key.add", args) == "escalation"
        rotated = {"key": orchestrator.name, "public": new.public.raw}
        assert refused(agent, "key.rotate", rotated) in ("escalation", "denied")
    assert new.id not in [known.id for known in Keys(client).list()]


def test_a_manifest_of_its_own_needs_that_right_too(orchestrator: Orchestrator) -> None:
    manifest = {"schema": 1, "name": "own", "class": "default"}
    with orchestrator.certified(permissions=["run"]) as agent:
        assert refused(agent, "run", {"argv": ["/bin/true"], "manifest": manifest}) == "denied"
    with orchestrator.certified(permissions=["run", "manifest.inline"]) as agent:
        agent.run(["/bin/true"], manifest=manifest)


def test_counts_survive_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "state"
    ThrowawayDaemon.immure("init", "--state", str(state))
    issuer, key = PrivateKey.from_pem((state / "keys" / "admin.pem").read_bytes()), PrivateKey.generate()
    certificate = certify(issuer, key, commands=3, permissions=RUNNING)
    for times in (2, 1):
        with ThrowawayDaemon(state=state) as daemon:
            with Client(
                daemon.socket, key, daemon.daemon_key.read_bytes(), certificate=chain_to_pem([certificate])
            ) as agent:
                for _ in range(times):
                    agent.run(["/bin/true"])
                if times == 1:
                    assert refused(agent, "run", {"argv": ["/bin/true"]}) == "certificate_used_up"
            daemon.kill()
