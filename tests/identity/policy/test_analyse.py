"""What is called unreachable is; what can decide is not called so; and who can give himself more is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, event, given, settings

from immured.errors import ConfigurationError
from immured.identity.policy.analyse import Finding, analyse
from immured.identity.policy.decide import Decider
from immured.identity.policy.permissions import PERMISSIONS
from immured.identity.policy.schema import Policy
from immured.identity.policy.space import Subject, allowed, atoms_of, situations
from tests.identity.policy.people import ASKED, NOW, key, policies, policy

HEAD = "[roles.low]\n[roles.high]\nincludes = ['low']\n[tenants.acme]\n"


def rule(name: str, text: str) -> str:
    return f"[[rules]]\nname = '{name}'\n{text}\n"


ALLOW = "roles = ['low']\nallow = ['sandbox.kill']\n"
DENY = "roles = ['low']\ndeny = ['sandbox.kill']\n"


def found(*rules: str, **known: list[str]) -> list[tuple[str, str, str]]:
    """Of rules: severity, kind, where."""
    return [
        (one.severity.value, one.kind, one.where)
        for one in analyse(policy(HEAD + "".join(rules)), NOW, classes=known.get("classes"), paths=known.get("paths"))
        if one.kind not in ("nobody", "unused")
    ]


def test_a_policy_without_fault() -> None:
    assert found(rule("a", ALLOW + "scope = 'own'")) == []


def test_what_has_ended() -> None:
    assert found(rule("a", ALLOW + "scope = 'own'\nuntil = 2020-01-01T00:00:00Z")) == [("error", "unreachable", "a")]


def test_what_is_always_denied() -> None:
    assert found(rule("a", ALLOW + "scope = 'own'"), rule("b", DENY)) == [("error", "unreachable", "a")]


def test_what_is_denied_by_several_together() -> None:
    apart = [rule(name, DENY + f"tenants = ['{name}']") for name in ("acme", "default")]
    assert ("error", "unreachable", "a") in found(rule("a", ALLOW + "scope = 'own'"), *apart)


def test_what_is_not_always_denied() -> None:
    assert found(rule("a", ALLOW + "scope = 'own'"), rule("b", DENY + "classes = ['x']")) == []
    assert found(rule("a", ALLOW + "scope = 'own'"), rule("b", DENY + "until = 2030-01-01T00:00:00Z")) == []
    assert found(rule("a", ALLOW + "scope = 'own'"), rule("b", DENY + "keys = ['bob']")) == []


def test_what_another_rule_allows_anyway() -> None:
    wide = rule("wide", ALLOW + "scope = 'host'")
    assert found(wide, rule("narrow", ALLOW + "scope = 'own'")) == [("note", "redundant", "narrow")]
    assert found(wide, rule("high", ALLOW.replace("'low'", "'high'") + "scope = 'own'")) == [
        ("note", "redundant", "high")
    ]


def test_what_denies_what_nobody_is_allowed() -> None:
    assert found(rule("a", DENY)) == [("note", "idle", "a")]


def test_a_rule_that_nothing_can_meet() -> None:
    """The tenant has no such project: a rule may name one that another tenant has."""
    web = "[tenants.beta]\nprojects = ['web']\n"
    text = web + rule("a", ALLOW + "scope = 'tenant'\ntenants = ['acme', 'beta']\nprojects = ['web']")
    assert found(text) == []
    never = rule("b", ALLOW + "scope = 'own'\nkeys = ['bob']").replace("roles = ['low']", "roles = ['gone']")
    with pytest.raises(ConfigurationError):
        found(never)


def of_kind(text: str, kind: str) -> list[Finding]:
    return [one for one in analyse(policy(HEAD + text), NOW) if one.kind == kind]


def test_permissions_that_nobody_has() -> None:
    nobody = {one.of for one in of_kind(rule("a", ALLOW + "scope = 'own'"), "nobody")}
    assert nobody == set(PERMISSIONS) - {"sandbox.kill"}
    assert "sandbox.kill" in {one.of for one in of_kind(rule("a", ALLOW + "scope='own'") + rule("b", DENY), "nobody")}


def test_roles_that_no_rule_is_about() -> None:
    assert [one.where for one in of_kind(rule("a", ALLOW.replace("'low'", "'high'") + "scope='own'"), "unused")] == [
        "low"
    ]


SET = rule("set", "roles = ['high']\nallow = ['policy.set']\nscope = 'host'")
CONTROL = "[[controls]]\nname = 'two'\npermissions = ['policy.set']\napprovers = ['high']\n"
APPROVE = rule("approve", "roles = ['high']\nallow = ['proposal.approve', 'key.add']\nscope = 'host'")


def test_who_can_give_himself_everything() -> None:
    assert [(one.where, one.of) for one in of_kind(SET, "escalation")] == [("high", "policy.set")]
    assert of_kind(SET + CONTROL, "escalation") == []


def test_who_can_be_two() -> None:
    """Whoever adds keys alone approves by a second one what he proposes by the first."""
    assert [(one.where, one.of) for one in of_kind(SET + APPROVE + CONTROL, "escalation")] == [("two", "key.add")]
    both = CONTROL.replace("['policy.set']", "['policy.set', 'key.add']")
    assert of_kind(SET + APPROVE + both, "escalation") == []


def test_what_controls_adding_keys_controls_binding_and_rotating_them() -> None:
    more = APPROVE.replace("'key.add'", "'key.add', 'key.bind', 'key.rotate'")
    assert [one.of for one in of_kind(SET + more + CONTROL, "escalation")] == ["key.add"]
    only = APPROVE.replace("'key.add'", "'key.rotate'")
    assert [one.of for one in of_kind(SET + only + CONTROL, "escalation")] == ["key.rotate"]
    assert of_kind(SET + more + CONTROL.replace("['policy.set']", "['policy.set', 'key.add']"), "escalation") == []


def test_who_rotates_his_own_key_is_not_two() -> None:
    own = APPROVE.replace(", 'key.add'", "") + rule("own", "roles = ['high']\nallow = ['key.rotate']\nscope = 'own'")
    assert of_kind(SET + own + CONTROL, "escalation") == []


def test_names_that_there_are_not() -> None:
    text = rule("a", ALLOW + "keys = ['bob', 'bop']\nscope = 'own'\nclasses = ['default', 'defualt']")
    text += "[tenants.beta]\npaths = ['data']\n"
    known = analyse(
        policy(HEAD + text), NOW, records=[key("low"), key("hihg", "x")], classes=["default"], paths=["date"]
    )
    said = {one.message for one in known if one.kind == "unknown-name"}
    assert said == {
        "a: no key is called 'bop'; did you mean 'bob'?",
        "a: no class is called 'defualt'; did you mean 'default'?",
        "key x: no role is called 'hihg'; did you mean 'high'?",
        "tenant beta: no host path is called 'data'; did you mean 'date'?",
    }


def test_names_that_are_not_known_are_not_judged() -> None:
    assert found(rule("a", ALLOW + "keys = ['bop']\nscope = 'own'\nclasses = ['defualt']")) == []


def test_more_than_can_be_looked_at_is_refused() -> None:
    labels = [
        rule(f"r{number}", ALLOW + f"scope='host'\nlabels={{k{number % 12}='v{number}'}}") for number in range(120)
    ]
    with pytest.raises(ConfigurationError) as caught:
        found(*labels)
    assert caught.value.code == "policy_too_large"


def without(of: Policy, name: str) -> Policy:
    return replace(of, rules=tuple(one for one in of.rules if one.name != name))


def differs(one: Policy, other: Policy, permission: str) -> bool:
    """Whether any situation at all tells them apart: by walking through all."""
    atoms = atoms_of((one, other), permission, NOW)
    deciders = Decider(one), Decider(other)
    return any(
        allowed(deciders[0], asked) is not allowed(deciders[1], asked)
        for role in one.roles
        for name in (None, *atoms.keys)
        for asked in situations(Subject(role, name), permission, atoms)
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(of=policies())
def test_a_rule_is_called_useless_if_and_only_if_the_policy_is_the_same_without_it(of: Policy) -> None:
    useless: dict[str, set[str]] = {}
    for one in analyse(of, NOW):
        if one.kind in ("unreachable", "redundant", "idle"):
            useless.setdefault(one.where, set()).update({one.of} if one.of else PERMISSIONS)
    for each in of.rules:
        for permission in sorted(each.permissions & set(ASKED)):
            called = permission in useless.get(each.name, set())
            event(f"useless: {called}")
            assert called is not differs(of, without(of, each.name), permission), (each.name, permission)
