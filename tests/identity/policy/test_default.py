"""The policy that is shipped: it parses, has no fault, and says what its documentation says."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from immured.identity.policy.analyse import Severity, analyse
from immured.identity.policy.cases import Outcome, parse_cases, try_cases
from immured.identity.policy.decide import Decider
from immured.identity.policy.parse import parse_policy
from immured.identity.policy.permissions import PERMISSIONS, RIGHTS
from immured.identity.policy.warrant import Target, place_of
from immured.manifest.builtin import CLASSES
from immured.service.commands import load_commands
from tests.identity.policy.people import NOW, actor, key, public

DEFAULT = parse_policy(files("immured.identity.policy").joinpath("default.toml").read_bytes())
CASES = try_cases(Decider(DEFAULT), parse_cases((Path(__file__).parent / "shipped_cases.toml").read_bytes()), NOW)
SHIPPED = {
    *("admin", "operator", "sre", "secops", "platform-engineer", "partner-developer"),
    *("viewer", "tenant-admin", "worker", "runner"),
}


def test_every_command_is_a_permission_and_every_permission_a_command_or_a_right() -> None:
    assert set(PERMISSIONS) - set(RIGHTS) == set(load_commands())


def test_the_shipped_roles() -> None:
    assert set(DEFAULT.roles) == SHIPPED
    assert all(role.title for role in DEFAULT.roles.values())


def test_it_has_no_fault() -> None:
    found = analyse(DEFAULT, NOW, classes=CLASSES)
    assert [one for one in found if one.severity is not Severity.NOTE] == []
    assert [(one.kind, one.where) for one in found] == [("escalation", "admin")]


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_an_admin_may_do_everything_to_everything(permission: str) -> None:
    admin = actor(key("admin"))
    warrant = Decider(DEFAULT).warrant(admin, permission, NOW)
    assert warrant.covers(Target("elsewhere", "default", (public("nobody").id,)))
    assert warrant.covers(place_of(admin, permission))


@pytest.mark.parametrize("outcome", CASES, ids=lambda one: f"{one.case}: {one.permission}")
def test_the_cases(outcome: Outcome) -> None:
    assert outcome.problem is None, outcome.why
