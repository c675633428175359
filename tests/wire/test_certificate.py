"""A certificate as bytes: read strictly, written the same each time, and as a file."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.errors import ConfigurationError, Refused
from immured.wire.certificate import (
    CERTIFICATE,
    MAX_CHAIN,
    MAX_LIFE_MS,
    Certificate,
    chain_from_pem,
    chain_to_pem,
    issue,
    parse_certificate,
)
from immured.wire.envelope import decode_envelope, seal, verify
from immured.wire.keys import PrivateKey
from immured.wire.strict_msgpack import pack, unpack

ALICE, BOB = (PrivateKey(bytes([byte]) * 32) for byte in (0xA1, 0xB0))
NOW = 1_790_000_000_000


def body(**more: Any) -> bytes:
    options: dict[str, Any] = {"now_ms": NOW, "life_ms": 60_000, "permissions": ["run"]} | more
    return issue(ALICE, BOB.public, "agent", **options)


def fields(**changes: Any) -> bytes:
    """A good payload with these fields changed; None takes one away."""
    value = unpack(decode_envelope(body()).payload)
    assert isinstance(value, dict)
    return pack({name: one for name, one in (value | changes).items() if one is not None})


names = st.frozensets(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True), max_size=5)


@given(
    permissions=st.frozensets(st.from_regex(r"[a-z][a-z0-9._-]{0,20}", fullmatch=True), min_size=1, max_size=5),
    tenants=names,
    projects=names,
    classes=names,
    labels=st.dictionaries(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,9}", fullmatch=True), st.text(max_size=9)),
    commands=st.none() | st.integers(1, 1_000_000),
    depth=st.integers(0, 3),
    life_ms=st.integers(1, MAX_LIFE_MS),
)
def test_what_is_issued_is_read_back(**said: Any) -> None:
    envelope = decode_envelope(body(**said))
    assert verify(envelope, {ALICE.id: ALICE.public}.get) == ALICE.id
    read = parse_certificate(envelope.payload)
    assert read.to_payload() == envelope.payload
    assert (read.public, read.name, read.nbf, read.exp) == (BOB.public, "agent", NOW, NOW + said.pop("life_ms"))
    assert {name: getattr(read, name) for name in said} == said


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"v": 2}, "bad_certificate"),
        ({"v": None}, "bad_certificate"),
        ({"public": bytes(31)}, "bad_certificate"),
        ({"public": (1).to_bytes(32, "little")}, "bad_certificate"),
        ({"public": None}, "bad_certificate"),
        ({"name": "a/b"}, "bad_certificate"),
        ({"name": ""}, "bad_certificate"),
        ({"nonce": bytes(15)}, "bad_certificate"),
        ({"nonce": None}, "bad_certificate"),
        ({"nbf": -1}, "bad_certificate"),
        ({"nbf": None}, "bad_certificate"),
        ({"exp": NOW}, "bad_certificate"),
        ({"exp": NOW + MAX_LIFE_MS + 1}, "bad_certificate"),
        ({"exp": True}, "bad_certificate"),
        ({"permissions": None}, "bad_certificate"),
        ({"permissions": []}, "bad_certificate"),
        ({"permissions": ["*"]}, "bad_certificate"),
        ({"permissions": ["sandbox.*"]}, "bad_certificate"),
        ({"permissions": ["run", "run"]}, "bad_certificate"),
        ({"permissions": ["run", 1]}, "bad_certificate"),
        ({"permissions": "run"}, "bad_certificate"),
        ({"permissions": [f"p{n}" for n in range(257)]}, "bad_certificate"),
        ({"tenants": []}, "bad_certificate"),
        ({"tenants": ["ACME"]}, "bad_certificate"),
        ({"projects": [1]}, "bad_certificate"),
        ({"classes": {}}, "bad_certificate"),
        ({"labels": {}}, "bad_certificate"),
        ({"labels": {"team": 1}}, "bad_certificate"),
        ({"labels": {"": "red"}}, "bad_certificate"),
        ({"commands": 0}, "bad_certificate"),
        ({"depth": 4}, "bad_certificate"),
        ({"depth": -1}, "bad_certificate"),
        ({"depth": None}, "bad_certificate"),
        ({"sub": ""}, "bad_certificate"),
        ({"sub": "a\x1b"}, "bad_certificate"),
        ({"aud": []}, "bad_certificate"),
        ({"permission": ["run"]}, "unknown_field"),
    ],
    ids=str,
)
def test_what_is_no_certificate_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_certificate(fields(**changes))
    assert refused.value.code == code


json_like = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.binary(max_size=33),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted((*Certificate.__slots__, "v"))), json_like))
def test_whatever_its_fields_hold_it_is_read_or_refused(changes: dict[str, Any]) -> None:
    value = unpack(decode_envelope(body()).payload)
    assert isinstance(value, dict)
    with contextlib.suppress(Refused):  # any other exception is a mistake
        read = parse_certificate(pack(value | changes))
        assert parse_certificate(read.to_payload()) == read


@given(st.binary(max_size=200))
def test_whatever_bytes_come_they_are_read_or_refused(payload: bytes) -> None:
    with pytest.raises(Refused):
        parse_certificate(payload)


def test_a_wrong_name_is_told_the_nearest() -> None:
    with pytest.raises(Refused) as refused:
        parse_certificate(fields(permission=["run"]))
    assert refused.value.details["nearest"] == "permissions"


def test_what_a_daemon_would_refuse_is_not_signed() -> None:
    with pytest.raises(Refused, match="permissions"):
        body(permissions=["sandbox.*"])


def test_a_chain_stands_in_a_file() -> None:
    chain = [body(depth=1), issue(BOB, ALICE.public, "below", now_ms=NOW, life_ms=1, permissions=["run"])]
    read = chain_from_pem(b"Some words for people.\n" + chain_to_pem(chain))
    assert [one for one, _ in read] == chain
    assert [envelope.type for _, envelope in read] == [CERTIFICATE] * 2


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        chain_to_pem([body()])[:-10],
        chain_to_pem([body()]).replace(b"g", b"!"),
        chain_to_pem([body()[:-1]]),
        chain_to_pem([seal("application/vnd.immured.command.v1+msgpack", b"\x80", [ALICE])]),
        chain_to_pem([body()] * (MAX_CHAIN + 1)),
    ],
    ids=["nothing", "no end", "no base64", "no envelope", "a command", "too long"],
)
def test_what_is_no_chain_is_refused(pem: bytes) -> None:
    with pytest.raises(ConfigurationError, match="bad_certificate"):
        chain_from_pem(pem)


def test_its_fields_are_shown_to_people() -> None:
    read = Certificate(BOB.public, "agent", 1, 2, frozenset({"run"}), bytes(16), labels={"team": "red"})
    assert read.to_map() == {
        "key": BOB.id, "public": BOB.public.raw.hex(), "name": "agent", "nbf": 1, "exp": 2,
        "permissions": ["run"], "depth": 0, "labels": {"team": "red"},
    }  # fmt: skip
