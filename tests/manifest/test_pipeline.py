"""What a manifest file is told, stage by stage, without any daemon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from immured.errors import Refused
from immured.manifest.builtin import parse_toml
from immured.manifest.pipeline import FAIL, PASS, STAGES, WARN, Judged, Rules, SignerKey, judge
from immured.manifest.schema import Manifest
from immured.manifest.signature import show_signatures, sign
from immured.wire.keys import PrivateKey

NOW: Final = 1_800_000_000_000
DAY: Final = 86_400_000
SMALL: Final = b'schema = 1\nname = "build"\n'
MORE: Final = SMALL + b'[limits]\nmemory = "1G"\n'


@dataclass
class World:
    """Keys by name, and what they may sign: names of classes."""

    keys: dict[str, PrivateKey] = field(default_factory=dict)
    known: dict[str, SignerKey] = field(default_factory=dict)
    rights: dict[str, set[str]] = field(default_factory=dict)
    needed: int = 1
    only: frozenset[str] | None = None
    revoked: dict[str, str] = field(default_factory=dict)
    baseline: Callable[[Manifest], Manifest | None] = lambda _: None

    def key(self, name: str, *, line: str = "", problem: str = "", classes: str = "default build") -> PrivateKey:
        made = PrivateKey.generate()
        self.keys[name] = made
        self.known[made.id] = SignerKey(made.public, name, line or made.id, problem)
        self.rights[made.id] = set(classes.split())
        return made

    def rules(self) -> Rules:
        return Rules(
            needed=self.needed,
            only=self.only,
            revoked=self.revoked,
            find=self.known.get,
            may_sign=lambda key_id, class_, _: class_ in self.rights[key_id],
            personas={"worker", "operator"},
            tenants={"default", "acme"},
            baseline=self.baseline,
        )

    def judge(self, raw: bytes, signatures: bytes, *, whole: bool = False) -> Judged:
        return judge(raw, signatures, self.rules(), NOW, whole=whole)


@pytest.fixture
def world() -> World:
    made = World()
    made.key("alice")
    return made


def signed(raw: bytes, *keys: PrivateKey, at: int = NOW - DAY, until: int = NOW + DAY) -> bytes:
    return show_signatures([sign(key, raw, at, until) for key in keys]).encode()


def verdicts(judged: Judged) -> list[tuple[str, str]]:
    return [(one.stage, one.verdict) for one in judged.verdicts]


def code(judged: Judged) -> str:
    assert judged.refusal is not None, judged.verdicts
    return judged.refusal.code


def words(judged: Judged, stage: str) -> str:
    [found] = [one.words for one in judged.verdicts if one.stage == stage]
    return found


def test_what_is_signed_understood_and_adds_nothing_passes(world: World) -> None:
    judged = world.judge(SMALL, signed(SMALL, world.keys["alice"]))
    assert verdicts(judged) == [(stage, PASS) for stage in STAGES]
    assert (judged.refusal, judged.rank) == (None, 0)
    assert [one.name for one in judged.signers] == ["alice"]
    assert judged.expires_ms == NOW + DAY
    assert words(judged, "capabilities") == "nothing more than its class 'default'"


def test_what_is_added_is_said_in_words_with_its_severity(world: World) -> None:
    judged = world.judge(MORE, signed(MORE, world.keys["alice"]))
    assert verdicts(judged)[2] == ("capabilities", WARN)
    assert "memory 512M -> 1G" in words(judged, "capabilities")
    said = judged.to_map()
    assert said["severity"] == "medium"
    assert said["added"] == [{"field": "limits.memory", "words": "memory 512M -> 1G", "severity": "medium"}]
    assert judged.rank == 2


def test_it_is_compared_with_the_last_approved_one(world: World) -> None:
    world.baseline = lambda _: parse_toml(MORE)
    judged = world.judge(MORE + b"\n", signed(MORE + b"\n", world.keys["alice"]))
    assert judged.rank == 0
    assert judged.baseline is not None
    assert judged.baseline.to_map() == {"kind": "manifest", "name": "build", "digest": parse_toml(MORE).digest}


def test_without_a_signature_nothing_of_it_is_parsed(world: World) -> None:
    judged = world.judge(b"this is no TOML", b"")
    assert verdicts(judged) == [("signature", FAIL)]
    assert (code(judged), judged.manifest) == ("manifest_unsigned", None)


def test_who_only_asks_is_told_of_every_stage(world: World) -> None:
    judged = world.judge(MORE, b"", whole=True)
    assert verdicts(judged) == [("signature", FAIL), ("schema", PASS), ("capabilities", WARN)]
    assert code(judged) == "manifest_unsigned"


def test_of_two_stages_that_fail_the_first_one_counts(world: World) -> None:
    judged = world.judge(b"this is no TOML", b"", whole=True)
    assert verdicts(judged) == [("signature", FAIL), ("schema", FAIL)]
    assert code(judged) == "manifest_unsigned"


def test_who_signed_with_the_right_and_did_not_write_a_manifest_is_told_so(world: World) -> None:
    judged = world.judge(b"schema = 2", signed(b"schema = 2", world.keys["alice"]))
    assert verdicts(judged) == [("signature", PASS), ("schema", FAIL)]
    assert code(judged) == "manifest_invalid"


def test_a_signature_over_other_bytes_refuses_it(world: World) -> None:
    judged = world.judge(MORE, signed(SMALL, world.keys["alice"]))
    assert code(judged) == "signature_invalid"
    assert "'alice'" in words(judged, "signature")


def test_one_bad_line_refuses_it_however_many_good_ones_there_are(world: World) -> None:
    bob = world.key("bob")
    lines = signed(SMALL, world.keys["alice"]) + signed(MORE, bob).split(b"\n", 1)[1]
    assert code(world.judge(SMALL, lines)) == "signature_invalid"


def test_a_key_that_nobody_knows_counts_for_nothing_and_is_said(world: World) -> None:
    stranger = PrivateKey.generate()
    assert code(world.judge(SMALL, signed(SMALL, stranger))) == "manifest_unsigned"
    judged = world.judge(SMALL, signed(SMALL, stranger, world.keys["alice"]))
    assert (judged.refusal, verdicts(judged)[0]) == (None, ("signature", WARN))
    assert stranger.id in words(judged, "signature")


@pytest.mark.parametrize("problem", ["is suspended", "is revoked", "is expired", "is not yet valid"])
def test_a_key_that_does_not_serve_counts_for_nothing(world: World, problem: str) -> None:
    bob = world.key("bob", problem=problem)
    judged = world.judge(SMALL, signed(SMALL, bob))
    assert code(judged) == "manifest_unsigned"
    assert f"'bob' {problem}" in words(judged, "signature")


def test_what_a_key_may_not_sign_it_has_not_signed(world: World) -> None:
    bob = world.key("bob", classes="build")
    judged = world.judge(SMALL, signed(SMALL, bob))
    assert (code(judged), verdicts(judged)) == ("manifest_unsigned", [("signature", FAIL)])
    assert "may not sign manifests of the class 'default' for the host" in words(judged, "signature")


def test_time_ends_a_signature_to_the_millisecond(world: World) -> None:
    alice = world.keys["alice"]
    assert world.judge(SMALL, signed(SMALL, alice, until=NOW + 1)).refusal is None
    assert code(world.judge(SMALL, signed(SMALL, alice, until=NOW))) == "manifest_expired"


def test_a_clock_may_be_ahead_by_a_minute(world: World) -> None:
    alice = world.keys["alice"]
    assert world.judge(SMALL, signed(SMALL, alice, at=NOW + 60_000)).refusal is None
    assert code(world.judge(SMALL, signed(SMALL, alice, at=NOW + 60_001))) == "manifest_unsigned"


def test_two_signatures_are_two_keys_of_different_lines(world: World) -> None:
    world.needed = 2
    alice, heir = world.keys["alice"], world.key("alice", line=world.keys["alice"].id)
    assert code(world.judge(SMALL, signed(SMALL, alice))) == "manifest_unsigned"
    assert code(world.judge(SMALL, signed(SMALL, alice, heir))) == "manifest_unsigned"
    judged = world.judge(SMALL, signed(SMALL, alice, heir, world.key("bob")))
    assert judged.refusal is None
    assert len(judged.signers) == 3


def test_it_ends_when_fewer_than_needed_are_left(world: World) -> None:
    world.needed = 2
    keys = [world.keys["alice"], world.key("bob"), world.key("carol")]
    lines = [sign(key, SMALL, NOW - 1, NOW + days * DAY) for key, days in zip(keys, (3, 1, 2), strict=True)]
    judged = world.judge(SMALL, show_signatures(lines).encode())
    assert judged.expires_ms == NOW + 2 * DAY


def test_one_expired_of_two_needed_is_expired_and_none_at_all_unsigned(world: World) -> None:
    world.needed = 2
    alice, bob = world.keys["alice"], world.key("bob")
    lines = [sign(alice, SMALL, NOW - 2, NOW + 1), sign(bob, SMALL, NOW - 2, NOW - 1)]
    assert code(world.judge(SMALL, show_signatures(lines).encode())) == "manifest_expired"
    assert code(world.judge(SMALL, show_signatures(lines[1:]).encode())) == "manifest_unsigned"


@pytest.mark.parametrize(
    ("line", "field", "said"),
    [
        (b'personas = ["wroker"]\n', "manifest.personas", "'worker'"),
        (b'tenants = ["acne"]\n', "manifest.tenants", "'acme'"),
        (b'tenants = ["another"]\n', "manifest.tenants", "declared first"),
    ],
)
def test_a_name_that_there_is_not_is_refused_with_the_nearest(world: World, line: bytes, field: str, said: str) -> None:
    raw = SMALL + line
    judged = world.judge(raw, signed(raw, world.keys["alice"]))
    assert code(judged) == "manifest_invalid"
    assert judged.refusal is not None
    assert judged.refusal.details["field"] == field
    assert said in judged.refusal.remedy


@pytest.mark.parametrize("field", ["personas", "tenants"])
def test_a_wildcard_is_no_name(world: World, field: str) -> None:
    raw = SMALL + f'{field} = ["*"]\n'.encode()
    assert code(world.judge(raw, signed(raw, world.keys["alice"]))) == "manifest_invalid"


def test_what_is_listed_is_asked_before_the_signatures(world: World) -> None:
    digest = parse_toml(SMALL).digest
    world.revoked = {digest: "it leaked"}
    judged = world.judge(SMALL, b"no signatures at all")
    assert code(judged) == "manifest_revoked"
    assert "it leaked" in words(judged, "signature")
    world.revoked, world.only = {}, frozenset({"sha256:" + "0" * 64})
    assert code(world.judge(SMALL, b"no signatures at all")) == "denied"
    world.only = frozenset({digest})
    assert world.judge(SMALL, signed(SMALL, world.keys["alice"])).refusal is None


def test_a_later_failure_takes_the_place_of_its_stage_s_verdict(world: World) -> None:
    judged = world.judge(MORE, signed(MORE, world.keys["alice"]))
    failed = judged.failed("capabilities", Refused("approval_required", "ask others", "propose it"))
    assert verdicts(failed) == [("signature", PASS), ("schema", PASS), ("capabilities", FAIL)]
    assert code(failed) == "approval_required"
    unsigned = replace(judged, verdicts=(), refusal=None).failed("signature", Refused("signature_invalid", "x"))
    assert code(unsigned.failed("schema", Refused("manifest_invalid", "y"))) == "signature_invalid"
    assert code(judged.failed("schema", Refused("a", "x")).failed("signature", Refused("b", "y"))) == "b"


def test_what_is_said_fits_an_entry(world: World) -> None:
    raw = SMALL + b"[filesystem]\nwrite = [" + b",".join(b'"/srv/%04d"' % at for at in range(200)) + b"]\n"
    said: Any = world.judge(raw, signed(raw, world.keys["alice"])).to_map()
    assert len(said["added"]) == 64
    assert said["more_added"] >= 100
    assert all(len(one["words"].encode()) <= 1024 for one in (*said["added"], *said["stages"]))


# -- any byte


def changed(data: bytes) -> list[bytes]:
    """The same with one bit flipped, one byte missing, one byte doubled, one byte more; everywhere."""
    found = [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(len(data)) for bit in range(8)]
    found += [data[:at] + data[at + 1 :] for at in range(len(data))]
    found += [data[:at] + data[at : at + 1] + data[at:] for at in range(len(data))]
    found += [data[:at] for at in range(len(data))]
    return [*found, data + b"\n", data + b"\0", b"\xef\xbb\xbf" + data]


def test_no_byte_of_a_manifest_can_be_another(world: World) -> None:
    lines = signed(SMALL, world.keys["alice"])
    assert world.judge(SMALL, lines).refusal is None
    for raw in {*changed(SMALL)} - {SMALL}:
        assert code(world.judge(raw, lines)) == "signature_invalid"


def test_no_byte_of_its_signatures_can_be_another(world: World) -> None:
    lines = signed(SMALL, world.keys["alice"], world.key("bob"))
    assert world.judge(SMALL, lines).refusal is None
    world.needed = 2  # a flipped key id is one of a stranger, who counts for nothing
    for other in {*changed(lines)} - {lines}:
        assert code(world.judge(SMALL, other)) in {"signature_invalid", "manifest_unsigned"}
