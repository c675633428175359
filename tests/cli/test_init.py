"""`immure init`, and what a daemon that starts on its work refuses."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from immured.cli.app import app
from immured.errors import ConfigurationError
from immured.service.state import load_state


def init(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        app, ["init", "--state", str(state), *arguments], catch_exceptions=False, standalone_mode=False
    )


@pytest.fixture
def state(tmp_path: Path) -> Path:
    init(tmp_path / "state")
    return tmp_path / "state"


def test_it_says_where_the_admin_key_is(tmp_path: Path) -> None:
    told = json.loads(init(tmp_path / "state", "--json").stdout)
    assert Path(told["admin_key"]).is_file()
    assert told["daemon"] == load_state(tmp_path / "state").key.id


def test_its_next_lines_can_be_typed_as_they_are(tmp_path: Path) -> None:
    assert f"immured --state {tmp_path}/state" in init(tmp_path / "state").stdout


@pytest.mark.parametrize("name", ["daemon.pem", "admin.pem", "ledger.pem", "keyring.json"])
def test_private_keys_are_the_owners_alone(state: Path, name: str) -> None:
    assert stat.S_IMODE((state / "keys" / name).stat().st_mode) == 0o600


def test_a_directory_with_something_in_it_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    with pytest.raises(ConfigurationError) as refused:
        init(tmp_path)
    assert refused.value.code == "state_exists"
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_key_directory_that_others_may_write_refuses_the_start(state: Path) -> None:
    (state / "keys").chmod(0o777)
    with pytest.raises(ConfigurationError) as refused:
        load_state(state)
    assert refused.value.code == "bad_state"
