"""Which daemon to speak to, with which key: options first, then --state, then the environment, then the system's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from immured.errors import ConfigurationError

__all__ = [
    "AGENT", "NAMES", "SYSTEM_SOCKET", "SYSTEM_STATE", "USER_KEY", "Names", "Target",
    "connection_options", "name_options", "names", "resolve",
]  # fmt: skip

SYSTEM_SOCKET = "/run/immured/immured.sock"
SYSTEM_STATE = "/var/lib/immured"
USER_KEY = "~/.config/immure/key.pem"

AGENT = "agent:"
"""Before the name of a key that signs in ssh-agent."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Target:
    """A daemon's socket; the file of the caller's private key, or `agent:NAME`; and the file of the daemon's public key
    (None: it stands beside the socket)."""

    socket: Path
    key: Path | str
    daemon_key: Path | None


@dataclass(frozen=True)
class Names:
    """Under which names commands are given, by which chain's file, and why they are proposed instead, if they are."""

    persona: str | None = None
    tenant: str | None = None
    project: str | None = None
    sub: str | None = None
    session: str | None = None
    certificate: str | None = None
    propose: str | None = None


NAMES = {
    "tenant": ("NAME", "In this tenant."),
    "project": ("NAME", "In this project of it."),
    "persona": ("NAME", "Under this persona."),
    "sub": ("WHO", "On whose behalf."),
    "session": ("ID", "In this session: immure session open."),
    "certificate": ("FILE", "By what chain your key acts: immure key certify."),
}
"""Options that each command takes, and its group before it; each also as a variable, IMMURE_TENANT and so on."""

_META = "immured.names"


def name_options(command: F) -> F:
    """Adds --tenant, --project, --persona, --sub, --session, --certificate, --propose. They are no parameters: what was
    given is `names()`, an option behind the subcommand before one in front of it."""
    why = "Do not do it: propose it, for others to approve."
    command = click.option("--propose", metavar="WHY", help=why, expose_value=False, callback=_note)(command)
    for name, (metavar, said) in reversed(NAMES.items()):
        shown = f"{said}  [$IMMURE_{name.upper()}]"
        command = click.option(f"--{name}", metavar=metavar, help=shown, expose_value=False, callback=_note)(command)
    return command


def _note(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta.setdefault(_META, {})[option.name] = value


def names(environment: Mapping[str, str] = os.environ) -> Names:
    """What the command that runs was given, then the environment. Raises ConfigurationError `bad_argument`."""
    context = click.get_current_context(silent=True)
    given = {} if context is None else context.meta.get(_META, {})
    found = {name: given.get(name) or environment.get(f"IMMURE_{name.upper()}") or None for name in NAMES}
    found["propose"] = given.get("propose")
    for name, value in found.items():
        if name != "certificate" and value is not None and not _is_text(value):
            raise ConfigurationError("bad_argument", f"--{name} is not UTF-8", "names are text")
    return Names(**found)


def _is_text(value: str) -> bool:
    """Whether all of its bytes were UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def connection_options(command: F) -> F:
    """Adds --socket, --key, --daemon-key, --state, --as; parameters: socket, key_file, daemon_key, state, as_user. And
    `name_options`."""
    command = name_options(command)
    for option in (
        click.option("--as", "as_user", metavar="USER", help="Act as this user (root only). Under sudo: the caller."),
        click.option("--state", metavar="DIR", help="A daemon's state directory: its socket and its admin key."),
        click.option("--daemon-key", metavar="FILE", help="The daemon's public key.  [$IMMURE_DAEMON_KEY]"),
        click.option(
            "--key", "key_file", metavar="FILE",
            help=f"Your private key; agent:NAME or a .pub: in ssh-agent.  [$IMMURE_KEY, {USER_KEY}]",
        ),
        click.option("--socket", metavar="PATH", help=f"The daemon's socket.  [$IMMURE_SOCKET, {SYSTEM_SOCKET}]"),
    ):  # fmt: skip
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
        Path(socket).absolute(),
        key if key.startswith(AGENT) else Path(key).expanduser().absolute(),
        Path(daemon_key).absolute() if daemon_key else None,
    )
