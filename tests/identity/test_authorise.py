"""Who may do what: the table of roles, and what a peer's uid and names narrow."""

from __future__ import annotations

import pytest

from immured.errors import Refused
from immured.identity.authorise import Actor, Permission, bind, may, require
from immured.identity.keyring import KeyRecord, Role
from immured.wire.keys import PrivateKey


def key(role: Role = Role.RUNNER, **bindings: frozenset[int] | frozenset[str]) -> KeyRecord:
    return KeyRecord(PrivateKey.generate().public, "k", role, "2026-01-02T03:04:05Z", **bindings)  # type: ignore[arg-type]


def refusal(record: KeyRecord, uid: int = 0, **names: str) -> str:
    with pytest.raises(Refused) as caught:
        bind(record, uid, **names)
    return caught.value.code


@pytest.mark.parametrize("permission", list(Permission))
def test_an_admin_may_do_everything(permission: Permission) -> None:
    assert may(Actor(key(Role.ADMIN), 0), permission)


@pytest.mark.parametrize(
    ("permission", "granted"),
    [
        (Permission.RUN, True),
        (Permission.RUN_INLINE, True),
        (Permission.PLAN, True),
        (Permission.STATUS, True),
        (Permission.KILL_OWN, True),
        (Permission.KILL_ANY, False),
        (Permission.KEY_ADD, False),
        (Permission.KEY_LIST, False),
    ],
)
def test_a_runner_may_run_and_no_more(permission: Permission, granted: bool) -> None:
    assert may(Actor(key(), 1000), permission) is granted


def test_a_denial_names_the_deed() -> None:
    with pytest.raises(Refused, match="may not add keys") as caught:
        require(Actor(key(), 1000), Permission.KEY_ADD, "add keys")
    assert caught.value.code == "denied"


def test_a_bound_key_serves_no_other_user() -> None:
    assert refusal(key(uids=frozenset({1000})), 1001) == "peer_not_bound"


def test_root_is_no_exception_to_a_binding() -> None:
    assert refusal(key(uids=frozenset({1000})), 0) == "peer_not_bound"


def test_a_bound_key_serves_its_user() -> None:
    assert bind(key(uids=frozenset({1000})), 1000).uid == 1000


def test_an_unbound_key_serves_anybody() -> None:
    assert bind(key(), 12345).uid == 12345


def test_a_runner_carries_no_persona_that_was_not_given_to_it() -> None:
    assert refusal(key(), persona="lab") == "denied"


def test_a_runner_carries_no_tenant_that_was_not_given_to_it() -> None:
    assert refusal(key(), tenant="lab") == "denied"


def test_a_runner_carries_the_names_that_it_was_given() -> None:
    actor = bind(key(personas=frozenset({"agent"}), tenants=frozenset({"lab"})), 0, persona="agent", tenant="lab")
    assert (actor.persona, actor.tenant) == ("agent", "lab")


def test_an_admin_carries_any_name() -> None:
    assert bind(key(Role.ADMIN), 0, tenant="lab").tenant == "lab"


@pytest.mark.parametrize("tenant", ["..", ".", "a/b", "A", ""])
def test_a_tenant_is_a_name_that_a_directory_can_have(tenant: str) -> None:
    assert refusal(key(Role.ADMIN), tenant=tenant) == "bad_argument"


def test_a_subject_is_printable() -> None:
    assert refusal(key(), sub="a\x1b[31m") == "bad_argument"


def test_an_entry_names_the_key_the_user_and_what_was_carried() -> None:
    record = key(Role.ADMIN)
    assert bind(record, 7, tenant="lab", sub="job 4").to_map() == {
        "key": record.id, "name": "k", "uid": 7, "tenant": "lab", "sub": "job 4"
    }  # fmt: skip
