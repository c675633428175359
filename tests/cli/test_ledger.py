"""`immure ledger`, offline, on real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from immured.cli.app import app
from immured.errors import ConfigurationError
from immured.ledger import Ledger, create
from immured.wire.keys import PrivateKey

ENTRIES = 5


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory's ledger: its first line, then `ENTRIES` runs, closed with a signed head."""
    base = tmp_path / "state"
    (base / "keys").mkdir(parents=True)
    create(base, PrivateKey.generate().id)
    ledger = Ledger.open(base)
    for number in range(ENTRIES):
        actor = {"key": f"ed25519:{number:032x}", "name": "tester", "uid": 1000 + number}
        ledger.entry("run.accepted", actor, {"sandbox": f"s{number}", "argv": [b"/bin/true"]}).wait()
    ledger.close()
    return base


def immure(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["ledger", *map(str, arguments)], catch_exceptions=False, standalone_mode=False)


def lines(state: Path) -> list[bytes]:
    return (state / "ledger" / "current.jsonl").read_bytes().splitlines()


def test_a_whole_ledger_is_whole(state: Path) -> None:
    report = json.loads(immure("verify", "--state", state, "--json").stdout)
    assert report["whole"]
    assert report["entries"] == len(lines(state))


def test_a_whole_ledger_exits_with_0(state: Path) -> None:
    assert immure("verify", "--state", state).return_value == 0


@pytest.mark.parametrize("number", range(ENTRIES + 1))
def test_one_flipped_bit_anywhere_is_found_and_its_line_named(state: Path, number: int) -> None:
    altered = [bytearray(line) for line in lines(state)]
    altered[number][len(altered[number]) // 2] ^= 1
    (state / "ledger" / "current.jsonl").write_bytes(b"".join(bytes(line) + b"\n" for line in altered))
    done = immure("verify", "--state", state, "--json")
    assert (done.return_value, json.loads(done.stdout)["problem"]["line"]) == (1, number + 1)


def test_lines_that_were_cut_off_at_the_end_are_missed(state: Path) -> None:
    path = state / "ledger" / "current.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines(state)[:-2]))
    assert immure("verify", "--state", state).return_value == 1


def test_a_copy_verifies_as_the_original_does(state: Path, tmp_path: Path) -> None:
    shutil.copytree(state / "ledger", tmp_path / "copy")
    shutil.copy(state / "keys" / "ledger.vkey", tmp_path)
    done = immure(
        "verify", "--file", tmp_path / "copy" / "current.jsonl", "--checkpoints", tmp_path / "copy" / "checkpoints",
        "--vkey", tmp_path / "ledger.vkey", "--json",
    )  # fmt: skip
    original = json.loads(immure("verify", "--state", state, "--json").stdout)
    copied = json.loads(done.stdout)
    assert {**copied, "path": ""} == {**original, "path": ""}


def test_a_file_by_itself_verifies_by_its_links(state: Path) -> None:
    done = immure("verify", "--file", state / "ledger" / "current.jsonl")
    assert done.return_value == 0
    assert "no heads were checked" in done.stdout


def test_a_ledger_that_is_not_there_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        immure("verify", "--file", tmp_path / "nothing.jsonl")
    assert refused.value.code == "ledger_unreadable"
    assert refused.value.remedy


def test_show_prints_the_ledgers_own_lines(state: Path) -> None:
    assert immure("show", "--state", state, "--json").stdout_bytes.splitlines() == lines(state)


def test_show_prints_one_entry_by_its_index(state: Path) -> None:
    assert immure("show", "--state", state, "--seq", "2", "--json").stdout_bytes.splitlines() == [lines(state)[2]]


def test_show_prints_a_span(state: Path) -> None:
    assert immure("show", "--state", state, "--seq", "1-3", "--json").stdout_bytes.splitlines() == lines(state)[1:4]


def test_show_selects_by_type_and_sandbox(state: Path) -> None:
    done = immure("show", "--state", state, "--type", "run.*", "--sandbox", "s1", "--json")
    assert [json.loads(line)["data"]["sandbox"] for line in done.stdout.splitlines()] == ["s1"]


def test_tail_prints_the_last(state: Path) -> None:
    assert immure("tail", "--state", state, "-n", "2", "--json").stdout_bytes.splitlines() == lines(state)[-2:]


def test_show_says_what_a_damaged_line_needs(state: Path) -> None:
    with (state / "ledger" / "current.jsonl").open("ab") as file:
        file.write(b"nonsense\n")
    with pytest.raises(ConfigurationError) as refused:
        immure("show", "--state", state)
    assert refused.value.code == "ledger_damaged"
    assert "ledger verify" in refused.value.remedy
