"""`immure ledger prove` and its like, on real files: what one writes, another checks with nothing but a key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.cli.app import app
from immured.errors import ConfigurationError
from immured.ledger import Ledger, create
from immured.ledger.checkpoint import Cosigner, add_lines
from immured.wire.keys import PrivateKey

ENTRIES = 5
WITNESSES = [Cosigner(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32), f"w{n}.example") for n in (1, 2)]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory's ledger, signed at 1 and at 6 entries."""
    base = tmp_path / "state"
    (base / "keys").mkdir(parents=True)
    create(base, PrivateKey.generate().id)
    with Ledger.open(base) as ledger:
        for number in range(ENTRIES):
            ledger.entry("run.accepted", {"name": "tester"}, {"sandbox": f"s{number}"}).wait()
    return base


def immure(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["ledger", *map(str, arguments)], catch_exceptions=False, standalone_mode=False)


def vkey(state: Path) -> Path:
    return state / "keys" / "ledger.vkey"


def newest(state: Path) -> Path:
    return max((state / "ledger" / "checkpoints").iterdir())


@pytest.fixture
def proof(state: Path, tmp_path: Path) -> Path:
    """Of entry 3."""
    file = tmp_path / "3.tlog-proof"
    immure("prove", 3, "--state", state, "-o", file)
    return file


def test_a_proof_is_checked_with_the_key_alone(state: Path, proof: Path) -> None:
    done = immure("check-proof", proof, "--key", vkey(state))
    assert "run.accepted" in done.output
    assert "sandbox=s2" in done.output
    assert "3.tlog-proof: proven: immured/" in done.output
    assert "size 6, cosigned by no witness that you named" in done.output


def test_a_key_may_be_named_itself(state: Path, proof: Path) -> None:
    assert "proven" in immure("check-proof", proof, "--key", vkey(state).read_text().strip()).output


def test_as_json(state: Path, proof: Path) -> None:
    told = json.loads(immure("check-proof", proof, "--key", vkey(state), "--json").output)
    assert told["entry"]["data"] == {"sandbox": "s2"}
    assert (told["size"], told["witnesses"]) == (6, [])


def test_without_a_file_it_is_written_out(state: Path, proof: Path) -> None:
    assert immure("prove", 3, "--state", state).stdout_bytes == proof.read_bytes()


def test_a_copy_of_the_ledgers_directory_will_do(state: Path, proof: Path) -> None:
    assert immure("prove", 3, "--copy", state / "ledger").stdout_bytes == proof.read_bytes()


def test_a_proof_that_was_changed_proves_nothing(state: Path, proof: Path) -> None:
    proof.write_bytes(proof.read_bytes().replace(b"index 3", b"index 4"))
    done = CliRunner().invoke(app, ["ledger", "check-proof", str(proof), "--key", str(vkey(state))])
    assert done.exit_code == 1
    assert "bad_proof" in done.output
    assert "its entry is 3, and its index 4" in done.output


def test_another_ledgers_key_is_none(state: Path, proof: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "keys").mkdir(parents=True)
    create(tmp_path / "other", PrivateKey.generate().id)
    done = CliRunner().invoke(app, ["ledger", "check-proof", str(proof), "--key", str(vkey(tmp_path / "other"))])
    assert done.exit_code == 1
    assert "no known key signed it" in done.output


def test_witnesses(state: Path, tmp_path: Path) -> None:
    note = newest(state).read_bytes()
    text = note.partition(b"\n\n")[0] + b"\n"
    (state / "ledger" / "witnessed").mkdir()
    (state / "ledger" / "witnessed" / newest(state).name).write_bytes(add_lines(note, [WITNESSES[0].line(text, 1)]))
    file, keys = tmp_path / "p", [one.verifier.encode() for one in WITNESSES]
    immure("prove", 3, "--state", state, "-o", file)
    one = immure("check-proof", file, "--key", vkey(state), "--witness", keys[0])
    assert "cosigned by w1.example" in one.output
    told = json.loads(immure("check-proof", file, "--key", vkey(state), "--witness", keys[0], "--json").output)
    assert told["witnesses"] == [{"key": keys[0], "time": 1}]
    both = ["ledger", "check-proof", str(file), "--key", str(vkey(state)), "--witness", keys[0], "--witness", keys[1]]
    assert CliRunner().invoke(app, both).exit_code == 1
    assert "cosigned by w1.example" in CliRunner().invoke(app, [*both, "--require", "1"]).output


def test_one_checkpoint_goes_on_from_another(state: Path, tmp_path: Path) -> None:
    file, first = tmp_path / "c", min((state / "ledger" / "checkpoints").iterdir())
    immure("consistency", "--from", 1, "--state", state, "-o", file)
    done = immure("check-consistency", file, first, "--key", vkey(state))
    assert "goes on from size 1: immured/" in done.output
    named = immure("check-consistency", file, first, newest(state), "--key", vkey(state), "--json")
    assert (json.loads(named.output)["from"], json.loads(named.output)["size"]) == (1, 6)
    wrong = CliRunner().invoke(
        app, ["ledger", "check-consistency", str(file), str(newest(state)), "--key", str(vkey(state))]
    )
    assert wrong.exit_code == 1
    assert "goes on from size 1, and the older checkpoint is of size 6" in wrong.output


def test_what_no_checkpoint_covers_is_said(state: Path) -> None:
    newest(state).unlink()
    with pytest.raises(ConfigurationError, match="no checkpoint covers entry 3 yet") as refused:
        immure("prove", 3, "--state", state)
    assert refused.value.code == "no_proof"


def test_a_missing_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        immure("prove", 3, "--state", tmp_path / "nowhere")


@pytest.mark.parametrize("key", ["nowhere.vkey", "a+b+c", "immured/x+00000000+AAAA"])
def test_what_is_no_key_is_named(proof: Path, key: str) -> None:
    with pytest.raises(ConfigurationError, match=key.partition("+")[0]):
        immure("check-proof", proof, "--key", key)


def test_rotations_that_lead_nowhere_are_named(state: Path, proof: Path, tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes((state / "ledger" / "current.jsonl").read_bytes())
    with pytest.raises(ConfigurationError, match="rotates no key"):
        immure("check-proof", proof, "--key", vkey(state), "--rotations", tmp_path / "r")
