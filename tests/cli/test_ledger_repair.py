"""`immure ledger repair --dry-run` says what the next start then does; and touches nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from immured.cli.app import app
from immured.errors import ConfigurationError
from immured.ledger import Ledger
from immured.service.state import init_state
from tests.patience import PATIENCE_S

BY = {"daemon": "test"}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    root = init_state(tmp_path / "state").paths.root
    ledger = Ledger.open(root)
    for number in range(3):
        ledger.entry("test.entered", BY, {"number": number}).wait(PATIENCE_S)
    ledger.close()
    ledger = Ledger.open(root)
    ledger.entry("test.entered", BY, {"number": 3}).wait(PATIENCE_S)
    ledger.entry("test.entered", BY, {"number": 4}).wait(PATIENCE_S)
    ledger.close()
    (root / "ledger" / "resume").unlink(missing_ok=True)
    return root


def repair(state: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["ledger", "repair", "--state", str(state), *words], catch_exceptions=False)


def said(state: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(repair(state, "--dry-run", "--json").output)
    return found


def content(state: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(state.rglob("*")) if path.is_file()}


def torn(log: Path) -> None:
    log.write_bytes(log.read_bytes() + b'{"v":1,"seq":6,"ts":"2026')


def flipped(log: Path) -> None:
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(bytes(data))


def cut(log: Path) -> None:
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))


def test_a_whole_one_needs_nothing(state: Path) -> None:
    before = content(state)
    done = repair(state, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "there is nothing to repair" in done.output
    assert content(state) == before


def test_an_unfinished_write_is_foretold_as_it_then_comes(state: Path) -> None:
    log = state / "ledger" / "current.jsonl"
    whole = log.read_bytes()
    torn(log)
    before, foretold = content(state), said(state)
    assert content(state) == before
    remains = log.read_bytes()[len(whole) :]
    assert foretold["aside"] == {
        "file": "current.jsonl",
        "offset": len(whole),
        "length": len(remains),
        "sha256": hashlib.sha256(remains).hexdigest(),
        "seq": foretold["entries"],
    }
    assert "quarantine/" in repair(state, "--dry-run").output
    Ledger.open(state).close()
    [aside] = (state / "ledger" / "quarantine").iterdir()
    assert aside.read_bytes() == remains
    assert log.read_bytes().startswith(whole)


@pytest.mark.parametrize("damage", [flipped, cut])
def test_damage_is_named_as_the_start_then_names_it(state: Path, damage: Callable[[Path], None]) -> None:
    damage(state / "ledger" / "current.jsonl")
    before = content(state)
    done, foretold = repair(state, "--dry-run"), said(state)
    assert done.exit_code == 1
    assert content(state) == before
    with pytest.raises(ConfigurationError) as refused:
        Ledger.open(state)
    assert foretold["code"] == refused.value.code == "ledger_damaged"
    assert foretold["message"] == refused.value.message
    assert "current.jsonl: line " in done.output
    assert "expected" in done.output


def test_one_that_is_open_is_not_judged(state: Path) -> None:
    ledger = Ledger.open(state)
    try:
        with pytest.raises(ConfigurationError) as refused:
            repair(state, "--dry-run")
        assert refused.value.code == "ledger_in_use"
    finally:
        ledger.close()


def test_without_the_word_it_does_nothing(state: Path) -> None:
    before = content(state)
    done = repair(state)
    assert done.exit_code == 2
    assert "only --dry-run" in done.output
    assert content(state) == before
