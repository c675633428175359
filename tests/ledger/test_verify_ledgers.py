"""Real ledgers verified: rotated, retired, under another key, cosigned; and what is no accident in them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.cli.app import app
from immured.errors import ConfigurationError
from immured.ledger import Ledger, create
from immured.ledger.checkpoint import VerifierKey, add_lines, file_name, parse_vkeys, unverified
from immured.ledger.entry import build_line, encode_body, leaf_hash
from immured.ledger.key_change import begin, finish
from immured.ledger.key_rotation import KeyRotation
from immured.ledger.keys import KeyFiles
from immured.ledger.note_keys import Cosigner
from immured.ledger.rotation import Limits
from immured.ledger.timestamps import timestamp
from immured.ledger.verify import Report, verify_file
from tests.ledger.sample import ACTOR, DAEMON, START_NS, head, lines, signer, text, until_short
from tests.patience import PATIENCE_S

SMALL = Limits(size=4_000)
WITNESSES = [Cosigner(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32), f"w{n}") for n in (1, 2, 3)]


def append(ledger: Ledger, count: int) -> None:
    for number in range(count):
        ledger.entry("run.accepted", ACTOR, {"argv": ["/bin/true"], "n": number}).wait(PATIENCE_S)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A ledger of many files, closed."""
    create(tmp_path / "state", DAEMON)
    with Ledger.open(tmp_path / "state", limits=SMALL) as ledger:
        for _ in range(4):
            append(ledger, 15)
            until_short(tmp_path / "state", SMALL.size)
    assert len(segments(tmp_path / "state")) > 1
    return tmp_path / "state"


def segments(state: Path) -> list[Path]:
    return sorted((state / "ledger").glob("0*.jsonl"))


def keys(state: Path) -> tuple[VerifierKey, ...]:
    return parse_vkeys((state / "keys" / "ledger.vkey").read_text())


def verify(state: Path, vkeys: tuple[VerifierKey, ...] | None = None, **more: object) -> Report:
    files = state / "ledger"
    return verify_file(files, files / "checkpoints", vkeys or keys(state), pause=lambda _: None, **more)  # type: ignore[arg-type]


def test_all_files_are_one_ledger(state: Path) -> None:
    report = verify(state)
    assert report.whole
    assert (report.first, report.covered) == (0, report.entries)
    assert list(report.files) == [*(path.name for path in segments(state)), "current.jsonl"]
    assert report.bytes == sum(path.stat().st_size for path in (state / "ledger").glob("*.jsonl"))


def test_a_sealed_file_by_itself_verifies_from_where_it_begins(state: Path) -> None:
    path = segments(state)[1]
    report = verify_file(path, state / "ledger" / "checkpoints", keys(state), pause=lambda _: None)
    assert report.first == int(path.name[:20])
    assert report.problem is not None
    assert report.problem.code == "missing_lines"  # heads say that it goes on
    assert verify_file(path, pause=lambda _: None).whole


def test_the_oldest_file_that_somebody_removed_is_missed(state: Path) -> None:
    segments(state)[0].unlink()
    report = verify(state)
    assert report.problem is not None
    assert (report.problem.code, report.problem.seq) == ("missing_lines", int(segments(state)[0].name[:20]))


def test_a_retirement_behind_the_newest_head_explains_nothing(state: Path) -> None:
    """Who can write the files can add a line; who has no key can sign none."""
    current = state / "ledger" / "current.jsonl"
    last = json.loads(current.read_bytes().splitlines()[-1])
    prev = leaf_hash(current.read_bytes().splitlines()[-1]).hex()
    data = {"segments": [], "first": 10_000, "bytes": 1}
    line = build_line(last["seq"] + 1, last["ts"], encode_body("ledger.retired", {}, data), prev)
    current.write_bytes(current.read_bytes() + line + b"\n")
    assert verify(state).whole
    segments(state)[0].unlink()
    problem = verify(state).problem
    assert problem is not None
    assert problem.code == "missing_lines"


def test_a_bit_in_a_sealed_file_is_named_with_its_line_there(state: Path) -> None:
    path = segments(state)[1]
    content = bytearray(path.read_bytes())
    at = content.index(b"\n") + 1 + content[content.index(b"\n") + 1 :].index(b"/bin/true")
    content[at] ^= 1
    path.write_bytes(content)
    report = verify(state)
    assert report.problem is not None
    assert (report.problem.file, report.problem.line) == (path.name, 2)
    assert report.problem.seq == int(path.name[:20]) + 1
    assert report.as_dict()["problem"]["file"] == path.name  # type: ignore[index]


def test_two_heads_of_one_size_with_two_roots(state: Path) -> None:
    """The ledger's key signed another history, which only somebody else's copy of it shows."""
    files = state / "ledger"
    (files / "witnessed").mkdir()
    size = verify(state).entries
    note = (files / "checkpoints" / file_name(size)).read_bytes()
    other = unverified(note)
    forged = signer(other.origin).sign(type(other)(other.origin, size, bytes(32)))
    (files / "witnessed" / file_name(size)).write_bytes(forged)
    report = verify(state, (signer(other.origin).verifier, *keys(state)), witnessed_dir=files / "witnessed")
    assert [bad.file for bad in report.bad_checkpoints] == [f"witnessed/{file_name(size)}"]
    assert "two roots" in report.bad_checkpoints[0].message


# --- keys


@pytest.fixture
def rekeyed(tmp_path: Path) -> Path:
    """A ledger whose key was exchanged twice."""
    state = tmp_path / "state"
    create(state, DAEMON)
    with Ledger.open(state) as ledger:
        for _ in range(2):
            append(ledger, 4)
            begin(ledger, KeyFiles(state / "keys"), ACTOR, {})[0].wait(PATIENCE_S)
            assert finish(ledger, KeyFiles(state / "keys"))
            append(ledger, 4)
    return state


def test_whoever_knows_only_the_first_key_follows(rekeyed: Path) -> None:
    report = verify(rekeyed, keys(rekeyed)[:1])
    assert report.whole
    assert report.covered == report.entries
    assert report.keys == tuple(key.encode() for key in keys(rekeyed))


def test_whoever_knows_all_keys_finds_the_same(rekeyed: Path) -> None:
    assert verify(rekeyed) == verify(rekeyed, keys(rekeyed)[:1])


def test_a_stranger_to_the_keys_accepts_no_head(rekeyed: Path) -> None:
    stranger = signer(keys(rekeyed)[0].name).verifier
    report = verify(rekeyed, (stranger,))
    assert not report.whole
    assert report.covered == 0


def rotated_ledger(tmp_path: Path, data: dict[str, object]) -> Path:
    """Four lines, the third of which is a `ledger.key_rotated` of this; signed by the first key alone."""
    made = lines(2)
    for type_, said in (("ledger.key_rotated", data), ("run.accepted", {})):
        body = encode_body(type_, ACTOR, said)
        made.append(build_line(len(made), timestamp(START_NS + len(made)), body, leaf_hash(made[-1]).hex()))
    folder = tmp_path / "ledger" / "checkpoints"
    folder.mkdir(parents=True)
    (tmp_path / "ledger" / "current.jsonl").write_bytes(text(made))
    for size in (1, 2, 4):
        (folder / file_name(size)).write_bytes(signer(head(made, 1).origin).sign(head(made, size)))
    return tmp_path


def test_a_head_that_only_a_replaced_key_signed_is_refused(tmp_path: Path) -> None:
    name = head(lines(1), 1).origin
    old = signer(name).verifier
    new = VerifierKey(name, WITNESSES[0].verifier.public)
    state = rotated_ledger(tmp_path, KeyRotation.made(signer(name), new).to_map())
    report = verify(state, (old,))
    assert [bad.file for bad in report.bad_checkpoints] == [file_name(4)]
    assert report.covered == 2
    assert not report.whole


@pytest.mark.parametrize("wrong", ["signature", "old", "new"])
def test_a_rotation_that_the_old_key_did_not_sign_is_named(tmp_path: Path, wrong: str) -> None:
    name = head(lines(1), 1).origin
    old = signer(name).verifier
    new = VerifierKey(name, WITNESSES[0].verifier.public)
    data = KeyRotation.made(signer(name), new).to_map()
    data[wrong] = {"signature": "00" * 64, "old": "no key", "new": old.encode()}[wrong]
    problem = verify(rotated_ledger(tmp_path, data), (old,)).problem
    assert problem is not None
    assert (problem.code, problem.seq, problem.line) == ("bad_key_rotation", 2, 3)


# --- witnesses


def cosign(state: Path, size: int, by: list[Cosigner]) -> None:
    folder = state / "ledger" / "witnessed"
    folder.mkdir(exist_ok=True)
    note = (state / "ledger" / "checkpoints" / file_name(size)).read_bytes()
    signed = unverified(note).text()
    (folder / file_name(size)).write_bytes(add_lines(note, [one.line(signed, 1_800_000_000 + size) for one in by]))


def test_k_of_n_witnesses(state: Path) -> None:
    sizes = sorted(int(path.name) for path in (state / "ledger" / "checkpoints").iterdir())
    cosign(state, sizes[-2], WITNESSES[:2])
    cosign(state, sizes[-1], WITNESSES[:1])
    known = [one.verifier for one in WITNESSES]

    def asked(require: int) -> Report:
        return verify(state, witnessed_dir=state / "ledger" / "witnessed", witnesses=known, require=require)

    assert (asked(1).whole, asked(1).witnessed) == (True, sizes[-1])
    assert (asked(2).whole, asked(2).witnessed) == (True, sizes[-2])
    assert (asked(3).whole, asked(3).witnessed) == (False, 0)
    assert {(one.witness.name, one.size) for one in asked(1).seen} == {("w1", sizes[-1]), ("w2", sizes[-2])}


def test_one_key_under_two_names_is_one_witness(state: Path) -> None:
    twin = Cosigner(Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32), "twin")
    size = verify(state).entries
    cosign(state, size, [WITNESSES[0], twin])
    known = [WITNESSES[0].verifier, twin.verifier]
    assert not verify(state, witnessed_dir=state / "ledger" / "witnessed", witnesses=known, require=2).whole


def test_a_cosignature_that_does_not_verify_is_named(state: Path) -> None:
    size = verify(state).entries
    cosign(state, size, [WITNESSES[0]])
    path = state / "ledger" / "witnessed" / file_name(size)
    other = WITNESSES[0].line(b"something else\n", 1_800_000_000)
    note = (state / "ledger" / "checkpoints" / file_name(size)).read_bytes()
    path.write_bytes(add_lines(note, [other]))
    report = verify(state, witnessed_dir=state / "ledger" / "witnessed", witnesses=[WITNESSES[0].verifier])
    assert [bad.file for bad in report.bad_checkpoints] == [f"witnessed/{file_name(size)}"]


# --- the command line


def immure(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["ledger", *map(str, arguments)], catch_exceptions=False, standalone_mode=False)


def test_the_command_line_asks_for_witnesses(state: Path) -> None:
    size = verify(state).entries
    cosign(state, size, WITNESSES[:2])
    vkeys = [one.verifier.encode() for one in WITNESSES]
    asked = [part for key in vkeys for part in ("--witness", key)]
    two = immure("verify", "--state", state, *asked, "--require", 2, "--json")
    told = json.loads(two.stdout)
    assert (two.return_value, told["whole"], told["witnessed"], len(told["witnesses"])) == (0, True, size, 2)
    every = immure("verify", "--state", state, *asked)
    assert every.return_value == 1
    assert "NOT WITNESSED" in every.stdout


def test_the_command_line_reads_an_anchor(state: Path, tmp_path: Path) -> None:
    size = verify(state).entries
    kept = tmp_path / "kept"
    shutil.copy(state / "ledger" / "checkpoints" / file_name(size), kept)
    assert immure("verify", "--state", state, "--anchor", kept).return_value == 0
    current = state / "ledger" / "current.jsonl"
    current.write_bytes(text(current.read_bytes().splitlines()[:-1]))
    (state / "ledger" / "checkpoints" / file_name(size)).unlink()
    done = immure("verify", "--state", state, "--anchor", kept, "--json")
    assert (done.return_value, json.loads(done.stdout)["problem"]["code"]) == (1, "missing_lines")


def test_the_command_line_verifies_a_copied_directory(state: Path, tmp_path: Path) -> None:
    shutil.copytree(state / "ledger", tmp_path / "copy")
    shutil.copy(state / "keys" / "ledger.vkey", tmp_path / "vkey")
    done = immure("verify", "--file", tmp_path / "copy", "--vkey", tmp_path / "vkey", "--json")
    told = json.loads(done.stdout)
    assert (done.return_value, told["covered"]) == (0, told["entries"])
    assert immure("verify", "--file", tmp_path / "copy").return_value == 0


def test_a_witness_key_that_is_none_is_refused(state: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        immure("verify", "--state", state, "--witness", "a+b+c")
    assert refused.value.code == "bad_key"


def test_a_ledger_that_waited_for_no_disk_says_so(tmp_path: Path) -> None:
    state = tmp_path / "state"
    create(state, DAEMON)
    for mode in ("none", "full", "none"):
        with Ledger.open(state, durability=mode) as ledger:
            append(ledger, 2)
    report = verify(state)
    assert report.whole
    assert report.unsynced == ((1, 3), (7, 9))
    assert "nobody waited for the disk with entries 1-3, 7-9" in immure("verify", "--state", state).stdout
