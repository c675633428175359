"""Chains: who may certify whom, for how long, how deep, how often; and that nothing is ever widened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.errors import Refused
from immured.identity.certificates import MAX_COUNTED, MAX_PRESENTED, Chain, Presented, Uses
from immured.identity.keyring import KeyRecord, Role
from immured.wire.certificate import issue
from immured.wire.envelope import decode_envelope, encode_envelope, seal
from immured.wire.keys import PrivateKey

NOW = 1_790_000_000_000
HOUR = 3_600_000
ALICE, AGENT, BELOW, DEEP, DEEPEST, LAST = (PrivateKey(bytes([byte]) * 32) for byte in range(1, 7))
ROOT = KeyRecord(
    ALICE.public, "alice", Role.RUNNER, "2026-11-22T00:00:00Z", uids=frozenset({1000}), predecessors=(LAST.id,)
)
KEYRING = {ALICE.id: ROOT}
DAEMON = "ed25519:" + "d" * 32


def certify(issuer: PrivateKey, subject: PrivateKey, name: str = "agent", **more: Any) -> bytes:
    options: dict[str, Any] = {"now_ms": NOW, "life_ms": HOUR, "permissions": ["run"]} | more
    return issue(issuer, subject.public, name, **options)


def present(bodies: Sequence[bytes], *, now: int = NOW, to: Presented | None = None, **more: Any) -> Chain:
    """What comes of presenting these in a row, of the last."""
    presented = Presented() if to is None else to
    chains = [presented.add(decode_envelope(body), KEYRING.get, now, [DAEMON, "fleet"], **more) for body in bodies]
    return chains[-1]


def refused(bodies: Sequence[bytes], **more: Any) -> str:
    with pytest.raises(Refused) as error:
        present(bodies, **more)
    return error.value.code


def test_a_key_acts_by_its_certificate() -> None:
    presented = Presented()
    chain = present([certify(ALICE, AGENT)], to=presented)
    assert presented.public_key(AGENT.id) == AGENT.public
    assert presented.chain(AGENT.id) == chain
    assert (chain.root, [link.issuer for link in chain.links]) == (ALICE.id, [ALICE.id])


def test_its_record_is_its_issuers_under_a_name_that_no_keyring_has() -> None:
    record = present([certify(ALICE, AGENT, depth=1), certify(AGENT, BELOW, "below")]).record(ROOT)
    assert (record.id, record.name, record.role) == (BELOW.id, "alice/agent/below", Role.RUNNER)
    assert record.predecessors == ()
    assert record.uids == {1000}, "else a stolen key that is bound to a user would certify one that is not"


@pytest.mark.parametrize(
    ("root", "links", "left"),
    [
        ({"a", "b"}, [{"a"}], {"a"}),
        ({"a", "b"}, [{"a", "b"}, {"b"}], {"b"}),
        ({"a", "b"}, [{"c"}], {"a", "b"}),
        (set(), [{"a"}], set()),
        ({"a"}, [set()], {"a"}),
    ],
)
def test_its_tenants_are_never_more_than_its_issuers(root: set[str], links: list[set[str]], left: set[str]) -> None:
    """What the links name and the root lacks is denied by the narrowing; the record only picks who is meant."""
    keys = [ALICE, AGENT, BELOW]
    bodies = [
        certify(keys[at], keys[at + 1], depth=len(links) - 1 - at, tenants=tenants) for at, tenants in enumerate(links)
    ]
    assert present(bodies).record(replace(ROOT, tenants=frozenset(root))).tenants == left


def test_a_stranger_certifies_nobody() -> None:
    assert refused([certify(AGENT, BELOW)]) == "unknown_key"


def test_a_certificate_is_not_known_on_another_connection() -> None:
    present([certify(ALICE, AGENT, depth=1)])
    assert refused([certify(AGENT, BELOW)]) == "unknown_key"


def test_a_damaged_one_is_refused_before_it_is_read() -> None:
    envelope = decode_envelope(certify(ALICE, AGENT))
    for payload in (envelope.payload[:-1] + b"\x01", b"\xc1"):
        assert refused([encode_envelope(envelope.type, payload, envelope.signatures)]) == "bad_signature"


def test_it_has_one_signature() -> None:
    envelope = decode_envelope(certify(ALICE, AGENT))
    assert refused([seal(envelope.type, envelope.payload, [ALICE, AGENT])]) == "bad_certificate"
    assert refused([encode_envelope(envelope.type, envelope.payload)]) == "unsigned"


def test_a_chain_is_as_deep_as_each_of_its_links_lets_it() -> None:
    keys = [ALICE, AGENT, BELOW, DEEP, DEEPEST, LAST]
    whole = [certify(keys[at], keys[at + 1], depth=3) for at in range(5)]
    assert present(whole[:4]).root == ALICE.id
    assert refused(whole) == "bad_certificate", "four links are the most, whatever they say"
    assert refused([certify(ALICE, AGENT), certify(AGENT, BELOW)]) == "bad_certificate"
    grudging = [certify(ALICE, AGENT, depth=1), certify(AGENT, BELOW, depth=3), certify(BELOW, DEEP)]
    assert refused(grudging) == "bad_certificate"


def test_nobody_certifies_themselves_or_a_key_of_the_keyring() -> None:
    assert refused([certify(ALICE, ALICE)]) == "bad_certificate"
    assert refused([certify(ALICE, AGENT, depth=3), certify(AGENT, AGENT)]) == "bad_certificate"
    around = [certify(ALICE, AGENT, depth=3), certify(AGENT, BELOW, depth=2), certify(BELOW, AGENT)]
    assert refused(around) == "bad_certificate"


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (NOW - 60_001, "certificate_not_yet_valid"),
        (NOW - 60_000, None),
        (NOW + HOUR - 1, None),
        (NOW + HOUR, "certificate_expired"),
    ],
)
def test_it_has_its_time_when_it_is_presented_and_when_it_is_used(now: int, code: str | None) -> None:
    body = certify(ALICE, AGENT)
    chain = present([body])
    if code is None:
        present([body], now=now).check(now)
        chain.check(now)
        return
    assert refused([body], now=now) == code
    with pytest.raises(Refused, match=code):
        chain.check(now)


def test_it_ends_with_the_one_that_it_hangs_on() -> None:
    chain = present([certify(ALICE, AGENT, depth=1, life_ms=1000), certify(AGENT, BELOW)])
    with pytest.raises(Refused, match="certificate_expired"):
        chain.check(NOW + 1000)


def test_a_barred_key_acts_no_more_nor_does_one_below_it() -> None:
    bodies = [certify(ALICE, AGENT, depth=1), certify(AGENT, BELOW)]
    chain = present(bodies)
    for barred in (AGENT.id, BELOW.id):
        with pytest.raises(Refused, match="key_revoked"):
            chain.check(NOW, {barred})
        assert refused(bodies, barred={barred}) == "key_revoked"
    chain.check(NOW, {DEEP.id})


def test_it_may_be_for_named_daemons_alone() -> None:
    present([certify(ALICE, AGENT, aud=[DAEMON])])
    present([certify(ALICE, AGENT, aud=["other", "fleet"])])
    assert refused([certify(ALICE, AGENT, aud=["other"])]) == "wrong_audience"


def test_on_whose_behalf_is_inherited_and_cannot_be_changed() -> None:
    chain = present([certify(ALICE, AGENT, depth=1, sub="user:7"), certify(AGENT, BELOW)])
    assert chain.behalf(None) == chain.behalf("user:7") == "user:7"
    with pytest.raises(Refused, match="denied"):
        chain.behalf("user:8")
    other = [certify(ALICE, AGENT, depth=1, sub="user:7"), certify(AGENT, BELOW, sub="user:8")]
    assert refused(other) == "bad_certificate"
    assert present([certify(ALICE, AGENT)]).behalf("user:9") == "user:9"


def test_a_renewed_one_takes_the_place_of_the_old() -> None:
    presented = Presented()
    present([certify(ALICE, AGENT)], to=presented)
    present([certify(ALICE, AGENT, life_ms=2 * HOUR)], to=presented)
    chain = presented.chain(AGENT.id)
    assert chain is not None
    chain.check(NOW + HOUR)


def test_a_connection_speaks_for_so_many() -> None:
    presented = Presented()
    subjects = [PrivateKey(number.to_bytes(32, "big")) for number in range(100, 101 + MAX_PRESENTED)]
    present([certify(ALICE, subject) for subject in subjects[:-1]], to=presented)
    assert refused([certify(ALICE, subjects[-1])], to=presented) == "too_many_certificates"
    present([certify(ALICE, subjects[0])], to=presented)


def test_its_record_is_one_and_the_same_until_its_issuer_s_or_its_chain_changes() -> None:
    """What was decided for it is remembered by that."""
    presented = Presented()
    present([certify(ALICE, AGENT, tenants=["a"])], to=presented)
    first = presented.record(AGENT.id, ROOT)
    assert presented.record(AGENT.id, ROOT) is first
    other = replace(ROOT, role="viewer")
    assert presented.record(AGENT.id, other).role == "viewer"
    assert presented.record(AGENT.id, ROOT) == first
    bound = replace(ROOT, tenants=frozenset({"a", "b"}))
    assert presented.record(AGENT.id, bound).tenants == {"a"}
    present([certify(ALICE, AGENT, tenants=["b"])], to=presented)
    assert presented.record(AGENT.id, bound).tenants == {"b"}


# -- counted


def nonce(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_it_is_good_for_so_many_commands_also_after_a_restart() -> None:
    chain, uses = present([certify(ALICE, AGENT, commands=2)]), Uses()
    for number in range(2):
        uses.take(chain, nonce(number), NOW)
        uses.note(chain.root, AGENT.id, nonce(number), chain.counted)
        uses.settle(chain, nonce(number))
    for again in (uses, Uses.from_map(json.loads(json.dumps(uses.to_map())))):
        with pytest.raises(Refused, match="certificate_used_up"):
            again.take(chain, nonce(9), NOW)


def test_what_is_on_its_way_counts_and_what_came_to_nothing_does_not() -> None:
    chain, uses = present([certify(ALICE, AGENT, commands=1)]), Uses()
    uses.take(chain, nonce(0), NOW)
    with pytest.raises(Refused, match="certificate_used_up"):
        uses.take(chain, nonce(1), NOW)
    uses.settle(chain, nonce(0))
    uses.take(chain, nonce(1), NOW)


def test_a_command_in_flight_whose_entry_is_there_counts_once() -> None:
    chain, uses = present([certify(ALICE, AGENT, commands=2)]), Uses()
    uses.take(chain, nonce(0), NOW)
    uses.note(chain.root, AGENT.id, nonce(0), chain.counted)
    uses.take(chain, nonce(1), NOW)


def test_those_below_use_up_what_is_above() -> None:
    presented, uses = Presented(), Uses()
    present([certify(ALICE, AGENT, depth=1, commands=3)], to=presented)
    first = present([certify(AGENT, BELOW, commands=2)], to=presented)
    second = present([certify(AGENT, DEEP, commands=2)], to=presented)
    uses.take(first, nonce(0), NOW)
    uses.take(first, nonce(1), NOW)
    uses.take(second, nonce(2), NOW)
    with pytest.raises(Refused, match="certificate_used_up"):
        uses.take(second, nonce(3), NOW)


def test_the_counts_of_one_key_are_bounded_and_expired_ones_make_room() -> None:
    uses = Uses()
    for number in range(MAX_COUNTED):
        uses.note(ALICE.id, AGENT.id, nonce(number), {f"sha256:{number:064x}": NOW + HOUR})
    chain = present([certify(ALICE, AGENT, commands=1, life_ms=3 * HOUR)])
    with pytest.raises(Refused, match="busy"):
        uses.take(chain, nonce(0), NOW)
    uses.take(chain, nonce(0), NOW + HOUR + 60_000)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.sampled_from(["take", "note", "settle"]))))
def test_no_order_of_events_gives_more_than_was_certified(events: list[tuple[int, int, str]]) -> None:
    """`note` comes only of a command that was taken, at most once; whatever else happens, at most 2 are given."""
    chains = [present([certify(ALICE, key, commands=2)]) for key in (AGENT, BELOW)]
    uses = Uses()
    flying: set[tuple[int, int]] = set()
    done: set[tuple[int, int]] = set()
    for which, number, event in events:
        chain, flight = chains[which], (which, number)
        if event == "take" and flight not in flying | done:
            try:
                uses.take(chain, nonce(number), NOW)
            except Refused:
                assert sum(one[0] == which for one in flying | done) == 2
                continue
            flying.add(flight)
        elif event == "note" and flight in flying - done:
            uses.note(chain.root, chain.public.id, nonce(number), chain.counted)
            done.add(flight)
        elif event == "settle" and flight in flying:
            uses.settle(chain, nonce(number))
            flying.discard(flight)
        assert all(sum(one[0] == index for one in flying | done) <= 2 for index in (0, 1))
    for index, chain in enumerate(chains):
        assert uses.used(chain.root, chain.links[0].digest) == sum(one[0] == index for one in done)
