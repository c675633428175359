"""The commands that the daemon knows, one module per family. Each declares the permission that it needs."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from immured.errors import ConfigurationError
from immured.identity.authorise import Permission
from immured.service.context import Service
from immured.service.request import Answer, Request

__all__ = ["FAMILIES", "CommandSpec", "index", "load_commands"]

FAMILIES: Final = ("run", "plan", "kill", "keys", "status")

Handler = Callable[[Service, Request], Awaitable[Answer]]
"""What it does before it returns the awaitable is done at once, on the event loop."""


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command: its name, the permission without which it is denied, how a denial calls the deed, its handler."""

    name: str
    permission: Permission
    deed: str
    handle: Handler
    takes_descriptors: bool = False


def load_commands() -> dict[str, CommandSpec]:
    """Every command by name. Raises ConfigurationError where one declares no permission, or a name stands twice."""
    specs: list[Any] = []
    for family in FAMILIES:
        specs += importlib.import_module(f"immured.service.commands.{family}").COMMANDS
    return index(specs)


def index(specs: Iterable[CommandSpec]) -> dict[str, CommandSpec]:
    """Commands by name, checked as `load_commands` says."""
    found: dict[str, CommandSpec] = {}
    for spec in specs:
        if not isinstance(spec.permission, Permission):
            raise ConfigurationError("internal", f"the command {spec.name!r} declares no permission", "report it")
        if spec.name in found:
            raise ConfigurationError("internal", f"two commands are called {spec.name!r}", "report it")
        found[spec.name] = spec
    return found
