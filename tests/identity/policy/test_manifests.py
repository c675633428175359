"""What a policy says of manifests: how many must sign them, which may be used, and whose growth others approve."""

from __future__ import annotations

import pytest

from immured.errors import ConfigurationError
from immured.identity.policy.decide import Decider
from immured.identity.policy.diff import diff
from immured.identity.policy.explain import explain
from immured.identity.policy.parse import parse_policy
from immured.identity.policy.schema import ADDED, Control, ManifestRules, Policy
from immured.identity.policy.warrant import HOST, Target
from immured.manifest.difference import Severity
from tests.identity.policy.people import NOW, actor, key, policy

ONE, TWO = ("sha256:" + digit * 64 for digit in "12")
HEAD = "[roles.r]\n[roles.boss]\n[tenants.acme]\n"
LOADS = '[[rules]]\nname = "loads"\nroles = ["r"]\nallow = ["manifest.load", "manifest.sign"]\nscope = "tenant"\n'
GROWTH = '[[controls]]\nname = "growth"\npermissions = ["manifest.load"]\napprovers = ["boss"]\n'


def rules(text: str) -> ManifestRules:
    return policy(HEAD + text).manifests


def wrong(text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse_policy(("schema = 1\n" + HEAD + text).encode())
    assert caught.value.code == "policy_invalid"
    return caught.value


def test_one_signature_and_any_manifest_where_nothing_is_said() -> None:
    assert rules("") == rules("[manifests]\n") == ManifestRules(1, None, frozenset())


def test_all_that_may_be_said() -> None:
    found = rules(f'[manifests]\nsignatures = 2\nonly = ["{ONE}"]\nrevoked = ["{TWO}"]\n')
    assert found == ManifestRules(2, frozenset({ONE}), frozenset({TWO}))


@pytest.mark.parametrize(
    ("line", "line_number", "said"),
    [
        ("signatures = 0", 6, "signatures"),
        ("signatures = 9", 6, "signatures"),
        ('signatures = "2"', 6, "signatures"),
        ("only = []", 6, "is empty"),
        (f'only = ["{ONE[:-1]}"]', 6, "which is no digest"),
        (f'only = ["{ONE.upper()}"]', 6, "which is no digest"),
        (f'revoked = ["{ONE}", "{ONE}"]', 6, "twice"),
        (f'revoked = ["{ONE}"]\nonly = ["{ONE}"]', 7, "which is revoked"),
        ("signature = 1", 6, "signature"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(line: str, line_number: int, said: str) -> None:
    error = wrong("[manifests]\n" + line + "\n")
    assert said in error.message
    assert error.details["line"] == line_number


def control(text: str) -> Control:
    [found] = policy(HEAD + GROWTH + text).controls
    return found


def test_ranks_are_the_severities_of_what_is_added() -> None:
    assert [(one.name.lower(), int(one)) for one in Severity] == list(zip(ADDED, range(1, 5), strict=True))


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_a_control_names_a_severity(rank: int) -> None:
    assert control(f'added = "{ADDED[rank - 1]}"\n').added == rank
    assert control("").added == 0


def test_a_severity_that_there_is_not() -> None:
    assert "low, medium, high, critical" in wrong(GROWTH + 'added = "grave"\n').remedy


def test_nothing_but_loading_adds_anything() -> None:
    text = GROWTH.replace('["manifest.load"]', '["manifest.load", "run"]') + 'added = "low"\n'
    assert "'run', which adds no capabilities" in wrong(text).message


def test_what_no_command_carries_is_under_no_control() -> None:
    assert "manifest.load" in wrong(GROWTH.replace("manifest.load", "manifest.sign")).remedy


@pytest.mark.parametrize("line", ['scope = "own"\n', 'scope = "tenant"\nsession = true\n'])
def test_a_right_to_sign_that_could_never_hold(line: str) -> None:
    assert "manifest.sign" in wrong(LOADS.replace('scope = "tenant"\n', line)).message


# -- decided


def loading(text: str) -> Policy:
    return policy(HEAD + LOADS + GROWTH + text)


def is_open(given: Policy, added: int | None, tenant: str = "default", class_: str = "build") -> bool:
    """Whether loading such a manifest waits for others."""
    somebody = actor(key("r"))
    warrant = Decider(given).warrant(somebody, "manifest.load", NOW)
    asked: list[Control] = []
    warrant.on_control = asked.append
    assert warrant.covers(Target(tenant, "default", somebody.owners, class_, added=added))
    return bool(asked)


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_growth_below_the_rank_needs_nobody(rank: int) -> None:
    given = loading(f'added = "{ADDED[rank - 1]}"\n')
    assert [is_open(given, added) for added in range(5)] == [added >= rank for added in range(5)]


def test_without_a_rank_every_load_needs_approval() -> None:
    assert is_open(loading(""), 0)


def test_what_is_not_known_may_be_anything() -> None:
    assert is_open(loading('added = "critical"\n'), None)


def test_rank_and_class_must_both_hold() -> None:
    given = loading('added = "high"\nclasses = ["networked"]\n')
    assert not is_open(given, 4)
    assert not is_open(given, 2, class_="networked")
    assert is_open(given, 3, class_="networked")


def test_why_it_waits_is_explained() -> None:
    given = loading('added = "high"\n')
    assert explain(Decider(given), actor(key("r")), "manifest.load", NOW).controls == ("growth",)


def test_one_for_the_host_is_no_tenant_s_to_load() -> None:
    somebody = actor(key("r"))
    warrant = Decider(policy(HEAD + LOADS)).warrant(somebody, "manifest.load", NOW)
    assert not warrant.covers(Target(HOST, "", somebody.owners, "build", added=0))


# -- compared


def changes(before: str, after: str) -> list[str]:
    found = diff(policy(HEAD + before), policy(HEAD + after), NOW)
    return [f"{one.subject} {one.effect}: {one.where}" for one in found]


def test_what_changes_of_it_is_said() -> None:
    assert changes("[manifests]\nsignatures = 2\n", "") == ["manifests changes: signatures: 2 -> 1"]
    listed = f'[manifests]\nonly = ["{ONE}"]\nrevoked = ["{TWO}"]\n'
    assert changes("", listed) == [
        "manifests begins: only those that are listed may be used",
        f"manifest {ONE} begins: allowed",
        f"manifest {TWO} begins: revoked",
    ]
    assert changes(listed, listed) == []
    assert changes(listed, "")[0] == "manifests ends: only those that are listed may be used"


def test_a_control_s_rank_is_said() -> None:
    [said] = changes(LOADS + GROWTH, LOADS + GROWTH + 'added = "high"\n')
    assert said.endswith("for manifest.load that adds what is high or more")
