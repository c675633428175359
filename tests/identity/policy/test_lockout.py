"""A policy that nobody could change again, or whose controls nobody could fulfil, is not taken."""

from __future__ import annotations

import pytest

from immured.errors import Refused
from immured.identity.keyring import KeyRecord, KeyStatus
from immured.identity.policy.lockout import check_lockout
from tests.identity.policy.people import NOW, key, policy, public

HEAD = "[roles.admin]\n[roles.secops]\n[roles.worker]\n"
SET = "[[rules]]\nname = 'set'\nroles = ['admin']\nallow = ['policy.set']\nscope = 'host'\n"
APPROVE = "[[rules]]\nname = 'ok'\nroles = ['admin', 'secops']\nallow = ['proposal.approve']\nscope = 'host'\n"
PROPOSE = "[[rules]]\nname = 'may'\nroles = ['admin', 'secops']\nallow = ['proposal.create']\nscope = 'own'\n"
CONTROL = "[[controls]]\nname = 'two'\npermissions = ['policy.set']\napprovers = ['admin', 'secops']\napprovals = 1\n"
ADMIN, SECOPS, WORKER = key("admin", "a"), key("secops", "s"), key("worker", "w")


def locked(text: str, *records: KeyRecord) -> str | None:
    try:
        check_lockout(policy(HEAD + text), records, NOW)
    except Refused as error:
        assert error.code == "lockout"  # noqa: PT017 - what is not raised is an answer too
        return str(error.details["permission"])
    return None


def test_somebody_can_change_it() -> None:
    assert locked(SET, WORKER, ADMIN) is None


def test_nobody_has_the_role() -> None:
    assert locked(SET, WORKER) == "policy.set"


def test_a_persona_will_do() -> None:
    assert locked(SET, key("worker", "w", personas=["admin"])) is None


@pytest.mark.parametrize(
    "record",
    [
        key("admin", "a", status=KeyStatus.SUSPENDED),
        key("admin", "a", status=KeyStatus.REVOKED),
        key("admin", "a", expires_ms=NOW),
        key("admin", "a", expires_ms=NOW + 1),
        key("admin", "a", not_before_ms=NOW + 1),
    ],
    ids=lambda record: str(record.standing(NOW)),
)
def test_a_key_that_does_not_serve_does_not_count(record: KeyRecord) -> None:
    assert locked(SET, record) == "policy.set"


@pytest.mark.parametrize(
    "rule",
    [
        SET + "until = 2030-01-01T00:00:00Z\n",
        SET + "from = 2030-01-01T00:00:00Z\n",
        SET + "[[rules]]\nname = 'no'\nkeys = ['a']\ndeny = ['policy.set']\n",
        SET + "[[rules]]\nname = 'no'\nroles = ['admin']\ndeny = ['policy.set']\nfrom = 2030-01-01T00:00:00Z\n",
    ],
)
def test_it_must_last(rule: str) -> None:
    assert locked(rule, ADMIN) == "policy.set"


def test_a_key_that_is_bound_to_projects_does_not_count() -> None:
    assert locked(SET, key("admin", "a", projects=["default"])) == "policy.set"


def test_what_was_denied_is_not_denied() -> None:
    past = "[[rules]]\nname = 'no'\nroles = ['admin']\ndeny = ['policy.set']\nuntil = 2020-01-01T00:00:00Z\n"
    assert locked(SET + past, ADMIN) is None


def test_a_control_needs_another_key() -> None:
    assert locked(SET + PROPOSE + APPROVE + CONTROL, ADMIN) == "policy.set"
    assert locked(SET + PROPOSE + APPROVE + CONTROL, ADMIN, SECOPS) is None
    assert locked(SET + PROPOSE + APPROVE + CONTROL, ADMIN, key("admin", "b")) is None


def test_an_approver_must_be_allowed_to_approve() -> None:
    assert locked(SET + PROPOSE + CONTROL, ADMIN, SECOPS) == "policy.set"


def test_an_approver_must_reach_what_is_proposed() -> None:
    """A proposal of what acts on the host is the host's, to all but him who made it."""
    there = APPROVE.replace("'host'", "'tenant'")
    assert locked(SET + PROPOSE + there + CONTROL, ADMIN, SECOPS) == "policy.set"


def test_somebody_else_than_who_approves_must_be_allowed_to_propose() -> None:
    assert locked(SET + APPROVE + CONTROL, ADMIN, SECOPS) == "policy.set"
    admins = PROPOSE.replace(", 'secops'", "")
    alone = CONTROL.replace("['admin', 'secops']", "['admin']")
    assert locked(SET + admins + APPROVE + alone, ADMIN, SECOPS) == "policy.set"
    assert locked(SET + PROPOSE + APPROVE + alone, ADMIN, SECOPS) == "policy.set"  # who gives it approves it
    assert locked(SET + PROPOSE + APPROVE + alone, ADMIN, key("admin", "b")) is None


SETS = "[[rules]]\nname = 'sets'\nroles = ['worker']\nallow = ['policy.set']\nscope = 'host'\n"
PROPOSES = "[[rules]]\nname = 'asks'\nroles = ['worker']\nallow = ['proposal.create']\nscope = 'own'\n"


@pytest.mark.parametrize(
    ("who", "approvals", "expected"),
    [
        ([ADMIN, WORKER], 1, "policy.set"),  # proposed by the worker, and then all that is left is the admin's
        ([ADMIN, SECOPS, WORKER], 1, None),
        ([ADMIN, SECOPS, WORKER], 2, "policy.set"),  # who gives it is one of the two
        ([ADMIN, SECOPS, key("secops", "t"), WORKER], 2, None),
        ([ADMIN, SECOPS, key("secops", "t")], 2, None),  # who gives it proposes it himself
    ],
)
def test_who_gives_it_is_none_of_those_who_approve(who: list[KeyRecord], approvals: int, expected: str | None) -> None:
    control = CONTROL.replace("approvals = 1", f"approvals = {approvals}")
    assert locked(SET + PROPOSE + PROPOSES + APPROVE + control, *who) == expected


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ([ADMIN, WORKER], None),  # the worker proposes and gives it
        ([ADMIN], "policy.set"),
        ([ADMIN, key("worker", "w", status=KeyStatus.SUSPENDED)], "policy.set"),
        ([ADMIN, key("worker", "w", expires_ms=NOW + 1)], "policy.set"),
    ],
)
def test_who_may_give_it_and_does_not_approve_leaves_the_approvers_their_voices(
    who: list[KeyRecord], expected: str | None
) -> None:
    assert locked(SET + SETS + PROPOSE + PROPOSES + APPROVE + CONTROL, *who) == expected


def test_who_proposes_and_who_gives_may_both_be_needed() -> None:
    """Two voices, one of who alone may propose, one of who alone may give: neither is left."""
    admins = PROPOSE.replace("'admin', ", "")
    assert locked(SET + admins + APPROVE + CONTROL, ADMIN, SECOPS) == "policy.set"
    assert locked(SET + admins + APPROVE + CONTROL, ADMIN, SECOPS, key("admin", "b")) is None


def test_the_refusal_names_the_control() -> None:
    with pytest.raises(Refused) as refused:
        check_lockout(policy(HEAD + SET + PROPOSE + APPROVE + CONTROL), [ADMIN], NOW)
    assert refused.value.details == {"control": "two", "permission": "policy.set", "approvals": 1}
    assert "the control 'two'" in refused.value.message
    assert "by others than who gives the command" in refused.value.message


def test_approvers_that_end_by_themselves_leave_the_policy_as_it_is_for_ever() -> None:
    guest = key("secops", "s", expires_ms=NOW + 1)
    assert locked(SET + PROPOSE + APPROVE + CONTROL, ADMIN, guest) == "policy.set"


def test_what_takes_a_session_takes_somebody_who_may_open_one() -> None:
    opening = "[[rules]]\nname = 'open'\nroles = ['admin']\nallow = ['session.open']\nscope = 'own'\n"
    assert locked(SET + "session = true\n", ADMIN) == "policy.set"
    assert locked(SET + "session = true\n" + opening, ADMIN) is None
    assert locked(SET + "session = true\n" + opening + "session = true\n", ADMIN) == "policy.set"


def test_a_key_and_its_predecessor_are_one_voice() -> None:
    heir = key("admin", "b", predecessors=(public("a").id,))
    assert locked(SET + PROPOSE + APPROVE + CONTROL, ADMIN, heir) == "policy.set"


def test_a_control_of_what_nobody_may_is_nobodys_concern() -> None:
    control = CONTROL.replace("'policy.set'", "'key.add'")
    assert locked(SET + control, ADMIN) is None
