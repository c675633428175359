"""Keys on the command line."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from immured.cli.app import app
from immured.cli.key import read_public
from immured.errors import ConfigurationError
from immured.wire.keys import PrivateKey


def test_a_new_key_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine" / "key.pem"
    done = CliRunner().invoke(app, ["key", "new", "--out", str(path), "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)
    key = PrivateKey.from_pem(path.read_bytes())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (told["id"], told["public"]) == (key.id, key.public.raw.hex())
    assert read_public(str(tmp_path / "mine" / "key.pub")) == key.public


def test_a_public_half_that_exists_leaves_no_private_one(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text("precious")
    with pytest.raises(ConfigurationError) as refused:
        CliRunner().invoke(
            app, ["key", "new", "--out", str(tmp_path / "key.pem")], catch_exceptions=False, standalone_mode=False
        )
    assert refused.value.code == "key_exists"
    assert [one.name for one in tmp_path.iterdir()] == ["key.pub"]


def test_a_key_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("precious")
    with pytest.raises(ConfigurationError) as refused:
        CliRunner().invoke(app, ["key", "new", "--out", str(path)], catch_exceptions=False, standalone_mode=False)
    assert refused.value.code == "key_exists"
    assert path.read_text() == "precious"


def test_a_public_key_is_read_from_hex() -> None:
    key = PrivateKey.generate().public
    assert read_public(key.raw.hex().upper()) == key


@pytest.mark.parametrize("text", ["", "00" * 31, "/nowhere/key.pub"])
def test_what_is_no_public_key_is_refused_with_what_to_give(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_public(text)
    assert refused.value.remedy
