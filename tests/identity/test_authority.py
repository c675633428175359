"""The one place that decides: what it takes for a command and gives back, and what entries change in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from immured.errors import Refused
from immured.identity import grants as grants_module
from immured.identity import proposals as proposals_module
from immured.identity import sessions as sessions_module
from immured.identity.actor import Actor, Caller
from immured.identity.authority import Authority
from immured.identity.canonical import command_digest
from immured.identity.grants import Grant, Grants
from immured.identity.keyring import KeyRecord, Keyring, KeyStatus
from immured.identity.policy.parse import parse_policy
from immured.identity.policy.schema import Policy
from immured.identity.policy.warrant import Target
from immured.identity.proposals import Approval, Proposal, Proposals
from immured.identity.sessions import Session, Sessions
from immured.ledger import entry_types
from immured.wire.keys import PrivateKey
from immured.wire.messages import Command

NOW = 1_800_000_000_000
HOUR = 3_600_000


def policy(more: str = "") -> Policy:
    head = """
schema = 1
[roles.admin]
[roles.low]
[roles.judge]
[tenants.acme]
[[rules]]
name = "admins"
roles = ["admin"]
allow = ["run", "policy.set", "status"]
scope = "host"
[[rules]]
name = "lows"
roles = ["low"]
allow = ["status"]
scope = "tenant"
"""
    return parse_policy((head + more).encode())


CONTROL = """
[[controls]]
name = "two"
permissions = ["run"]
approvals = {approvals}
approvers = ["judge", "admin"]
window = "8h"
"""


def record(name: str, role: str = "low", **changes: Any) -> KeyRecord:
    return KeyRecord(PrivateKey.generate().public, name, role, "2026-01-02T03:04:05Z", **changes)


def actor(key: KeyRecord, **names: Any) -> Actor:
    return Actor(key, Caller(0), key.role, **names)


def command(cmd: str = "run", args: Mapping[str, object] | None = None) -> Command:
    return Command("d", cmd, args or {}, bytes(16), NOW, NOW + 1)


def grant(key: KeyRecord, **changes: Any) -> Grant:
    made = Grant("g1", key.id, "run", "default", None, None, NOW + HOUR, ("i",), "r")
    return replace(made, **changes)


def here(**changes: Any) -> Target:
    return replace(Target("default", "default", ("somebody",)), **changes)


def code(refused: pytest.ExceptionInfo[Refused]) -> str:
    return refused.value.code


# -- grants


def test_a_grant_is_taken_given_back_and_used_up() -> None:
    low = record("low")
    authority = Authority(Keyring([low]), policy())
    authority.grants.add(grant(low))
    for acted, left in ((False, 1), (True, 0)):
        warrant = authority.admit(actor(low), command(), NOW)
        warrant.check(here())
        assert warrant.to_map() == {"grant": "g1"}
        with pytest.raises(Refused):
            authority.admit(actor(low), command(), NOW)
        authority.conclude(warrant, acted)
        assert len(authority.grants) == left


@pytest.mark.parametrize(
    ("changes", "names", "target"),
    [
        ({"tenant": "acme"}, {}, {}),
        ({"project": "web"}, {}, {}),
        ({"cmd": "kill"}, {}, {}),
        ({"digest": bytes(32)}, {}, {}),
        ({"expires_ms": NOW}, {}, {}),
        ({}, {}, {"tenant": "acme"}),
        ({"project": "default"}, {}, {"project": "web"}),
    ],
)
def test_a_grant_for_something_else_is_none(
    changes: dict[str, Any], names: dict[str, Any], target: dict[str, Any]
) -> None:
    low = record("low")
    authority = Authority(Keyring([low]), policy())
    authority.grants.add(grant(low, **changes))
    with pytest.raises(Refused) as refused:
        authority.admit(actor(low, **names), command(), NOW).check(here(**target))
    assert code(refused) == "denied"


def test_of_two_grants_the_narrower_is_used() -> None:
    low = record("low")
    held = Grants()
    digest = command_digest("run", "default", "default", {})
    for one in (
        grant(low, id="wide"),
        grant(low, id="project", project="default"),
        grant(low, id="exact", digest=digest),
    ):
        held.add(one)
    found = [held.reserve(low.id, "run", "default", "default", lambda: digest, NOW) for _ in range(4)]
    assert [one and one.id for one in found] == ["exact", "project", "wide", None]


def test_a_grant_in_a_tenant_that_is_not_the_keys_own() -> None:
    low = record("low")
    authority = Authority(Keyring([low]), policy())
    said = []
    for tenant in ("acme", "gone"):
        with pytest.raises(Refused) as refused:
            authority.admit(actor(low, tenant=tenant), command(), NOW)
        said.append(str(refused.value).replace(tenant, "T"))
    assert said[0] == said[1]
    authority.grants.add(grant(low, tenant="acme"))
    authority.admit(actor(low, tenant="acme"), command(), NOW).check(here(tenant="acme"))


def test_a_grant_of_what_acts_on_the_host() -> None:
    low = record("low")
    authority = Authority(Keyring([low]), policy())
    authority.grants.add(grant(low, cmd="policy.set"))
    authority.admit(actor(low), command("policy.set"), NOW).check_command()


# -- controls


def proposed(authority: Authority, by: KeyRecord, *approvals: KeyRecord, **changes: Any) -> Proposal:
    made = Proposal(
        id="p1",
        cmd="run",
        tenant="default",
        project="default",
        digest=command_digest("run", "default", "default", {}),
        proposer=by.id,
        owners=(by.id,),
        reason="r",
        created_ms=NOW - HOUR,
        expires_ms=NOW + HOUR,
    )
    made = replace(made, **changes)
    authority.proposals.add(made)
    for one in approvals:
        authority.proposals.approve(made.id, Approval(one.id, one.role, NOW))
    return made


def allowed(authority: Authority, who: KeyRecord, args: Mapping[str, object] | None = None) -> str:
    warrant = authority.admit(actor(who), command("run", args), NOW)
    try:
        warrant.check(here())
    except Refused as refused:
        return refused.code
    finally:
        authority.conclude(warrant, False)
    return ""


@pytest.mark.parametrize(
    ("approvals", "who", "expected"),
    [
        (1, [], "approval_required"),
        (1, ["judge"], ""),
        (1, ["admin"], "approval_required"),  # who proposed it
        (1, ["other-admin"], ""),
        (1, ["low"], "approval_required"),
        (1, ["suspended"], "approval_required"),
        (1, ["expired"], "approval_required"),
        (1, ["unknown"], "approval_required"),
        (2, ["judge"], "approval_required"),
        (2, ["judge", "low"], "approval_required"),
        (2, ["judge", "other-admin"], ""),
        (2, ["judge", "judge-before"], "approval_required"),  # one line of keys
    ],
)
def test_whose_approvals_count(approvals: int, who: list[str], expected: str) -> None:
    before = record("judge", "judge", expires_ms=NOW + HOUR)
    judge = record("judge", "judge", predecessors=(before.id,))
    before = replace(before, successor=judge.id)
    keys = {
        "judge": judge,
        "judge-before": before,
        "admin": record("admin", "admin"),
        "other-admin": record("other", "admin"),
        "low": record("low"),
        "suspended": record("s", "judge", status=KeyStatus.SUSPENDED),
        "expired": record("e", "judge", expires_ms=NOW),
    }
    authority = Authority(Keyring(keys.values()), policy(CONTROL.format(approvals=approvals)))
    keys["unknown"] = record("u", "judge")
    proposed(authority, keys["admin"], *(keys[name] for name in who))
    assert allowed(authority, keys["admin"]) == expected


@pytest.mark.parametrize(
    ("approvals", "who", "giver", "expected"),
    [
        (1, ["admin"], "admin", "approval_required"),
        (1, ["admin"], "other-admin", ""),
        (1, ["admin", "judge"], "admin", ""),
        (2, ["admin", "judge"], "admin", "approval_required"),
        (2, ["admin", "judge", "other-admin"], "admin", ""),
        (1, ["admin-before"], "admin", "approval_required"),  # one line of keys
        (1, ["admin"], "admin-before", "approval_required"),
    ],
)
def test_what_the_giver_approved_does_not_count(approvals: int, who: list[str], giver: str, expected: str) -> None:
    before = record("admin", "admin", expires_ms=NOW + HOUR)
    admin = record("admin", "admin", predecessors=(before.id,))
    low = record("low")
    keys = {
        "admin": admin,
        "admin-before": replace(before, successor=admin.id),
        "other-admin": record("other", "admin"),
        "judge": record("judge", "judge"),
    }
    authority = Authority(Keyring([*keys.values(), low]), policy(CONTROL.format(approvals=approvals)))
    proposed(authority, low, *(keys[name] for name in who))
    assert allowed(authority, keys[giver]) == expected


def test_a_refusal_says_that_another_must_give_it() -> None:
    admin, low = record("admin", "admin"), record("low")
    authority = Authority(Keyring([admin, low]), policy(CONTROL.format(approvals=1)))
    for who, remedy in ((admin, "have another key give it, or approve it"), (low, "propose it")):
        proposed(authority, low, who)
        with pytest.raises(Refused) as refused:
            authority.admit(actor(admin), command(), NOW).check(here())
        assert remedy in refused.value.remedy
        assert refused.value.details["approvals"] == 0
        authority.proposals.remove("p1")


def test_what_he_approved_who_granted_it_does_not_count() -> None:
    admin, other, low = record("admin", "admin"), record("other", "admin"), record("low")
    authority = Authority(Keyring([admin, other, low]), policy(CONTROL.format(approvals=1)))
    authority.grants.add(grant(low, issuers=("ed25519:agent", admin.id)))
    proposed(authority, low, admin)
    assert allowed(authority, low) == "approval_required"
    assert allowed(authority, other) == ""  # by his own right
    authority.proposals.approve("p1", Approval(other.id, "admin", NOW))
    assert allowed(authority, low) == ""


def test_an_approval_outlives_the_key_that_its_owner_replaced() -> None:
    before = record("judge", "judge", expires_ms=NOW - 1)
    judge = record("judge", "judge", predecessors=(before.id,))
    admin = record("admin", "admin")
    ring = Keyring([admin, judge, replace(before, successor=judge.id)])
    authority = Authority(ring, policy(CONTROL.format(approvals=1)))
    proposed(authority, admin, before)
    assert allowed(authority, admin) == ""
    authority.keyring = ring.with_change(replace(judge, status=KeyStatus.REVOKED), as_of=1)
    assert allowed(authority, admin) == "approval_required"


@pytest.mark.parametrize(
    ("changes", "args"),
    [
        ({"expires_ms": NOW}, {}),
        ({"created_ms": NOW - 8 * HOUR}, {}),
        ({}, {"argv": ["/bin/true"]}),
        ({"digest": command_digest("run", "acme", "default", {})}, {}),
    ],
)
def test_a_proposal_of_something_else_is_none(changes: dict[str, Any], args: dict[str, object]) -> None:
    admin, judge = record("admin", "admin"), record("judge", "judge")
    authority = Authority(Keyring([admin, judge]), policy(CONTROL.format(approvals=1)))
    proposed(authority, admin, judge, **changes)
    assert allowed(authority, admin, args) == "approval_required"


def test_a_control_of_a_class_is_asked_once_the_class_is_known() -> None:
    admin, judge = record("admin", "admin"), record("judge", "judge")
    classes = CONTROL.format(approvals=1) + 'classes = ["open"]\n'
    authority = Authority(Keyring([admin, judge]), policy(classes))
    warrant = authority.admit(actor(admin), command(), NOW)
    warrant.check(here(manifest_class="default"))
    with pytest.raises(Refused) as refused:
        warrant.check(here(manifest_class="open"))
    assert code(refused) == "approval_required"
    proposed(authority, admin, judge)
    warrant.check(here(manifest_class="open"))
    warrant.check(here(manifest_class="open"))
    assert warrant.to_map() == {"proposal": "p1"}
    again = authority.admit(actor(admin), command(), NOW)
    with pytest.raises(Refused):
        again.check(here(manifest_class="open"))
    authority.conclude(warrant, True)
    assert len(authority.proposals) == 0


def test_two_controls_are_fulfilled_by_one_proposal() -> None:
    admin, judge, other = record("admin", "admin"), record("judge", "judge"), record("other", "admin")
    both = CONTROL.format(approvals=1) + CONTROL.format(approvals=2).replace('"two"', '"three"')
    authority = Authority(Keyring([admin, judge, other]), policy(both))
    proposed(authority, admin, judge)
    assert allowed(authority, admin) == "approval_required"
    assert authority.proposals.get("p1") is not None
    authority.proposals.approve("p1", Approval(other.id, "admin", NOW))
    assert allowed(authority, admin) == ""


# -- bounds


def test_grants_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants_module, "MAX_GRANTS", 2)
    held, low = Grants(), record("low")
    for number in range(2):
        held.check_room(NOW)
        held.add(grant(low, id=str(number), expires_ms=NOW + number + 1))
    with pytest.raises(Refused) as refused:
        held.check_room(NOW)
    assert code(refused) == "over_quota"
    held.check_room(NOW + 1)


def test_proposals_are_bounded_for_each_key_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals_module, "MAX_OPEN_PER_KEY", 2)
    monkeypatch.setattr(proposals_module, "MAX_OPEN", 3)
    admin, low = record("admin", "admin"), record("low")
    authority = Authority(Keyring([admin, low]), policy())
    for number, by in enumerate((admin, admin, low)):
        authority.proposals.check_room(by.id, NOW)
        proposed(authority, by, id=str(number))
    for by in (admin, low):
        with pytest.raises(Refused) as refused:
            authority.proposals.check_room(by.id, NOW)
        assert code(refused) == "over_quota"
    assert set(authority.forget(NOW + HOUR)) == {"0", "1", "2"}
    authority.proposals.check_room(low.id, NOW)


def test_sessions_are_bounded_for_each_key_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "MAX_SESSIONS_PER_KEY", 2)
    monkeypatch.setattr(sessions_module, "MAX_SESSIONS", 3)
    held = Sessions()
    for number, by in enumerate("aab"):
        held.check_room(by, NOW)
        held.add(session(str(number), by))
    for by in "ab":
        with pytest.raises(Refused) as refused:
            held.check_room(by, NOW)
        assert code(refused) == "over_quota"
    held.close("0", NOW)
    for by in "ab":  # one that is over is remembered for a day
        with pytest.raises(Refused):
            held.check_room(by, NOW + 2000)
    held.check_room("b", NOW + 25 * HOUR)
    assert held.get("0") is None


def session(name: str, by: str = "a") -> Session:
    return Session(name, (by,), "default", "default", NOW, NOW + 10 * HOUR, HOUR, NOW)


@pytest.mark.parametrize(("idle", "ttl", "over"), [(HOUR, 10 * HOUR, HOUR), (10 * HOUR, HOUR, HOUR)])
def test_a_session_is_over_by_whichever_comes_first(idle: int, ttl: int, over: int) -> None:
    one = replace(session("s"), idle_ms=idle, expires_ms=NOW + ttl)
    held = Sessions()
    held.add(one)
    held.use("s", ("a",), "default", NOW + over - 1)
    held.add(replace(one, used_ms=NOW))
    with pytest.raises(Refused) as refused:
        held.use("s", ("a",), "default", NOW + over)
    assert code(refused) == "session_expired"


def test_a_clock_that_steps_back_makes_no_session_older() -> None:
    held = Sessions()
    held.add(session("s"))
    held.use("s", ("a",), "default", NOW + 1000)
    held.use("s", ("a",), "default", NOW - 1000)
    found = held.get("s")
    assert found is not None
    assert found.used_ms == NOW + 1000


# -- what entries change


def test_what_was_taken_out_of_the_file_stays_out() -> None:
    low, heir = record("low"), record("low")
    authority = Authority(Keyring([], as_of=-1), policy())
    authority.apply(entry_types.KEY_CHANGED, {"record": low.to_map()}, 3)
    authority.apply(entry_types.KEY_ROTATED, {"record": heir.to_map(), "old": low.to_map()}, 4)
    assert (len(authority.keyring), authority.keyring.as_of) == (0, 4)


def test_what_the_file_holds_already_changes_nothing() -> None:
    low = record("low")
    authority = Authority(Keyring([low], as_of=5), policy())
    suspended = replace(low, status=KeyStatus.SUSPENDED)
    authority.apply(entry_types.KEY_CHANGED, {"record": suspended.to_map()}, 5)
    assert authority.find(low.id) == low
    authority.apply(entry_types.KEY_CHANGED, {"record": suspended.to_map()}, 6)
    assert authority.find(low.id) == suspended


@pytest.mark.parametrize(
    "kind",
    [
        *(entry_types.KEY_ADDED, entry_types.KEY_CHANGED, entry_types.KEY_ROTATED, entry_types.KEY_BARRED),
        *(entry_types.GRANT_ISSUED, entry_types.GRANT_REVOKED),
        *(entry_types.PROPOSAL_CREATED, entry_types.PROPOSAL_APPROVED, entry_types.PROPOSAL_WITHDRAWN),
        *(entry_types.SESSION_OPENED, entry_types.SESSION_CLOSED),
    ],
)
@pytest.mark.parametrize(
    "data", [{}, {"record": {}}, {"record": {"of": "json", "sha256": "00"}, "key": 4, "revoked": 4}]
)
def test_an_entry_that_no_daemon_wrote_is_not_taken(kind: str, data: Mapping[str, object]) -> None:
    authority = Authority(Keyring([]), policy())
    with pytest.raises(ValueError, match="`"):
        authority.apply(kind, data, 1)


def test_other_entries_are_passed_over() -> None:
    Authority(Keyring([]), policy()).apply("lease.granted", {"record": 4}, 1)


@pytest.mark.parametrize(
    ("made", "again"),
    [
        (grant(record("k"), project="web", digest=bytes(range(32))), Grant.from_map),
        (session("s"), Session.from_map),
        (replace(session("s"), note="n", sub="carol"), Session.from_map),
        (Approval("k", "judge", NOW), Approval.from_map),
    ],
)
def test_what_is_written_is_read_again(made: Any, again: Any) -> None:
    assert again(made.to_map()) == made


def test_a_proposal_is_read_again_without_its_approvals() -> None:
    held = Proposals()
    authority = Authority(Keyring([]), policy())
    made = proposed(authority, record("a"), record("b"))
    assert Proposal.from_map(made.to_map()) == made
    assert len(held) == 0
