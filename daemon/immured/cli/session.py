"""From options to a client: keys are read as who we are, then we become whom we act for, then we connect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from immured.cli.acting import become, wanted
from immured.cli.target import USER_KEY, resolve
from immured.client import Client
from immured.client.trust import resolve as trust
from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from immured.client.trust import Trust

__all__ = ["connect", "prepare"]


def prepare(
    socket: str | None, key: str | None, daemon_key: str | None, state: str | None, as_user: str | None
) -> Trust:
    """Settle and read the keys, then act as --as or sudo say. Everything later (paths, files) is done as that user.

    Raises ConfigurationError.
    """
    target = resolve(socket, key, daemon_key, state)
    if target.key == Path(USER_KEY).expanduser() and not target.key.exists():
        raise ConfigurationError(
            "no_key", f"there is no key at {target.key}",
            "make one (immure key new) and have it let in; or name one: --key FILE, --state DIR (its admin key)",
        )  # fmt: skip
    settled = trust(target.socket, target.key, target.daemon_key)
    user = wanted(as_user)
    if user is not None:
        become(user, explicit=as_user is not None)
    return settled


def connect(
    socket: str | None, key: str | None, daemon_key: str | None, state: str | None, as_user: str | None
) -> Client:
    """A client that connects at its first command, as whom `prepare` says. Raises ConfigurationError."""
    settled = prepare(socket, key, daemon_key, state, as_user)
    return Client(settled.socket, settled.key, settled.daemon)
