"""Nobody grants more than he has; and what is no more is not refused."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from immured.errors import Refused
from immured.identity.actor import Actor
from immured.identity.keyring import KeyRecord
from immured.identity.policy.decide import Decider
from immured.identity.policy.rights import belongs_to_host, excess, excess_of_grant, persons
from immured.identity.policy.schema import Policy
from immured.identity.policy.warrant import Narrowing, Target, place_of
from tests.identity.policy.people import ASKED, NOW, actor, any_actor, any_target, key, policies, policy
from tests.identity.policy.test_decide import certified

TEXT = """
[roles.runner]
[roles.lead]
includes = ["runner"]
[roles.chief]
includes = ["lead"]
[roles.root]
[tenants.acme]
projects = ["web"]
[tenants.beta]
[[rules]]
name = "runners-run"
roles = ["runner"]
allow = ["run", "sandbox.kill"]
scope = "own"
[[rules]]
name = "leads-kill"
roles = ["lead"]
allow = ["sandbox.kill", "key.add"]
scope = "tenant"
[[rules]]
name = "chiefs-write"
roles = ["chief"]
allow = ["manifest.inline"]
scope = "tenant"
classes = ["open"]
[[rules]]
name = "roots-do-all"
roles = ["root"]
allow = ["run", "sandbox.kill", "key.add", "key.bind", "manifest.inline", "policy.set", "speak"]
scope = "host"
"""


def lacking(who: Actor, record: KeyRecord, extra: str = "") -> tuple[str, str] | None:
    found = excess(Decider(policy(TEXT + extra)), who, record, NOW)
    return None if found is None else (found.permission, found.tenant)


def lead(**bindings: Any) -> Actor:
    record = key("lead", "lead", tenants=["acme"], **bindings)
    return actor(record, tenant="acme")


def test_a_lead_makes_leads_and_runners_of_its_tenant() -> None:
    for role in ("runner", "lead"):
        assert lacking(lead(), key(role, tenants=["acme"])) is None


def test_a_lead_makes_no_chief() -> None:
    assert lacking(lead(), key("chief", tenants=["acme"])) == ("manifest.inline", "acme")


def test_a_lead_makes_no_key_of_another_tenant() -> None:
    assert lacking(lead(), key("runner", tenants=["beta"])) == ("run", "beta")
    assert lacking(lead(), key("runner")) == ("run", "default")


def test_a_lead_makes_no_root() -> None:
    assert lacking(lead(), key("root", tenants=["acme"])) == ("policy.set", "*")


def test_what_a_persona_gives_counts() -> None:
    assert lacking(lead(), key("runner", tenants=["acme"], personas=["chief"])) == ("manifest.inline", "acme")


def test_whoever_acts_as_less_grants_as_less() -> None:
    runner = actor(lead().root, persona="runner", tenant="acme")
    assert lacking(runner, key("lead", tenants=["acme"])) == ("sandbox.kill", "acme")


def test_one_bound_to_a_project_makes_none_that_is_not() -> None:
    bound = actor(key("lead", "lead", tenants=["acme"], projects=["web"]), tenant="acme", project="web")
    assert lacking(bound, key("runner", tenants=["acme"], projects=["web"])) is None
    assert lacking(bound, key("runner", tenants=["acme"])) == ("run", "acme")


def test_what_is_denied_to_one_is_not_given_to_another() -> None:
    deny = "[[rules]]\nname = 'no'\nkeys = ['lead']\ndeny = ['run']\n"
    assert lacking(lead(), key("runner", tenants=["acme"]), deny) == ("run", "acme")
    deny = "[[rules]]\nname = 'no'\nroles = ['runner']\ndeny = ['run']\n"
    assert lacking(lead(), key("runner", tenants=["acme"]), deny) is None


def test_what_ends_gives_nothing_that_lasts() -> None:
    until = "[[rules]]\nname = 'x'\nkeys = ['lead', 'bob']\nallow = ['volume.create']\nscope = 'tenant'\n"
    assert lacking(lead(), key("lead", tenants=["acme"]), until) is None
    once = until.replace("'lead', 'bob'", "'lead'") + "until = 2027-02-01T00:00:00Z\n"
    ever = "[[rules]]\nname = 'y'\nkeys = ['bob']\nallow = ['volume.create']\nscope = 'tenant'\n"
    assert lacking(lead(), key("lead", tenants=["acme"]), once + ever) == ("volume.create", "acme")
    ending = key("lead", tenants=["acme"], expires_ms=NOW + 1000)
    assert lacking(lead(), ending, once + ever) is None


def test_a_rule_that_does_not_hold_yet_is_granted_and_not_had() -> None:
    later = "[[rules]]\nname = 'x'\nroles = ['runner']\nallow = ['volume.create']\nscope = 'own'\n"
    later += "from = 2028-01-01T00:00:00Z\n"
    assert lacking(lead(), key("runner", tenants=["acme"]), later) == ("volume.create", "acme")


def test_a_sub_key_leaves_no_key_behind_that_outlives_it() -> None:
    passed = frozenset({"run", "sandbox.kill", "key.add"})
    agent = certified(Narrowing(passed, until_ms=NOW + 1000), root="root", name="boss")
    assert lacking(agent, key("runner")) == ("run", "default")
    assert lacking(agent, key("runner", expires_ms=NOW + 1000)) is None
    assert lacking(agent, key("root", expires_ms=NOW + 1000)) == ("policy.set", "*")


def test_who_is_denied_something_in_sessions_does_not_give_it_away_outside_of_one() -> None:
    out = '[[rules]]\nname = "out"\nkeys = ["boss"]\ndeny = ["run"]\nscope = "own"\nsession = true\n'
    boss = replace(actor(key("root", "boss")), session=None)
    assert lacking(boss, key("runner")) is None
    assert lacking(boss, key("runner"), out) == ("run", "default")


def test_names_that_others_trust_are_given_by_those_who_have_them() -> None:
    assert lacking(lead(), key("runner", tenants=["acme"], subjects=["carol"])) == ("speak", "acme")
    assert lacking(lead(subjects=["carol"]), key("runner", tenants=["acme"], subjects=["carol"])) is None
    assert lacking(lead(), key("runner", tenants=["acme"], personas=["label"])) == ("key.bind", "*")
    assert lacking(lead(personas=["label"]), key("runner", tenants=["acme"], personas=["label"])) is None
    assert lacking(actor(key("root", "boss")), key("runner", subjects=["carol"], personas=["label"])) is None


@pytest.mark.parametrize(
    ("permission", "tenant", "project", "lacks"),
    [
        ("sandbox.kill", "acme", None, False),
        ("sandbox.kill", "acme", "web", False),
        ("sandbox.kill", "beta", None, True),
        ("run", "acme", None, True),  # its own only
        ("policy.set", "acme", None, True),
    ],
)
def test_a_grant_is_of_what_one_has(permission: str, tenant: str, project: str | None, lacks: bool) -> None:
    found = excess_of_grant(Decider(policy(TEXT)), lead(), permission, tenant, project, NOW + 1000, NOW)
    assert (found is not None) is lacks


def test_root_grants_whatever_it_has() -> None:
    boss = actor(key("root", "boss"))
    for permission in ("policy.set", "run"):
        assert excess_of_grant(Decider(policy(TEXT)), boss, permission, "acme", None, NOW + 1, NOW) is None


def test_the_refusal_says_what_and_where() -> None:
    found = excess(Decider(policy(TEXT)), lead(), key("root"), NOW)
    assert found is not None
    error = found.refused()
    assert error.code == "escalation"
    assert error.details == {"permission": "policy.set", "scope": "host", "tenant": "*", "rule": "roots-do-all"}
    assert "on the whole host" in error.message


def test_keys_that_reach_beyond_their_tenants_belong_to_the_host() -> None:
    by = Decider(policy(TEXT + "[[rules]]\nname='x'\nkeys=['eve']\nallow=['run']\nscope='host'\n"))
    assert belongs_to_host(by, key("root"))
    assert belongs_to_host(by, key("runner", personas=["root"]))
    assert belongs_to_host(by, key("runner", "eve"))
    assert not belongs_to_host(by, key("chief"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(of=policies(), seed=st.integers(0, 2**32))
def test_what_is_not_said_to_be_more_is_not_more(of: Policy, seed: int) -> None:
    """Where nothing is in excess, whatever the new key may do, who made it may do to the same in its place."""
    dice, by = Random(seed), Decider(of)
    maker, made = any_actor(dice, of), any_actor(dice, of).record
    made = replace(made, public=key("low", "made").public)
    found = excess(by, maker, made, NOW)
    event(f"excess: {found is not None}")
    if found is not None:
        return
    for person in persons(by, made):
        for _ in range(40):
            tenant = dice.choice(sorted(made.tenants or {"default"}))
            project = dice.choice(sorted(made.projects or {"default", "web"}))
            other = replace(person, tenant=tenant, project=project, session=dice.choice((None, "s")))
            permission = dice.choice(ASKED)
            target = any_target(dice, other, permission)
            if allows(by, other, permission, target):
                stand_in = replace(maker, tenant=target.tenant or tenant, project=project, session=other.session)
                own = any(owner in target.owners for owner in other.identities)
                mine = replace(target, owners=stand_in.owners if own else target.owners)
                if target == place_of(other, permission):
                    mine = place_of(replace(stand_in, tenant=tenant), permission)
                assert allows(by, stand_in, permission, mine) or allows(
                    by, replace(stand_in, tenant=tenant), permission, mine
                ), (permission, other, target)


def allows(by: Decider, who: Actor, permission: str, target: Target) -> bool:
    try:
        return by.warrant(who, permission, NOW).covers(target)
    except Refused:
        return False
