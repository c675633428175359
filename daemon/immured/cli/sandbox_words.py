"""What the subcommands of `immure sandbox` share: labels, durations, sandboxes in a line."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from immured.cli.table import span_text, table
from immured.errors import ConfigurationError
from immured.manifest.units import duration_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from immured.client.sandbox_facts import SandboxFacts

__all__ = ["SPAN", "by_shell", "escape_option", "label_text", "labels_of", "named", "now_ms", "sandbox_table"]


F = TypeVar("F", bound=Callable[..., Any])


class Span(click.ParamType[str]):
    """A duration as a manifest writes it."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            duration_of(str(value))
        except ValueError as wrong:
            self.fail(f"{value!r}: {wrong}", param, ctx)
        return str(value)


SPAN = Span()


def escape_option(command: F) -> F:
    """Adds --escape; parameter: escape, a byte or none."""
    said = "~. at the start of a line leaves, ~? lists the others. `none`: every key is the program's."
    return click.option(
        "--escape", metavar="KEY", default="~", show_default=True, callback=_escape, help=f"On a terminal: {said}"
    )(command)


def _escape(_ctx: click.Context, param: click.Parameter, value: str) -> bytes:
    if value == "none":
        return b""
    if len(value) != 1 or not value.isascii() or not value.isprintable():
        raise click.BadParameter("one printable ASCII character, or none", param=param)
    return value.encode()


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def labels_of(given: Sequence[str]) -> dict[str, str]:
    """`K=V` each. Raises ConfigurationError `usage`."""
    labels = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise ConfigurationError("usage", f"--label {text!r} is no label", "write --label NAME=VALUE")
        labels[name] = value
    return labels


def by_shell(shell: str | None, words: Sequence[str]) -> list[str]:
    """The command. With a shell the first word is a line for it, and the others are its $1, $2 and so on: nothing is
    ever put together to a line."""
    if shell is None:
        return list(words)
    return [shell, "-c", words[0], *([shell, *words[1:]] if len(words) > 1 else ())]


def named(facts: SandboxFacts) -> str:
    """What a person calls it."""
    return facts.name or facts.id


def sandbox_table(rows: Sequence[SandboxFacts], now: int) -> str:
    """Sandboxes, a line each, and where they are of several, the tenant and project. `now`: ms since the epoch."""
    apart = len({(one.tenant, one.project) for one in rows}) > 1
    return table(
        ("ID", "NAME", "STATE", "AGE", "LEFT", "EXECS", *(("IN",) if apart else ()), "LABELS"),
        [
            (
                one.id, one.name or "", one.state + (f" ({one.cause})" if one.cause else ""),
                span_text(now - one.created_ms), span_text(one.expires_ms - now) if one.live else "", str(one.execs),
                *((f"{one.tenant}/{one.project}",) if apart else ()), label_text(one.labels),
            )
            for one in rows
        ],
    )  # fmt: skip


def label_text(labels: Mapping[str, str]) -> str:
    """`a=b c=d`."""
    return " ".join(f"{name}={value}" for name, value in sorted(labels.items()))
