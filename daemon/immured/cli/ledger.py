"""`immure ledger`: verify and read a ledger's files. No daemon, no key; root only where the files are root's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.cli.say import json_text, printable
from immured.cli.target import SYSTEM_STATE
from immured.errors import ConfigurationError
from immured.ledger.ledger import load_vkeys
from immured.ledger.show import BadLine, Selection, entries, follow, last, one_line
from immured.ledger.verify import Report, verify_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    from immured.ledger.entry import Entry

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["ledger"]

RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def place_options(command: F) -> F:
    """Adds --state and --file (parameters: state, file)."""
    state = click.option("--state", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="A state directory.")
    file = click.option("--file", metavar="F", type=click.Path(), help="A ledger's file by itself.")
    return state(file(command))


def selecting_options(command: F) -> F:
    """Adds what `Selection` has, and --json."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the ledger's own lines, one JSON object each."),
        click.option("--sandbox", default="", metavar="ID", help="Of this sandbox."),
        click.option("--actor", default="", metavar="TEXT", help="By this key id, key name or uid."),
        click.option("--until", default="", metavar="TIME", help="Before this moment."),
        click.option("--since", default="", metavar="TIME", help="From this moment on: 2026-01-31T12"),
        click.option("--type", "types", multiple=True, metavar="TYPE", help="Of this type; run.* is a pattern."),
    ):
        command = option(command)
    return command


@click.group(no_args_is_help=True)
def ledger() -> None:
    """Verify and read a ledger, without the daemon. docs/ledger.md specifies the file."""


@ledger.command()
@place_options
@click.option("--checkpoints", metavar="DIR", type=click.Path(), help="With --file: the signed heads to check against.")
@click.option("--vkey", metavar="F", type=click.Path(), help="With --file: the keys that they are signed with.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def verify(
    ctx: click.Context, state: str, file: str | None, checkpoints: str | None, vkey: str | None, as_json: bool
) -> None:
    """Check every line, every link, and every signed head. Exits 0 when the ledger is whole, 1 when it is not."""
    base = Path(state)
    path = Path(file) if file else base / "ledger" / "current.jsonl"
    if file is None:
        checkpoints = checkpoints or str(base / "ledger" / "checkpoints")
        vkey = vkey or str(base / "keys" / "ledger.vkey")
    if (checkpoints is None) != (vkey is None):
        raise click.UsageError("--checkpoints and --vkey belong together", ctx)
    try:
        report = verify_file(path, Path(checkpoints) if checkpoints else None, load_vkeys(Path(vkey)) if vkey else ())
    except OSError as failed:
        raise unreadable(failed) from failed
    click.echo(json_text(report.as_dict()) if as_json else "\n".join(_told(report)))
    ctx.exit(0 if report.whole else 1)


@ledger.command()
@place_options
@click.option("--seq", metavar="N[-M]", help="Only entry N, or N to M.")
@selecting_options
def show(state: str, file: str | None, seq: str | None, as_json: bool, **chosen: Any) -> None:
    """Print entries, one a line. The chain is not checked here: that is `verify`'s."""
    first, end = _span(seq)
    _print(entries(_path(state, file), Selection(first=first, end=end, **chosen)), as_json)


@ledger.command()
@place_options
@click.option("-n", "count", type=click.IntRange(0), default=10, show_default=True, help="How many to begin with.")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on as entries come.")
@selecting_options
def tail(state: str, file: str | None, count: int, following: bool, as_json: bool, **chosen: Any) -> None:
    """Print the last entries, and with -f those that come."""
    path, selection = _path(state, file), Selection(**chosen)

    def found() -> Iterator[Entry]:
        before = last(path, 1)
        yield from last(path, count, selection)
        if following:
            yield from follow(path, selection, after=before[-1].seq if before else -1)

    _print(found(), as_json)


def unreadable(failed: OSError) -> ConfigurationError:
    """What to say of a ledger's file that cannot be read."""
    return ConfigurationError(
        "ledger_unreadable", f"{failed.filename}: {failed.strerror}",
        "name a state directory with --state or a file with --file; a daemon's ledger is its operator's to read",
    )  # fmt: skip


def _path(state: str, file: str | None) -> Path:
    return Path(file) if file else Path(state) / "ledger" / "current.jsonl"


def _span(seq: str | None) -> tuple[int, int | None]:
    if seq is None:
        return 0, None
    found = RANGE.fullmatch(seq)
    if found is None:
        raise click.UsageError(f"--seq {seq} is neither N nor N-M")
    first = int(found[1])
    return first, int(found[2] or first) + 1


def _print(shown: Iterable[Entry], as_json: bool) -> None:
    try:
        for entry in shown:
            click.echo(entry.line.decode() if as_json else one_line(entry))
    except OSError as failed:
        if isinstance(failed, BrokenPipeError):
            raise
        raise unreadable(failed) from failed
    except BadLine as bad:
        raise ConfigurationError("ledger_damaged", str(bad), "immure ledger verify names what is wrong") from bad


def _told(report: Report) -> Iterable[str]:
    name = printable(report.path)
    if report.problem is not None:
        yield f"{name}: NOT WHOLE: {printable(str(report.problem))}"
        yield f"good before it: {report.entries} entries"
    for bad in report.bad_checkpoints:
        yield f"{name}: checkpoint {printable(bad.file)}: {printable(bad.message)}"
    if report.whole:
        yield f"{name}: whole"
        yield f"  ledger       {report.origin}"
        yield f"  entries      {report.entries}  ({report.first_ts} to {report.last_ts})"
        yield f"  root         {report.root}"
        signed = f"{report.covered} of them under {report.checkpoints} signed heads"
        yield f"  signed       {signed}" if report.checkpoints else "  signed       no heads were checked"
