"""The keyring: what a file of it must be, and which keys may be added."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from immured.errors import ConfigurationError, Refused
from immured.identity.keyring import KeyRecord, Keyring, KeyStatus, Role, check_key_name, check_label, check_uids
from immured.wire.keys import PrivateKey

ADDED = "2026-01-02T03:04:05Z"


def record(name: str = "ci", **bindings: frozenset[int] | frozenset[str]) -> KeyRecord:
    return KeyRecord(PrivateKey.generate().public, name, Role.RUNNER, ADDED, **bindings)  # type: ignore[arg-type]


def test_a_keyring_survives_its_file() -> None:
    bound = record("bound", uids=frozenset({1000, 7}), personas=frozenset({"agent"}), tenants=frozenset({"lab"}))
    ring = Keyring([record("one"), bound], as_of=12)
    again = Keyring.from_json(ring.to_json())
    assert list(again) == list(ring)
    assert again.as_of == 12


def test_a_key_is_found_by_its_id_alone() -> None:
    one = record()
    ring = Keyring([one])
    assert ring.public_key(one.id) == one.public
    assert ring.public_key("ed25519:" + "0" * 32) is None


def test_adding_leaves_the_old_keyring_as_it_was() -> None:
    ring = Keyring()
    ring.with_key(record(), as_of=3)
    assert len(ring) == 0


def test_the_same_key_is_not_added_twice() -> None:
    one = record()
    with pytest.raises(Refused, match="already known"):
        Keyring([one]).with_key(KeyRecord(one.public, "other", Role.ADMIN, ADDED), as_of=1)


def test_two_keys_do_not_share_a_name() -> None:
    with pytest.raises(Refused, match="already named"):
        Keyring([record("ci")]).with_key(record("ci"), as_of=1)


def damaged(change: object) -> bytes:
    body = json.loads(Keyring([record()]).to_json())
    assert callable(change)
    change(body)
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"v": 2, "as_of": 0, "keys": []}',
        b'{"v": 1, "as_of": 0, "as_of": 1, "keys": []}',
        b'{"v": 1, "as_of": true, "keys": []}',
        damaged(lambda body: body["keys"][0].update(role="Root")),
        damaged(lambda body: body["keys"][0].update(id="ed25519:" + "0" * 32)),
        damaged(lambda body: body["keys"][0].update(public="00" * 32)),
        damaged(lambda body: body["keys"][0].update(uids=["1000"])),
        damaged(lambda body: body["keys"][0].update(uid=[1000])),
        damaged(lambda body: body["keys"].append(body["keys"][0])),
        damaged(lambda body: body["keys"][0].pop("name")),
    ],
)
def test_a_damaged_file_is_refused(text: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Keyring.from_json(text)
    assert caught.value.code == "keyring_damaged"


@pytest.mark.parametrize("name", ["", "a b", "-a", "../a", "a/b", "x" * 65, "naïve", "a\n"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        check_key_name(name)
    with pytest.raises(Refused):
        check_label(name, "tenant")


def test_uids_are_bounded() -> None:
    assert check_uids([0, 1000, 1000]) == {0, 1000}
    with pytest.raises(Refused):
        check_uids([2**32 - 1])
    with pytest.raises(Refused):
        check_uids(range(65))


# -- standing, and one key in the place of another

NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("changes", "standing"),
    [
        ({}, "active"),
        ({"expires_ms": NOW}, "expired"),
        ({"expires_ms": NOW + 1}, "active"),
        ({"not_before_ms": NOW}, "active"),
        ({"not_before_ms": NOW + 1}, "not_yet_valid"),
        ({"status": KeyStatus.SUSPENDED, "expires_ms": NOW}, "suspended"),
        ({"status": KeyStatus.REVOKED}, "revoked"),
    ],
)
def test_a_key_stands_as_was_decided_and_as_the_time_is(changes: dict[str, Any], standing: str) -> None:
    one = replace(record(), **changes)
    assert one.standing(NOW) == standing
    if standing == "active":
        one.check_usable(NOW)
    else:
        with pytest.raises(Refused) as caught:
            one.check_usable(NOW)
        assert caught.value.code == f"key_{standing}"


def test_everything_of_a_record_survives_its_file() -> None:
    full = replace(
        record(),
        gids=frozenset({5}),
        projects=frozenset({"web"}),
        subjects=frozenset({"Zoë"}),
        status=KeyStatus.SUSPENDED,
        not_before_ms=1,
        expires_ms=2,
        note="on loan",
        successor=record().id,
        predecessors=(record().id, record().id),
    )
    [again] = Keyring.from_json(Keyring([full]).to_json())
    assert again == full


@pytest.mark.parametrize(
    "change",
    [
        {"status": "gone"},
        {"expires_ms": -1},
        {"expires_ms": True},
        {"successor": "nobody"},
        {"predecessors": ["x"]},
        {"note": 4},
        {"gids": ["5"]},
    ],
)
def test_a_field_that_cannot_be_so_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="keyring"):
        KeyRecord.from_map({**record().to_map(), **change})


def test_a_successor_has_the_name_and_its_predecessor_keeps_it() -> None:
    old = record("ci")
    new = replace(record("ci"), predecessors=(old.id,))
    ring = Keyring([old]).with_successor(replace(old, successor=new.id), new, as_of=7)
    assert ring.named("ci") == new
    assert [one.id for one in ring] == [old.id, new.id]
    assert list(Keyring.from_json(ring.to_json())) == list(ring)
    with pytest.raises(Refused, match="already named"):
        ring.check_addable(record("ci"))
    with pytest.raises(Refused, match="has a successor"):
        ring.check_successor(ring.find(old.id) or old, record("ci"))


def test_two_lines_of_one_name_are_damage() -> None:
    body = json.loads(Keyring([record("a"), record("b")]).to_json())
    body["keys"][1]["name"] = "a"
    with pytest.raises(ConfigurationError, match="one name"):
        Keyring.from_json(json.dumps(body).encode())


def test_the_names_of_a_line_are_not_for_others() -> None:
    old = record("ci")
    new = replace(record("ci"), predecessors=(old.id,))
    ring = Keyring([old]).with_successor(replace(old, successor=new.id), new, as_of=7)
    ring = ring.with_change(replace(new, name="build"), as_of=8)
    with pytest.raises(Refused, match="already named"):
        ring.check_addable(record("ci"))


def test_a_key_that_is_not_there_is_not_changed() -> None:
    with pytest.raises(Refused) as caught:
        Keyring().with_change(record(), as_of=1)
    assert caught.value.code == "not_found"
