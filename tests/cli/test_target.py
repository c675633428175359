"""Which daemon, which key: options, then --state, then the environment, then the system's."""

from __future__ import annotations

from pathlib import Path

from immured.cli.target import SYSTEM_SOCKET, resolve

ENVIRONMENT = {"IMMURE_SOCKET": "/e/sock", "IMMURE_KEY": "/e/key", "IMMURE_DAEMON_KEY": "/e/daemon"}


def test_the_systems_daemon_and_the_users_key_by_default() -> None:
    target = resolve(None, None, None, None, {})
    assert target.socket == Path(SYSTEM_SOCKET)
    assert target.key == Path("~/.config/immure/key.pem").expanduser()
    assert target.daemon_key is None


def test_the_environment_before_the_default() -> None:
    target = resolve(None, None, None, None, ENVIRONMENT)
    assert (target.socket, target.key, target.daemon_key) == (Path("/e/sock"), Path("/e/key"), Path("/e/daemon"))


def test_a_state_directory_before_the_environment() -> None:
    target = resolve(None, None, None, "/s", ENVIRONMENT)
    assert target.socket == Path("/s/immured.sock")
    assert target.key == Path("/s/keys/admin.pem")
    assert target.daemon_key == Path("/s/keys/daemon.pub")


def test_an_option_before_the_state_directory() -> None:
    target = resolve("/o/sock", "/o/key", "/o/daemon", "/s", ENVIRONMENT)
    assert (target.socket, target.key, target.daemon_key) == (Path("/o/sock"), Path("/o/key"), Path("/o/daemon"))
