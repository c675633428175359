"""The commands that the daemon knows, one module per family. Each declares the permission that it needs, which is its
own name; `identity.policy.permissions` says what that is a permission to act on."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from immured.errors import ConfigurationError
from immured.identity.policy.permissions import PERMISSIONS, RIGHTS, TargetKind
from immured.service.context import Service
from immured.service.request import Answer, Request

__all__ = ["FAMILIES", "CommandSpec", "index", "load_commands"]

FAMILIES: Final = (
    *("run", "batch", "plan", "preflight", "kill", "status"),
    *("keys", "policy", "manifest", "grant", "proposal", "session", "consent", "whoami", "daemon", "ledger"),
    "metrics",
    "ledger_query",
    *("sandbox", "exec", "files", "changes", "snapshot", "volume", "image", "template"),
)

Handler = Callable[[Service, Request], Awaitable[Answer]]
"""What it does before it returns the awaitable is done at once, on the event loop."""


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command: its name, the permission without which it is denied, its handler."""

    name: str
    permission: str
    handle: Handler
    takes_descriptors: bool = False

    @property
    def target(self) -> TargetKind:
        """What it acts on: what its handler asks the warrant about."""
        return PERMISSIONS[self.permission]


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
        if spec.permission != spec.name or spec.permission in RIGHTS or spec.permission not in PERMISSIONS:
            raise ConfigurationError("internal", f"the command {spec.name!r} declares no permission", "report it")
        if spec.name in found:
            raise ConfigurationError("internal", f"two commands are called {spec.name!r}", "report it")
        found[spec.name] = spec
    return found
