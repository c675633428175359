"""A type that no entry has is said: nothing printed would look like nothing found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from immured.cli.app import app
from immured.cli.ledger_types import KNOWN

DOCUMENT = Path(__file__).parents[2] / "docs" / "ledger.md"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    assert CliRunner().invoke(app, ["init", "--state", str(made)]).exit_code == 0
    return made


def show(state: Path, *types: str) -> Result:
    words = [word for one in types for word in ("--type", one)]
    return CliRunner().invoke(app, ["ledger", "show", "--state", str(state), *words])


@pytest.mark.parametrize(
    ("given", "meant"),
    [("run.acepted", "; did you mean 'run.accepted'?"), ("runs.*", ""), ("nothing", "")],
)
def test_a_name_that_there_is_not(state: Path, given: str, meant: str) -> None:
    done = show(state, "ledger.created", given)
    assert done.exit_code == 0
    assert f"this version writes no entry of the type {given!r}{meant} (" in done.stderr
    assert "ledger.created" in done.stdout


def test_a_name_and_a_pattern_that_there_are_say_nothing(state: Path) -> None:
    assert show(state, "ledger.created", "run.*", "*").stderr == ""


def test_the_document_has_them_all() -> None:
    written = set(re.findall(r"`([a-z]+\.[a-z_]+)`", DOCUMENT.read_text()))
    assert written >= KNOWN
