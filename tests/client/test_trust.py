"""Which socket, which key, whose replies: in order, and never silently nobody's."""

from __future__ import annotations

from pathlib import Path

import pytest

from immured.client.trust import USER_KEY, resolve
from immured.errors import ConfigurationError
from tests.client.peer import DAEMON, USER


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir()
    (tmp_path / "user.pem").write_bytes(USER.to_pem())
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    return {"IMMURE_SOCKET": str(home / "immured.sock"), "IMMURE_KEY": str(home / "user.pem")}


def test_the_environment_names_socket_and_key(home: Path) -> None:
    (home / "daemon.pub").write_bytes(DAEMON.public.to_pem())
    trust = resolve(None, None, None, environment=environment(home))
    assert (trust.socket, trust.key.id, trust.daemon) == (home / "immured.sock", USER.id, DAEMON.public)


def test_the_daemon_s_key_is_found_among_its_keys(home: Path) -> None:
    (home / "keys" / "daemon.pub").write_bytes(DAEMON.public.to_pem())
    assert resolve(None, None, None, environment=environment(home)).daemon == DAEMON.public


def test_the_key_beside_the_socket_comes_first(home: Path) -> None:
    (home / "daemon.pub").write_bytes(DAEMON.public.to_pem())
    (home / "keys" / "daemon.pub").write_bytes(USER.public.to_pem())
    assert resolve(None, None, None, environment=environment(home)).daemon == DAEMON.public


def test_the_key_that_immure_made_is_found_at_home(home: Path) -> None:
    (home / "daemon.pub").write_bytes(DAEMON.public.to_pem())
    made = home / USER_KEY
    made.parent.mkdir(parents=True)
    made.write_bytes(USER.to_pem())
    given = {"IMMURE_SOCKET": str(home / "immured.sock"), "HOME": str(home)}
    assert resolve(None, None, None, environment=given).key.id == USER.id


def test_a_pinned_key_is_not_looked_for(home: Path) -> None:
    (home / "daemon.pub").write_bytes(USER.public.to_pem())
    pinned = home / "pinned.pub"
    pinned.write_bytes(DAEMON.public.to_pem())
    assert (
        resolve(None, None, None, environment={**environment(home), "IMMURE_DAEMON_KEY": str(pinned)}).daemon
        == DAEMON.public
    )


def test_an_argument_goes_before_the_environment(home: Path) -> None:
    given = environment(home) | {"IMMURE_DAEMON_KEY": "/none", "IMMURE_KEY": "/none"}
    assert resolve(None, USER, DAEMON.public, environment=given).daemon == DAEMON.public


def test_no_daemon_key_is_an_error_and_not_trust_at_first_use(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="no_daemon_key"):
        resolve(None, None, None, environment=environment(home))


def test_nobody_is_believed_only_where_it_is_said(home: Path) -> None:
    assert resolve(None, None, None, insecure=True, environment=environment(home)).daemon is None


def test_no_key_says_how_to_get_one(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="no_key") as refused:
        resolve(home / "immured.sock", None, None, environment={})
    assert "immure key new" in refused.value.remedy


@pytest.mark.parametrize(("name", "code"), [("IMMURE_KEY", "no_key"), ("IMMURE_DAEMON_KEY", "no_daemon_key")])
def test_a_file_that_is_missing_is_named(home: Path, name: str, code: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{code}: /does/not/exist"):
        resolve(None, None, None, environment={**environment(home), name: "/does/not/exist"})
