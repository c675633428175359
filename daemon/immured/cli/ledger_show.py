"""`immure ledger show` and `tail`: what the entries say, one a line."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from immured.cli.ledger_lines import Display, Shown, beside
from immured.cli.ledger_places import as_owner, ledger_file, place_options, unreadable
from immured.cli.ledger_types import types_option
from immured.cli.moments import stamp_option
from immured.cli.say import note
from immured.errors import ConfigurationError
from immured.ledger.query import find, newest
from immured.ledger.show import BadLine, Selection, follow, last

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import Any, TypeVar

    from immured.ledger.entry import Entry

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["print_entries", "selecting_options", "show", "tail"]

_PATIENCE_S = 1.0
_TOGETHER = 1 << 16

RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def selecting_options(command: F) -> F:
    """Adds what `Selection` has, and --json."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the ledger's own lines, one JSON object each."),
        click.option("--sandbox", default="", metavar="ID", help="Of this sandbox."),
        click.option(
            "--actor",
            default="",
            metavar="TEXT",
            help="By this key, uid, role, tenant, session, `sub`.",
        ),
        click.option("--until", default="", metavar="TIME", callback=stamp_option, help="Before this moment."),
        click.option(
            "--since", default="", metavar="TIME", callback=stamp_option, help="From this moment on: 2026-01-31T12"
        ),
        click.option(
            "--type",
            "types",
            multiple=True,
            metavar="TYPE",
            callback=types_option,
            help="Of this type; run.* is a pattern.",
        ),
    ):
        command = option(command)
    return command


def _display_options(command: F) -> F:
    """Adds --tenant, --local, --follow (parameters: tenant, local, following)."""
    tenant = click.option("--tenant", metavar="NAME", help="This tenant's; '' for the host's.")
    local = click.option("--local", is_flag=True, help="Times of this place, not UTC.")
    following = click.option("-f", "--follow", "following", is_flag=True, help="Go on as entries come.")
    return tenant(local(following(command)))


@click.command()
@place_options
@click.option("--seq", metavar="N[-M]", help="Only entry N, or N to M.")
@_display_options
@selecting_options
def show(
    state: str, file: str | None, seq: str | None, as_json: bool, local: bool, following: bool, **chosen: Any
) -> None:
    """Print entries, one a line. The chain is not checked here: that is `verify`'s.

    Of a large ledger's directory that one may write in, an index is made beside the lines; it can be deleted.
    """
    first, end = _span(seq)
    path, selection = ledger_file(state, file), Selection(first=first, end=end, **chosen)
    with _reading(path) as indexed:
        before = last(path, 1) if following else []
        there = replace(selection, end=_least(end, before[-1].seq + 1 if before else 0)) if following else selection
        progress = _Progress()
        print_entries(progress.over(find(path, there, progress, index=indexed)), as_json, local)
        if following:
            _follow(path, selection, before, as_json, local)


@click.command()
@place_options
@click.option("-n", "count", type=click.IntRange(0), default=10, show_default=True, help="How many to begin with.")
@_display_options
@selecting_options
def tail(state: str, file: str | None, count: int, as_json: bool, local: bool, following: bool, **chosen: Any) -> None:
    """Print the last entries, and with -f those that come."""
    path, selection = ledger_file(state, file), Selection(**chosen)
    with _reading(path) as indexed:
        before = last(path, 1)
        there = replace(selection, end=before[-1].seq + 1 if before else 0)
        progress = _Progress()
        print_entries(progress.over(newest(path, count, there, progress, index=indexed)), as_json, local)
        if following:
            _follow(path, selection, before, as_json, local)


def _least(end: int | None, other: int) -> int:
    return other if end is None else min(end, other)


def _span(seq: str | None) -> tuple[int, int | None]:
    if seq is None:
        return 0, None
    found = RANGE.fullmatch(seq)
    if found is None:
        raise click.UsageError(f"--seq {seq} is neither N nor N-M")
    first = int(found[1])
    return first, int(found[2] or first) + 1


class _Progress:
    """Says on stderr how far an index is, once that has taken a while."""

    def __init__(self) -> None:
        self._began, self._said = time.monotonic(), False

    def __call__(self, known: int) -> None:
        now = time.monotonic()
        if now - self._began < _PATIENCE_S:
            return
        self._began, again = now, self._said
        self._said = True
        if sys.stderr.isatty():
            click.echo(f"\rimmure: note: indexing the ledger: {known:,} entries ", err=True, nl=False)
        elif not again:
            note("the ledger is being indexed, which makes later questions fast")

    def over(self, found: Iterable[Entry]) -> Iterator[Entry]:
        """The same; before the first of them, what was said is wiped from the terminal."""
        for nth, entry in enumerate(found):
            if not nth and self._said and sys.stderr.isatty():
                click.echo("\r\x1b[K", err=True, nl=False)
            yield entry


def _display(local: bool) -> Display:
    terminal = sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Display(local, colour, shutil.get_terminal_size().columns if terminal else None)


def print_entries(found: Iterable[Entry], as_json: bool, local: bool) -> None:
    """Many at once: a write a line would take longer than finding them."""
    display, held = _display(local), bytearray()
    lines = (entry.line for entry in found) if as_json else (display.line(shown).encode() for shown in beside(found))
    try:
        for line in lines:
            held += line + b"\n"
            if len(held) >= _TOGETHER:
                click.echo(bytes(held), nl=False)
                held.clear()
    finally:
        if held:
            click.echo(bytes(held), nl=False)


def _follow(path: Path, selection: Selection, before: list[Entry], as_json: bool, local: bool) -> None:
    display = _display(local)
    for entry in follow(path, selection, after=before[-1].seq if before else -1):
        if selection.end is not None and entry.seq >= selection.end:
            return
        click.echo(entry.line.decode() if as_json else display.line(Shown(entry)))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[bool]:
    """Whether an index may be made; and what to say of a ledger that cannot be read."""
    try:
        with as_owner(path) as own:
            yield own
    except OSError as failed:
        if isinstance(failed, BrokenPipeError):
            raise
        raise unreadable(failed) from failed
    except BadLine as bad:
        raise ConfigurationError("ledger_damaged", str(bad), "immure ledger verify names what is wrong") from bad
