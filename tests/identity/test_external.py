"""Whoever somebody else vouches for: which key is his here, and how soon it ends."""

from __future__ import annotations

from typing import Any

import pytest

from immured.errors import Refused
from immured.identity.actor import Caller, bind
from immured.identity.external import Vouched, local_key
from immured.identity.keyring import KeyRecord
from immured.identity.policy.decide import Decider
from immured.identity.policy.parse import parse_policy
from immured.service.policies import shipped_policy
from immured.wire.keys import PrivateKey

NOW = 1_800_000_000_000
HOUR = 3_600_000
ISSUER = "https://login.example.com"
POLICY = parse_policy(
    shipped_policy().text
    + f"""
[tenants.acme]
[tenants.rival]
[[external]]
issuer = "{ISSUER}"
claim = "groups"
value = "acme-developers"
role = "platform-engineer"
tenant = "acme"
longest = "8h"
[[external]]
issuer = "{ISSUER}"
claim = "groups"
value = "rival-guests"
role = "viewer"
tenant = "rival"
longest = "1h"
[[external]]
issuer = "{ISSUER}"
claim = "email"
value = "boss@example.com"
role = "tenant-admin"
tenant = "acme"
longest = "1h"
""".encode()
)
PUBLIC = PrivateKey.generate().public


def vouched(**claims: Any) -> Vouched:
    return Vouched(ISSUER, "user-7", claims, NOW + 2 * HOUR)


def key(who: Vouched, tenant: str | None = None) -> KeyRecord:
    return local_key(POLICY, who, PUBLIC, NOW, tenant=tenant)


def refused(who: Vouched, tenant: str | None = None) -> str:
    with pytest.raises(Refused) as caught:
        key(who, tenant)
    assert caught.value.code == "denied"
    return caught.value.message


def test_a_claim_that_the_policy_knows_is_a_role_in_a_tenant() -> None:
    record = key(vouched(groups=["people", "acme-developers"]))
    assert (record.role, record.tenants) == ("platform-engineer", frozenset({"acme"}))
    assert record.subjects == {f"{ISSUER}#user-7"}


def test_the_key_ends_when_the_token_does() -> None:
    assert key(vouched(groups="acme-developers")).expires_ms == NOW + 2 * HOUR


def test_the_key_ends_when_the_policy_says_so() -> None:
    assert key(vouched(groups="rival-guests")).expires_ms == NOW + HOUR


def test_what_has_expired_vouches_for_nobody() -> None:
    assert "no longer" in refused(Vouched(ISSUER, "user-7", {"groups": "acme-developers"}, NOW))


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"groups": []},
        {"groups": ["acme-developers-2"]},
        {"groups": "acme"},
        {"groups": {"acme-developers": True}},
        {"groups": None},
        {"groups": [["acme-developers"]]},
        {"roles": ["acme-developers"]},
    ],
)
def test_a_claim_that_is_not_that_very_one_is_nothing(claims: dict[str, Any]) -> None:
    assert "no claim" in refused(vouched(**claims))


def test_what_one_issuer_says_is_not_what_another_says() -> None:
    other = Vouched(ISSUER + ".evil.example", "user-7", {"groups": "acme-developers"}, NOW + HOUR)
    assert "no claim" in refused(other)


def test_who_could_be_in_several_tenants_says_in_which() -> None:
    both = vouched(groups=["acme-developers", "rival-guests"])
    assert "viewer in rival" in refused(both)
    assert key(both, "rival").role == "viewer"
    assert "no claim" in refused(both, "default")


def test_nobody_is_given_the_greater_of_two_roles_by_chance() -> None:
    two = vouched(groups="acme-developers", email="boss@example.com")
    assert "tenant-admin in acme" in refused(two, "acme")


def test_the_key_is_used_as_any_other_until_it_ends() -> None:
    record, decider = key(vouched(groups="acme-developers")), Decider(POLICY)
    assert record.expires_ms is not None
    actor = bind(record, Caller(1000), decider, NOW, sub=f"{ISSUER}#user-7")
    assert decider.warrant(actor, "run", NOW).covers(decider.warrant(actor, "run", NOW).place())
    with pytest.raises(Refused, match="key_expired"):
        bind(record, Caller(1000), decider, record.expires_ms)


def test_a_stranger_s_text_is_a_note_for_people_and_a_record_that_can_be_kept() -> None:
    odd = Vouched(ISSUER, "x" * 300 + "\x1b[31m\n", {"groups": "acme-developers"}, NOW + HOUR)
    record = key(odd)
    assert record.note.isprintable()
    assert record.subjects == {"sha256:" + odd.digest}
    assert KeyRecord.from_map(record.to_map()) == record
    again = local_key(POLICY, odd, PrivateKey.generate().public, NOW)
    assert again.name != record.name
