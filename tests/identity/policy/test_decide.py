"""What a policy decides: deny overrides, the default is deny, and all conditions of a rule must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from immured.errors import Refused
from immured.identity.actor import Actor
from immured.identity.policy.decide import Decider
from immured.identity.policy.schema import Control
from immured.identity.policy.warrant import HOST, Narrowing, Target, place_of
from tests.identity.policy.people import NOW, actor, key, policy, public

HEAD = """
[roles.viewer]
[roles.operator]
includes = ["viewer"]
[roles.other]
[tenants.acme]
projects = ["web"]
[tenants.beta]
"""
KILL = "allow = ['sandbox.kill']\nroles = ['viewer']\n"


def decider(*rules: str) -> Decider:
    numbered = "".join(f"[[rules]]\nname = 'rule-{number}'\n{rule}\n" for number, rule in enumerate(rules))
    return Decider(policy(HEAD + numbered))


def target(of: Actor | None = None, **given: Any) -> Target:
    owners = (public("nobody").id,) if of is None else of.owners
    return Target(given.pop("tenant", "default"), given.pop("project", "default"), given.pop("owners", owners), **given)


def refusal(by: Decider, who: Actor, permission: str, on: Target | None = None, now: int = NOW) -> Refused:
    def ask() -> None:
        by.warrant(who, permission, now).check(place_of(who, permission) if on is None else on)

    with pytest.raises(Refused) as caught:
        ask()
    return caught.value


def covers(by: Decider, who: Actor, on: Target, permission: str = "sandbox.kill", now: int = NOW) -> bool:
    try:
        return by.warrant(who, permission, now).covers(on)
    except Refused:
        return False


# -- who


def test_what_no_rule_allows_is_denied_with_who_may() -> None:
    error = refusal(decider("allow = ['run']\nroles = ['operator']\nscope = 'own'"), actor(key("viewer")), "run")
    assert error.code == "denied"
    assert error.message == "no rule allows 'run' to the key 'bob' (viewer)"
    assert "operator" in error.remedy
    assert error.details == {"permission": "run", "role": "viewer", "tenant": "default"}


def test_of_what_belongs_to_the_host_only_roles_that_reach_it_are_named() -> None:
    wide, narrow = (f"allow = ['sandbox.kill']\nroles = ['{role}']\nscope = " for role in ("operator", "viewer"))
    by = decider(wide + "'host'", narrow + "'tenant'")
    assert "viewer" in refusal(by, actor(key("gone")), "sandbox.kill").remedy
    error = refusal(by, actor(key("viewer")), "sandbox.kill", on=target(tenant=HOST))
    assert error.message.endswith("on what belongs to the host")
    assert "operator" in error.remedy
    assert "viewer" not in error.remedy


def test_a_role_that_the_policy_does_not_have_may_nothing() -> None:
    assert refusal(decider(KILL + "scope = 'host'"), actor(key("gone")), "sandbox.kill").code == "denied"


def test_a_rule_that_denies_overrides_whatever_the_order() -> None:
    allow, deny = KILL + "scope = 'host'", "deny = ['sandbox.kill']\nroles = ['viewer']"
    for rules, name in (((allow, deny), "rule-1"), ((deny, allow), "rule-0")):
        error = refusal(decider(*rules), actor(key("viewer")), "sandbox.kill", target())
        assert "denies" in error.message
        assert error.details["rule"] == name


def test_rules_of_included_roles_hold_too() -> None:
    by = decider(KILL + "scope = 'host'")
    assert covers(by, actor(key("operator")), target())
    assert not covers(by, actor(key("other")), target())


def test_a_key_is_named_by_its_name_or_id() -> None:
    bob, eve = key("other", "bob"), key("other", "eve")
    for name in ("bob", bob.id):
        by = decider(f"allow = ['sandbox.kill']\nkeys = ['{name}']\nscope = 'host'")
        assert covers(by, actor(bob), target())
        assert not covers(by, actor(eve), target())


def test_role_and_key_must_both_hold() -> None:
    by = decider("allow = ['sandbox.kill']\nkeys = ['bob']\nroles = ['viewer']\nscope = 'host'")
    assert covers(by, actor(key("viewer", "bob")), target())
    assert not covers(by, actor(key("viewer", "eve")), target())
    assert not covers(by, actor(key("other", "bob")), target())


def test_a_persona_has_its_roles_rights_alone() -> None:
    by = decider(
        "allow = ['sandbox.kill']\nroles = ['operator']\nscope = 'host'",
        "allow = ['sandbox.kill']\nkeys = ['bob']\nscope = 'host'",
    )
    assert covers(by, actor(key("operator")), target())
    assert not covers(by, actor(key("operator"), persona="viewer"), target())


def test_a_persona_does_not_slip_out_of_what_is_denied_to_the_role() -> None:
    by = decider(KILL + "scope = 'host'", "deny = ['sandbox.kill']\nroles = ['operator']")
    assert covers(by, actor(key("viewer")), target())
    assert not covers(by, actor(key("operator"), persona="viewer"), target())


# -- what


def test_own_is_what_the_key_made_in_this_tenant() -> None:
    by = decider(KILL + "scope = 'own'")
    bob = actor(key("viewer", tenants=["default", "acme"]))
    assert covers(by, bob, target(bob))
    assert not covers(by, bob, target())
    assert not covers(by, bob, target(bob, tenant="acme"))


def test_own_is_what_the_keys_predecessors_made() -> None:
    by = decider(KILL + "scope = 'own'")
    bob = actor(key("viewer", predecessors=(public("older").id, public("oldest").id)))
    assert covers(by, bob, target(owners=(public("oldest").id,)))
    assert not covers(by, bob, target(owners=(public("nobody").id,)))


def test_tenant_is_all_in_the_tenant_of_the_command() -> None:
    by = decider(KILL + "scope = 'tenant'")
    bob = actor(key("viewer", tenants=["acme"]), tenant="acme")
    assert covers(by, bob, target(tenant="acme"))
    assert not covers(by, bob, target(tenant="beta"))
    assert not covers(by, bob, target(tenant=HOST))


def test_host_is_every_tenant_and_the_host() -> None:
    by = decider(KILL + "scope = 'host'")
    for tenant in ("default", "acme", "beta", HOST):
        assert covers(by, actor(key("viewer")), target(tenant=tenant))


def test_only_host_scope_reaches_the_host() -> None:
    by = decider("allow = ['policy.set']\nroles = ['operator']\nscope = 'host'")
    by.warrant(actor(key("operator")), "policy.set", NOW).check_command()
    assert refusal(by, actor(key("viewer")), "policy.set").code == "denied"


@pytest.mark.parametrize(
    ("condition", "holds", "fails"),
    [
        ("tenants = ['acme']", {"tenant": "acme"}, {"tenant": "beta"}),
        ("projects = ['web']", {"tenant": "acme", "project": "web"}, {"tenant": "acme"}),
        ("classes = ['open']", {"manifest_class": "open"}, {"manifest_class": "default"}),
        ("classes = ['open']", {"manifest_class": "open"}, {}),
        ("labels = {team = 'red'}", {"labels": {"team": "red", "x": "y"}}, {"labels": {"team": "blue"}}),
        ("labels = {team = 'red'}", {"labels": {"team": "red"}}, {}),
    ],
)
def test_conditions_of_the_target(condition: str, holds: dict[str, Any], fails: dict[str, Any]) -> None:
    bob = actor(key("viewer"))
    by = decider(KILL + f"scope = 'host'\n{condition}")
    assert covers(by, bob, target(**holds))
    assert not covers(by, bob, target(**fails))
    by = decider(KILL + "scope = 'host'", f"deny = ['sandbox.kill']\nroles = ['viewer']\n{condition}")
    assert not covers(by, bob, target(**holds))
    assert covers(by, bob, target(**fails))


def test_a_denial_about_a_target_names_the_rule_that_denies() -> None:
    by = decider(KILL + "scope = 'host'", "deny = ['sandbox.kill']\nroles = ['viewer']\nclasses = ['open']")
    error = refusal(by, actor(key("viewer")), "sandbox.kill", target(manifest_class="open"))
    assert error.details["rule"] == "rule-1"


# -- when


def test_a_rule_holds_from_its_beginning_until_before_its_end() -> None:
    by = decider(KILL + "scope = 'host'\nfrom = 2027-01-15T08:00:00Z\nuntil = 2027-01-15T08:00:01Z")
    bob = actor(key("viewer"))
    answers = [covers(by, bob, target(), now=NOW + at) for at in (-1, 0, 999, 1000)]
    assert answers == [False, True, True, False]


def test_what_is_remembered_is_forgotten_when_a_rule_begins_or_ends() -> None:
    by = decider(KILL + "scope = 'host'", "deny = ['sandbox.kill']\nroles = ['viewer']\nfrom = 2027-01-15T08:00:00Z")
    bob = actor(key("viewer"))
    assert covers(by, bob, target(), now=NOW - 1)
    assert not covers(by, bob, target(), now=NOW)
    assert covers(by, bob, target(), now=NOW - 1), "a clock that was set back"


def test_a_ruling_is_of_one_record() -> None:
    """A key that was bound anew has its new bindings at once."""
    by = decider(KILL + "scope = 'tenant'")
    assert covers(by, actor(key("viewer", tenants=["acme"]), tenant="acme"), target(tenant="acme"))
    assert not covers(by, actor(key("viewer", tenants=["beta"]), tenant="acme"), target(tenant="acme"))


def test_a_rule_may_ask_for_a_session() -> None:
    by = decider(KILL + "scope = 'host'\nsession = true")
    assert covers(by, actor(key("viewer"), session="s"), target())
    assert not covers(by, actor(key("viewer")), target())


# -- tenants and projects


def test_a_foreign_tenant_and_one_that_there_is_not_are_denied_in_the_same_words() -> None:
    by = decider(KILL + "scope = 'tenant'")
    foreign, unknown = (refusal(by, actor(key("viewer"), tenant=name), "sandbox.kill") for name in ("acme", "nope"))
    assert foreign.message.replace("acme", "X") == unknown.message.replace("nope", "X")
    assert foreign.remedy == unknown.remedy
    assert {**foreign.details, "tenant": "X"} == {**unknown.details, "tenant": "X"}


def test_a_foreign_tenant_that_a_rule_does_not_reach_is_like_one_that_there_is_not() -> None:
    by = decider(KILL + "scope = 'host'\ntenants = ['acme']")
    by.warrant(actor(key("viewer"), tenant="acme"), "sandbox.kill", NOW).check(target(tenant="acme"))
    foreign, unknown = (refusal(by, actor(key("viewer"), tenant=name), "sandbox.kill") for name in ("beta", "nope"))
    assert foreign.message.replace("beta", "X") == unknown.message.replace("nope", "X")


def test_in_a_foreign_tenant_only_host_scope_holds() -> None:
    """The rights of scope `tenant` are not carried into a tenant because another rule leads there."""
    by = decider(
        KILL + "scope = 'tenant'", "allow = ['sandbox.kill']\nroles = ['viewer']\nscope = 'host'\nclasses = ['x']"
    )
    guest = actor(key("viewer"), tenant="acme")
    assert covers(by, guest, target(tenant="acme", manifest_class="x"))
    assert not covers(by, guest, target(tenant="acme"))


def test_a_key_is_bound_to_its_projects_whatever_the_rule() -> None:
    by = decider(KILL + "scope = 'host'")
    bob = actor(key("viewer", tenants=["acme"], projects=["web"]), tenant="acme", project="web")
    assert covers(by, bob, target(tenant="acme", project="web"))
    assert not covers(by, bob, target(tenant="acme"))
    assert not covers(by, actor(bob.record, tenant="acme"), target(tenant="acme", project="web"))


def test_a_key_that_is_bound_to_projects_does_not_reach_the_host() -> None:
    by = decider("allow = ['policy.set']\nroles = ['operator']\nscope = 'host'")
    assert refusal(by, actor(key("operator", projects=["default"])), "policy.set").code == "denied"


def test_a_project_that_there_is_not() -> None:
    bob = actor(key("viewer", tenants=["acme"]), tenant="acme", project="nope")
    assert "project 'nope'" in refusal(decider(KILL + "scope = 'host'"), bob, "sandbox.kill").message


# -- certificates


@dataclass(frozen=True)
class Certified:
    """A link, as far as the decision goes."""

    issuer: str
    narrowing: Narrowing
    digest: str = "sha256:x"
    sub: str | None = None


def certified(narrowing: Narrowing, *, root: str = "viewer", name: str = "bob", **names: Any) -> Actor:
    record = key(root, name)
    return actor(key(root, "agent"), chain=(Certified(record.id, narrowing),), anchor=record, **names)


def test_a_certificate_narrows_what_its_issuer_may() -> None:
    by = decider(KILL + "scope = 'host'", "allow = ['run']\nroles = ['viewer']\nscope = 'host'")
    agent = certified(
        Narrowing(frozenset({"sandbox.kill"}), frozenset({"acme"}), None, frozenset({"x"}), (("t", "1"),))
    )
    fits: dict[str, Any] = {"tenant": "acme", "manifest_class": "x", "labels": {"t": "1"}}
    assert covers(by, agent, target(**fits))
    others: list[dict[str, Any]] = [{"tenant": "beta"}, {"manifest_class": "y"}, {"labels": {}}]
    for other in others:
        assert not covers(by, agent, target(**(fits | other)))
    assert "does not pass on 'run'" in refusal(by, agent, "run").message


def test_a_certificate_gives_nothing_that_its_issuer_has_not() -> None:
    agent = certified(Narrowing(frozenset({"sandbox.kill"})), root="other")
    assert not covers(decider(KILL + "scope = 'host'"), agent, target())


def test_a_certified_key_owns_what_it_made_and_not_what_its_issuer_made() -> None:
    by = decider(KILL + "scope = 'own'")
    agent = certified(Narrowing(frozenset({"sandbox.kill"})))
    assert covers(by, agent, target(agent))
    assert not covers(by, agent, target(owners=(agent.root.id,)))
    assert covers(by, actor(agent.root), target(agent)), "its issuer owns what it made"


def test_rules_about_a_key_hold_of_those_that_it_certified() -> None:
    by = decider(KILL + "scope = 'host'", "deny = ['sandbox.kill']\nkeys = ['bob']")
    assert not covers(by, certified(Narrowing(frozenset({"sandbox.kill"}))), target())


def test_a_certificate_called_as_a_key_is_called_is_not_that_key() -> None:
    by = decider("allow = ['sandbox.kill']\nkeys = ['agent']\nscope = 'host'")
    assert not covers(by, certified(Narrowing(frozenset({"sandbox.kill"}))), target())


# -- the warrant


def test_a_warrant_knows_whether_it_was_asked() -> None:
    warrant = decider(KILL + "scope = 'own'").warrant(actor(key("viewer")), "sandbox.kill", NOW)
    assert not warrant.checked
    assert not warrant.covers(target())
    assert warrant.checked


def test_anywhere_is_for_those_with_host_scope() -> None:
    by = decider(KILL + "scope = 'tenant'", "allow = ['sandbox.kill']\nroles = ['operator']\nscope = 'host'")
    assert not by.warrant(actor(key("viewer")), "sandbox.kill", NOW).anywhere
    assert by.warrant(actor(key("operator")), "sandbox.kill", NOW).anywhere


def test_other_rights_are_asked_through_the_warrant() -> None:
    by = decider("allow = ['run', 'manifest.inline']\nroles = ['viewer']\nscope = 'own'\nclasses = ['x']")
    bob = actor(key("viewer"))
    warrant = by.warrant(bob, "run", NOW)
    assert warrant.holds("manifest.inline", target(bob, manifest_class="x"))
    assert not warrant.holds("manifest.inline", target(bob, manifest_class="y"))
    assert not warrant.holds("speak")
    with pytest.raises(Refused, match=r"'manifest\.inline'"):
        warrant.require("manifest.inline", target(bob, manifest_class="y"))


def test_a_grant_is_asked_where_no_rule_allows_and_none_denies() -> None:
    by = decider(KILL + "scope = 'own'", "deny = ['sandbox.kill']\nroles = ['viewer']\nclasses = ['x']")
    bob = actor(key("viewer"))
    warrant = by.warrant(bob, "sandbox.kill", NOW)
    asked: list[Target] = []
    warrant.on_denied = lambda on: not asked.append(on)  # type: ignore[func-returns-value]
    assert warrant.covers(target(bob))
    assert asked == []
    assert warrant.covers(target())
    assert not warrant.covers(target(manifest_class="x"))
    assert asked == [target()]


def test_a_grant_leads_into_no_tenant_that_there_is_not() -> None:
    by = decider(KILL + "scope = 'own'")
    assert by.granted(actor(key("viewer"), tenant="acme"), "run", NOW).permission == "run"
    with pytest.raises(Refused, match="may not act in the tenant 'gone'"):
        by.granted(actor(key("viewer"), tenant="gone"), "run", NOW)


def test_what_a_grant_permits_a_rule_can_still_deny() -> None:
    by = decider(
        "deny = ['sandbox.kill']\nroles = ['viewer']\ntenants = ['acme']", "deny = ['run']\nroles = ['viewer']"
    )
    warrant = by.granted(actor(key("viewer")), "sandbox.kill", NOW)
    assert not warrant.covers(target())
    warrant.on_denied = lambda _: True
    assert warrant.covers(target())
    assert not warrant.covers(target(tenant="acme"))
    with pytest.raises(Refused, match="'rule-1' denies"):
        by.granted(actor(key("viewer")), "run", NOW)


CONTROLS = """
[[controls]]
name = "two"
permissions = ["sandbox.kill"]
approvers = ["operator"]
approvals = 1
[[controls]]
name = "open"
permissions = ["sandbox.kill", "run"]
classes = ["x"]
approvers = ["operator"]
approvals = 2
"""


def controlled() -> Decider:
    rule = "[[rules]]\nname = 'r'\nroles = ['viewer']\nallow = ['sandbox.kill', 'run']\nscope = 'host'\n"
    return Decider(policy(HEAD + rule + CONTROLS))


def test_a_control_refuses_where_nobody_sees_to_it() -> None:
    warrant = controlled().warrant(actor(key("viewer")), "sandbox.kill", NOW)
    with pytest.raises(Refused) as caught:
        warrant.covers(target())
    assert caught.value.code == "approval_required"
    assert caught.value.details == {"permission": "sandbox.kill", "control": "two", "approvals": 1}


def test_controls_are_asked_of_what_is_acted_on() -> None:
    seen: list[str] = []

    def note(control: Control) -> None:
        seen.append(control.name)

    for permission, class_, names in (
        ("sandbox.kill", None, ["two"]),
        ("sandbox.kill", "x", ["two", "open"]),
        ("run", "x", ["open"]),
        ("run", "y", []),
    ):
        warrant = controlled().warrant(actor(key("viewer")), permission, NOW)
        warrant.on_control = note
        warrant.check(target(manifest_class=class_))
        assert seen == names
        seen.clear()


def test_what_is_denied_is_no_matter_of_approval() -> None:
    assert refusal(controlled(), actor(key("other")), "sandbox.kill").code == "denied"
