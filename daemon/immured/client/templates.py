"""Sandboxes that a template held ready: an interpreter waits in each for one order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from immured.client.sandbox_questions import attach_order
from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from immured.client.order import Order
    from immured.client.sandbox_facts import SandboxFacts

__all__ = ["waiting_order"]


def waiting_order(
    facts: SandboxFacts,
    code: str,
    argv: Sequence[str] = (),
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    stdin: bytes = b"",
) -> Order:
    """What the interpreter that waits in the sandbox is told: `code`, as `python3 -c CODE ARGV...` would run it, then
    its standard input. Once: it runs nothing else. Raises ConfigurationError where none waits."""
    waiting = facts.raw.get("waiting")
    if not isinstance(waiting, Mapping) or not isinstance(waiting.get("exec"), str):
        raise ConfigurationError(
            "nothing_waits", f"no interpreter waits in {facts.id}", "create it with `template`, and keep what came back"
        )
    said: dict[str, object] = {"code": code, "argv": list(argv), "env": dict(env or {})}
    if cwd is not None:
        said["cwd"] = cwd
    text = json.dumps(said).encode()
    start = waiting.get("from")
    begin = start if isinstance(start, int) else 0
    return attach_order(facts.id, str(waiting["exec"]), start=begin, stdin=b"%d\n%s%s" % (len(text), text, stdin))
