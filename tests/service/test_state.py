"""A state directory: what `init` makes, what it refuses, what a daemon refuses to start on."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.errors import ConfigurationError
from immured.identity.keyring import Role
from immured.ledger import Ledger
from immured.service.manifest_files import ManifestFiles, check_own
from immured.service.state import Paths, init_state, load_state, publish_key
from immured.wire.keys import PrivateKey, PublicKey


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return init_state(tmp_path / "state").paths


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (".", 0o711),
        ("keys", 0o711),
        ("keys/daemon.pem", 0o600),
        ("keys/admin.pem", 0o600),
        ("keys/ledger.pem", 0o600),
        ("keys/keyring.json", 0o600),
        ("keys/daemon.pub", 0o644),
        ("keys/ledger.vkey", 0o644),
        ("daemon.pub", 0o644),
        ("ledger", 0o700),
        ("config.toml", 0o644),
    ],
)
def test_everything_has_its_mode_whatever_the_umask(tmp_path: Path, name: str, wanted: int) -> None:
    before = os.umask(0o077)
    try:
        init_state(tmp_path / "state")
    finally:
        os.umask(before)
    assert mode(tmp_path / "state" / name) == wanted


def test_the_admin_key_is_the_one_key_in_the_keyring(paths: Paths) -> None:
    [record] = load_state(paths.root).keyring
    assert record.role == Role.ADMIN
    assert record.public == PrivateKey.from_pem(paths.admin_key.read_bytes()).public


def test_the_key_beside_the_socket_is_the_daemons(paths: Paths) -> None:
    assert PublicKey.from_pem((paths.root / "daemon.pub").read_bytes()) == load_state(paths.root).key.public


def test_a_new_ledger_can_be_opened(paths: Paths) -> None:
    with Ledger.open(paths.root) as ledger:
        assert [entry.type for entry in ledger.replay()] == ["ledger.created"]


def test_every_built_in_manifest_is_there_and_signed(paths: Paths) -> None:
    state, files = load_state(paths.root), ManifestFiles(paths.manifests)
    assert {f"sha256:{stem}" for stem in files.stems()} == set(state.classes.values())
    assert state.classes["default"] == state.default.digest
    for stem in files.stems():
        copy = files.read(stem, detached=False)
        check_own(stem, copy.raw, copy.own, [state.key.public])


def test_a_directory_with_anything_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    assert code(lambda: init_state(tmp_path)) == "state_exists"
    assert [entry.name for entry in tmp_path.iterdir()] == ["precious"]


def test_an_empty_directory_will_do(tmp_path: Path) -> None:
    init_state(tmp_path)


def test_a_state_is_not_made_twice(paths: Paths) -> None:
    before = paths.daemon_key.read_bytes()
    assert code(lambda: init_state(paths.root)) == "state_exists"
    assert paths.daemon_key.read_bytes() == before


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("immured.ledger.create", full)
    assert code(lambda: init_state(tmp_path / "state")) == "bad_state"
    assert not (tmp_path / "state").exists()


def test_what_is_no_state_directory_is_said_to_be_none(tmp_path: Path) -> None:
    assert code(lambda: load_state(tmp_path)) == "no_state"


def test_a_key_that_others_may_write_is_refused(paths: Paths) -> None:
    paths.daemon_key.chmod(0o666)
    assert code(lambda: load_state(paths.root)) == "bad_state"


@pytest.mark.parametrize("name", ["daemon.pem", "ledger.pem", "admin.pem"])
def test_a_private_key_that_everybody_may_read_is_refused(paths: Paths, name: str) -> None:
    (paths.keys / name).chmod(0o644)
    with pytest.raises(ConfigurationError, match=name):
        load_state(paths.root)


def test_a_ledger_that_others_may_replace_is_refused(paths: Paths) -> None:
    paths.ledger.chmod(0o777)
    with pytest.raises(ConfigurationError, match="ledger"):
        load_state(paths.root)


def test_a_configuration_that_others_may_write_is_refused(paths: Paths) -> None:
    paths.config.chmod(0o664)
    assert code(lambda: load_state(paths.root)) == "bad_configuration"


def test_a_damaged_keyring_is_refused(paths: Paths) -> None:
    paths.keyring.write_text("{")
    assert code(lambda: load_state(paths.root)) == "keyring_damaged"


def test_the_daemons_key_is_published_beside_any_socket(paths: Paths, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    publish_key(paths, run / "immured.sock")
    assert (run / "daemon.pub").read_bytes() == paths.daemon_public.read_bytes()


def test_the_keyring_is_plain_json(paths: Paths) -> None:
    assert json.loads(paths.keyring.read_bytes())["v"] == 1
