"""`immure ledger verify --complete`: an intent without an outcome, which every link and head agrees with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from immured.cli.app import app
from immured.ledger import Ledger, entry_types
from immured.service.state import init_state
from tests.patience import PATIENCE_S

BY = {"daemon": "test"}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return init_state(tmp_path / "state").paths.root


def written(state: Path, *told: tuple[str, dict[str, Any]]) -> None:
    ledger = Ledger.open(state)
    for kind, data in told:
        ledger.entry(kind, BY, data).wait(PATIENCE_S)
    ledger.close()


def verify(state: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["ledger", "verify", "--state", str(state), *words], catch_exceptions=False)


def test_whole_and_complete(state: Path) -> None:
    ended = (entry_types.RUN_FINISHED, {"intent": 2})
    written(state, (entry_types.DAEMON_STARTED, {}), (entry_types.RUN_ACCEPTED, {}), ended)
    done = verify(state, "--complete")
    assert done.exit_code == 0, done.output
    assert "intents      1: 1 with their outcome, 0 open" in done.output
    assert json.loads(verify(state, "--complete", "--json").output)["intents"]["complete"] is True


def test_an_outcome_that_was_never_written_is_named(state: Path) -> None:
    begun: tuple[str, dict[str, Any]] = (entry_types.RUN_ACCEPTED, {})
    written(state, (entry_types.DAEMON_STARTED, {}), begun, (entry_types.DAEMON_STARTED, {}))
    assert verify(state).exit_code == 0  # every line and link is right
    done = verify(state, "--complete")
    assert done.exit_code == 1
    assert "NOT COMPLETE entry 2 (run.accepted)" in done.output
    [fault] = json.loads(verify(state, "--complete", "--json").output)["intents"]["faults"]
    assert (fault["seq"], fault["code"]) == (2, "no_outcome")
