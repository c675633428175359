"""`immure ledger` beside what was kept elsewhere: what it prints, and what it says to whoever asked wrongly."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.cli.app import app
from immured.errors import ConfigurationError
from immured.ledger import Ledger, create
from immured.ledger.checkpoint import Cosigner, add_lines
from immured.wire.keys import PrivateKey

WITNESS = Cosigner(Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32), "w1.example")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory's ledger, signed at 1 and at 3 entries; a witness saw only the first."""
    base = tmp_path / "state"
    (base / "keys").mkdir(parents=True)
    create(base, PrivateKey.generate().id)
    with Ledger.open(base) as ledger:
        for number in range(2):
            data = {
                "sandbox": f"s{number}",
                "argv": [f"{word}" * 90 for word in "abcdefgh"],
                "last": f"ends in {number}",
            }
            ledger.entry("run.accepted", {"name": "tester"}, data).wait()
    oldest, seen = min((base / "ledger" / "checkpoints").iterdir()), base / "ledger" / "witnessed"
    seen.mkdir(exist_ok=True)
    note = oldest.read_bytes()
    (seen / oldest.name).write_bytes(add_lines(note, [WITNESS.line(note.partition(b"\n\n")[0] + b"\n", 1)]))
    return base


def immure(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["ledger", *map(str, arguments)], catch_exceptions=False, standalone_mode=False)


def heads(state: Path) -> list[Path]:
    return sorted((state / "ledger" / "checkpoints").iterdir())


def test_a_state_directory_without_a_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ledger") as caught:
        immure("verify", "--state", tmp_path)
    assert caught.value.code == "ledger_key_unreadable"
    assert str(tmp_path) in caught.value.message


def test_an_anchor_that_agrees_is_said(state: Path) -> None:
    done = immure("verify", "--state", state, "--anchor", heads(state)[0])
    assert f"anchor       {heads(state)[0]}: what it signs is the beginning of this ledger" in done.stdout


def test_what_no_witness_saw_yet_is_exported_all_the_same(state: Path, tmp_path: Path) -> None:
    done = immure("export", "--state", state, "--jsonl", tmp_path / "all", "--proofs")
    assert "3 entries, of 3 that are signed" in done.stdout
    assert len((tmp_path / "all").read_bytes().splitlines()) == 3
    done = immure("check-export", tmp_path / "all", "--key", state / "keys" / "ledger.vkey")
    assert "3 lines, each proven" in done.stdout


def test_from_a_head_that_no_witness_saw(state: Path, tmp_path: Path) -> None:
    immure("consistency", "--from", 3, "--state", state, "-o", tmp_path / "proof")
    done = immure("check-consistency", tmp_path / "proof", heads(state)[-1], "--key", state / "keys" / "ledger.vkey")
    assert "goes on from size 3" in done.stdout


def test_of_long_lines_what_differs_is_shown(state: Path, tmp_path: Path) -> None:
    immure("export", "--state", state, "--jsonl", tmp_path / "all")
    kept = (tmp_path / "all").read_bytes()
    (tmp_path / "all").write_bytes(kept.replace(b"ends in 0", b"ends at 0"))
    done = immure("compare", "--state", state, "--against", tmp_path / "all")
    here, there = (line for line in done.stdout.splitlines() if line.startswith(("  here", "  there")))
    assert "ends in 0" in here
    assert "ends at 0" in there


def test_short_lines_are_shown_from_their_beginning(state: Path, tmp_path: Path) -> None:
    (tmp_path / "all").write_bytes((state / "ledger" / "current.jsonl").read_bytes().replace(b"tester", b"taster", 1))
    done = immure("compare", "--state", state, "--against", tmp_path / "all")
    assert done.stdout.count(': {"v":1,"seq":1') == 2


@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("text", ["yesterday", "2026-13", "2026-01-31 12:00", "2026-01-31T25", "1h", "٢٠٢٦"])
def test_a_moment_that_is_none_selects_nothing_silently(state: Path, tmp_path: Path, option: str, text: str) -> None:
    with pytest.raises(click.BadParameter, match="write a moment in UTC"):
        immure("export", "--state", state, "--jsonl", tmp_path / "some", option, text)
    assert not (tmp_path / "some").exists()


@pytest.mark.parametrize("words", [["ledger", "show"], ["ledger", "tail"], ["consent", "export"]])
def test_nor_anywhere_else(state: Path, words: list[str]) -> None:
    done = CliRunner().invoke(app, [*words, "--state", str(state), "--since", "yesterday"])
    assert done.exit_code == 2
    assert "write a moment in UTC" in done.stderr


@pytest.mark.parametrize("text", ["2026", "2026-01", "2026-01-31", "2026-01-31T12", "2026-01-31T12:00:00.123456789Z"])
def test_a_moment_may_be_the_beginning_of_one(state: Path, tmp_path: Path, text: str) -> None:
    assert immure("export", "--state", state, "--jsonl", tmp_path / "some", "--since", text).exit_code == 0


def test_a_directory_to_copy_to_has_to_be_there(state: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such directory") as caught:
        immure("export", "--state", state, "--to", tmp_path / "unmounted")
    assert caught.value.code == "export_unreachable"
    assert not (tmp_path / "unmounted").exists()


def test_what_is_compared_with_has_to_be_there(state: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere") as caught:
        immure("compare", "--state", state, "--against", tmp_path / "nowhere")
    assert caught.value.code == "not_comparable"


def test_lines_that_are_no_rotations_have_a_remedy(state: Path, tmp_path: Path) -> None:
    immure("prove", 1, "--state", state, "-o", tmp_path / "proof")
    trust = ("--key", state / "keys" / "ledger.vkey", "--rotations", state / "keys" / "ledger.vkey")
    with pytest.raises(ConfigurationError) as caught:
        immure("check-proof", tmp_path / "proof", *trust)
    assert "--type ledger.key_rotated" in caught.value.remedy
