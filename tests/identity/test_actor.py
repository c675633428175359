"""May this peer present that key, under these names, now? And what an entry says of who gave a command."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from immured.errors import Refused
from immured.identity.actor import Actor, Caller, bind
from immured.identity.authority import Authority
from immured.identity.keyring import KeyRecord, Keyring, KeyStatus
from immured.identity.policy.decide import Decider
from immured.identity.policy.parse import parse_policy
from immured.identity.policy.warrant import Narrowing, Target
from immured.service.policies import shipped_policy
from immured.wire.keys import PrivateKey

NOW = 1_800_000_000_000
NAMES = Decider(parse_policy(shipped_policy().text + b'[tenants.lab]\nprojects = ["web"]\n'))

RUNS = Narrowing(frozenset({"run"}))


def key(role: str = "runner", **fields: Any) -> KeyRecord:
    return KeyRecord(PrivateKey.generate().public, "k", role, "2026-01-02T03:04:05Z", **fields)


def bound(record: KeyRecord, caller: Caller | int = 0, **names: Any) -> Actor:
    return bind(record, Caller(caller) if isinstance(caller, int) else caller, NAMES, NOW, **names)


def refusal(record: KeyRecord, caller: Caller | int = 0, **names: Any) -> str:
    with pytest.raises(Refused) as caught:
        bound(record, caller, **names)
    return caught.value.code


def test_a_bound_key_serves_no_other_user() -> None:
    assert refusal(key(uids=frozenset({1000})), 1001) == "peer_not_bound"


def test_root_is_no_exception_to_a_binding() -> None:
    assert refusal(key(uids=frozenset({1000})), 0) == "peer_not_bound"


def test_a_bound_key_serves_its_user() -> None:
    assert bound(key(uids=frozenset({1000})), 1000).uid == 1000


def test_an_unbound_key_serves_anybody() -> None:
    assert bound(key(), 12345).uid == 12345


@pytest.mark.parametrize(
    ("caller", "served"),
    [
        (Caller(1000, gid=7), True),
        (Caller(1000, gid=8, groups=(6, 7)), True),
        (Caller(1000, gid=8, groups=(6,)), False),
        (Caller(0, gid=0), False),
        (Caller(7), False),
    ],
)
def test_a_key_that_is_bound_to_a_group_serves_its_members(caller: Caller, served: bool) -> None:
    record = key(gids=frozenset({7}))
    if served:
        assert bound(record, caller).caller is caller
    else:
        assert refusal(record, caller) == "peer_not_bound"


def test_both_bindings_have_to_hold() -> None:
    record = key(uids=frozenset({1000}), gids=frozenset({7}))
    assert refusal(record, Caller(1000, gid=8)) == "peer_not_bound"
    assert refusal(record, Caller(1001, gid=7)) == "peer_not_bound"
    assert bound(record, Caller(1000, gid=7)).uid == 1000


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"status": KeyStatus.SUSPENDED}, "key_suspended"),
        ({"status": KeyStatus.REVOKED}, "key_revoked"),
        ({"expires_ms": NOW}, "key_expired"),
        ({"not_before_ms": NOW + 1}, "key_not_yet_valid"),
    ],
)
def test_a_key_that_does_not_serve_now_is_told_why(fields: dict[str, Any], code: str) -> None:
    assert refusal(key(**fields)) == code
    # Who may not present the key at all learns nothing of its standing from other words: the key spoke first.
    assert refusal(key(uids=frozenset({1000}), **fields), 1) == code


def test_a_key_serves_up_to_its_last_moment() -> None:
    assert bound(key(not_before_ms=NOW, expires_ms=NOW + 1)).role == "runner"


# -- personas


def test_a_persona_that_is_an_included_role_has_that_roles_rights_alone() -> None:
    actor = bound(key("sre"), persona="viewer")
    assert (actor.role, actor.persona) == ("viewer", "viewer")


@pytest.mark.parametrize("persona", ["admin", "operator", "tenant-admin"])
def test_nobody_takes_a_role_that_is_not_his(persona: str) -> None:
    assert refusal(key("runner"), persona=persona) == "denied"


def test_a_role_among_a_keys_personas_is_his_to_take() -> None:
    assert bound(key("viewer", personas=frozenset({"worker"})), persona="worker").role == "worker"


def test_an_admin_takes_no_role_that_he_is_not_given() -> None:
    assert refusal(key("admin"), persona="worker") == "denied"


def test_a_persona_that_is_no_role_is_a_label() -> None:
    actor = bound(key(personas=frozenset({"reviewer"})), persona="reviewer")
    assert (actor.role, actor.persona) == ("runner", "reviewer")


def test_a_runner_carries_no_label_that_was_not_given_to_it() -> None:
    assert refusal(key(), persona="reviewer") == "denied"


def test_an_admin_carries_any_label() -> None:
    assert bound(key("admin"), persona="reviewer").role == "admin"


# -- tenants and projects


def test_a_key_without_a_tenant_is_in_the_default_one() -> None:
    assert (bound(key()).tenant, bound(key()).project) == ("default", "default")


def test_a_key_of_one_tenant_means_that_one() -> None:
    actor = bound(key(tenants=frozenset({"acme"}), projects=frozenset({"web"})))
    assert (actor.tenant, actor.project) == ("acme", "web")


def test_a_key_of_the_default_tenant_among_others_means_the_default_one() -> None:
    assert bound(key(tenants=frozenset({"acme", "default"}))).tenant == "default"


@pytest.mark.parametrize("what", ["tenants", "projects"])
def test_a_key_of_several_has_to_say_which(what: str) -> None:
    with pytest.raises(Refused) as caught:
        bound(key("runner", **{what: frozenset({"a", "b"})}))
    assert caught.value.code == "denied"
    assert caught.value.remedy.endswith("a, b")


@pytest.mark.parametrize("name", ["..", ".", "a/b", "A", ""])
@pytest.mark.parametrize("what", ["tenant", "project", "persona"])
def test_what_is_carried_is_a_name_that_a_directory_can_have(what: str, name: str) -> None:
    assert refusal(key("admin"), 0, **{what: name}) == "bad_argument"


# -- on whose behalf


def test_a_runner_speaks_for_nobody_that_its_key_does_not_name() -> None:
    assert refusal(key(), sub="user:7") == "denied"


def test_a_key_speaks_for_its_subjects() -> None:
    assert bound(key(subjects=frozenset({"user:7"})), sub="user:7").sub == "user:7"


def test_who_has_the_right_speaks_for_anybody() -> None:
    assert bound(key("admin"), sub="job 4").sub == "job 4"


def test_the_right_to_speak_goes_with_the_role_that_is_taken() -> None:
    assert refusal(key("admin", personas=frozenset({"viewer"})), persona="viewer", sub="job 4") == "denied"


@pytest.mark.parametrize("sub", ["a\x1b[31m", "x" * 257])
def test_a_subject_is_printable_and_short(sub: str) -> None:
    assert refusal(key("admin"), sub=sub) == "bad_argument"


@pytest.mark.parametrize("session", ["a b\n", "x" * 65, "é"])
def test_a_session_is_an_id(session: str) -> None:
    assert refusal(key(), session=session) == "bad_argument"


# -- whose it is what is made


@dataclass(frozen=True)
class Link:
    issuer: str
    digest: str = "sha256:00"
    narrowing: Narrowing = RUNS


def test_what_a_certified_key_makes_is_its_own_and_its_issuers() -> None:
    root = key()
    agent = KeyRecord(PrivateKey.generate().public, "k/agent", root.role, root.added)
    actor = bound(agent, chain=(Link(root.id), Link("ed25519:middle")), anchor=root)
    assert actor.owners == (agent.id, "ed25519:middle", root.id)
    assert actor.root is root
    made = Target("default", "default", actor.owners)
    assert actor.owns(made)
    assert bound(root).owns(made)


def test_what_an_issuer_makes_is_not_its_agents() -> None:
    root = key()
    agent = KeyRecord(PrivateKey.generate().public, "k/agent", root.role, root.added)
    actor = bound(agent, chain=(Link(root.id),), anchor=root)
    assert not actor.owns(Target("default", "default", bound(root).owners))


def test_a_successor_owns_what_its_predecessors_made() -> None:
    old = key()
    new = key(predecessors=(old.id, "ed25519:older"))
    assert bound(new).owns(Target("default", "default", (old.id,)))
    assert bound(new).owns(Target("default", "default", ("ed25519:older",)))
    assert not bound(old).owns(Target("default", "default", bound(new).owners))


def test_nothing_in_another_tenant_is_ones_own() -> None:
    record = key("admin")
    assert not bound(record).owns(Target("acme", "default", bound(record).owners))


# -- what is begun, when its key is stopped


def test_what_hangs_on_a_stopped_key_is_stopped() -> None:
    root, other = key(), key(tenants=frozenset())
    agent = KeyRecord(PrivateKey.generate().public, "k/agent", root.role, root.added)
    middle = PrivateKey.generate().public.id
    authority = Authority(Keyring([root, replace(other, name="other")]), NAMES.policy)
    its_own = bound(root)
    delegated = bound(agent, chain=(Link(root.id), Link(middle)), anchor=root)
    assert not authority.stopped(its_own)
    assert not authority.stopped(delegated)
    for barred in (middle, agent.id):
        authority.barred = {barred}
        assert authority.stopped(delegated)
        authority.barred = set()
        authority.barred_under = {root.id: {barred}}
        assert authority.stopped(delegated)
        authority.barred_under = {other.id: {barred}}
        assert not authority.stopped(delegated)
    assert not authority.stopped(its_own)
    for status in (KeyStatus.SUSPENDED, KeyStatus.REVOKED):
        authority.keyring = Keyring([replace(root, status=status)])
        assert authority.stopped(its_own)
        assert authority.stopped(delegated)
    authority.keyring = Keyring([replace(root, expires_ms=1)])
    assert not authority.stopped(its_own)


# -- for the ledger


def test_an_entry_names_the_key_the_process_and_what_was_carried() -> None:
    record = key("admin")
    caller = Caller(7, gid=8, pid=9, groups=(8, 10), exe="/usr/bin/immure")
    actor = bound(record, caller, persona="night", tenant="lab", project="web", sub="job 4", session="n1")
    assert actor.to_map() == {
        "key": record.id, "name": "k", "uid": 7, "gid": 8, "pid": 9, "exe": "/usr/bin/immure", "role": "admin",
        "persona": "night", "tenant": "lab", "project": "web", "sub": "job 4", "session": "n1",
    }  # fmt: skip


def test_an_entry_says_nothing_of_what_is_not_known_or_the_default() -> None:
    record = key()
    assert bound(record, 7).to_map() == {"key": record.id, "name": "k", "uid": 7, "role": "runner"}


def test_an_entry_names_the_certificates_by_their_digests() -> None:
    root = key()
    agent = KeyRecord(PrivateKey.generate().public, "k/agent", root.role, root.added)
    shown = bound(agent, chain=(Link(root.id, "sha256:aa"),), anchor=root).to_map()
    assert shown["chain"] == ["sha256:aa"]
