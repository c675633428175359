"""Which daemon to speak to, with which key: options first, then --state, then the environment, then the system's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["SYSTEM_SOCKET", "SYSTEM_STATE", "USER_KEY", "Target", "connection_options", "resolve"]

SYSTEM_SOCKET = "/run/immured/immured.sock"
SYSTEM_STATE = "/var/lib/immured"
USER_KEY = "~/.config/immure/key.pem"

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Target:
    """A daemon's socket, and the files of the caller's private key and of the daemon's public one (None: it stands
    beside the socket)."""

    socket: Path
    key: Path
    daemon_key: Path | None


def connection_options(command: F) -> F:
    """Adds --socket, --key, --daemon-key, --state, --as; parameters: socket, key_file, daemon_key, state, as_user."""
    for option in (
        click.option("--as", "as_user", metavar="USER", help="Act as this user (root only). Under sudo: the caller."),
        click.option("--state", metavar="DIR", help="A daemon's state directory: its socket and its admin key."),
        click.option("--daemon-key", metavar="FILE", help="The daemon's public key.  [$IMMURE_DAEMON_KEY]"),
        click.option("--key", "key_file", metavar="FILE", help=f"Your private key.  [$IMMURE_KEY, {USER_KEY}]"),
        click.option("--socket", metavar="PATH", help=f"The daemon's socket.  [$IMMURE_SOCKET, {SYSTEM_SOCKET}]"),
    ):
        command = option(command)
    return command


def resolve(
    socket: str | None, key: str | None, daemon_key: str | None, state: str | None,
    environment: Mapping[str, str] = os.environ,
) -> Target:  # fmt: skip
    """Settle the target. Nothing is opened yet; relative paths are taken from the current directory."""
    if state is not None:
        base = Path(state).absolute()
        socket = socket or str(base / "immured.sock")
        key = key or str(base / "keys/admin.pem")
        daemon_key = daemon_key or str(base / "keys/daemon.pub")
    socket = socket or environment.get("IMMURE_SOCKET") or SYSTEM_SOCKET
    key = key or environment.get("IMMURE_KEY") or USER_KEY
    daemon_key = daemon_key or environment.get("IMMURE_DAEMON_KEY")
    return Target(
        Path(socket).absolute(), Path(key).expanduser().absolute(), Path(daemon_key).absolute() if daemon_key else None
    )
