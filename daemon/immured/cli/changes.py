"""`immure changes`: what a sandbox wrote to its captured directories: look at it, then accept or discard it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

import immured.client.changes  # noqa: F401 - now: who we become may not be able to read where it is
from immured.cli.say import json_text, note, printable
from immured.cli.session import connect
from immured.cli.table import size_text, table
from immured.cli.target import connection_options

if TYPE_CHECKING:
    from immured.client.changes import Changes
    from immured.client.changes_questions import Change, Side

__all__ = ["changes"]

F = TypeVar("F", bound=Callable[..., Any])

_LETTERS = {"created": "A", "modified": "M", "deleted": "D", "renamed": "R", "mode": "m"}


@click.group("changes", no_args_is_help=True)
def changes() -> None:
    """What a sandbox wrote to captured directories (`immure sandbox create --capture DIR`).

    Nothing of it is on the host before you accept it; then all of what you chose is, or nothing. Paths are as inside.

    \b
      immure changes list dev
      immure changes diff dev
      immure changes accept dev --skip /home/me/project/notes.txt
      immure changes discard dev --all
    """


def _answered(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")(connection_options(command))


_sandbox = click.argument("sandbox", metavar="SANDBOX")
_paths = click.argument("paths", metavar="[PATH]...", nargs=-1, type=str)
_target = click.option("--target", metavar="DIR", help="Of this captured directory; needed where there are several.")


@contextmanager
def _changes(
    sandbox: str,
    socket: str | None,
    key_file: str | None,
    daemon_key: str | None,
    state: str | None,
    as_user: str | None,
) -> Iterator[Changes]:
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        yield client.at(sandbox).changes


@changes.command("list")
@_sandbox
@_target
@_answered
def list_changes(sandbox: str, target: str | None, as_json: bool, **connection: Any) -> None:
    """List what was changed: A created, M modified, D deleted, R renamed, m mode alone."""
    with _changes(sandbox, **connection) as there:
        seen = there.list(target)
    if as_json:
        sets = {name: digest.hex() for name, digest in seen.sets.items()}
        click.echo(json_text({"changes": [_row(one) for one in seen], "sets": sets}))
        return
    if not len(seen):
        note("nothing was changed")
        return
    click.echo(table(["", "MODE", "SIZE", "PATH", "TROUBLE"], [_line(one) for one in seen]))
    for name, digest in seen.sets.items():
        note(f"set {digest.hex()} of {printable(name)}")


@changes.command("diff")
@_sandbox
@_paths
@_target
@connection_options
def diff(sandbox: str, paths: tuple[str, ...], target: str | None, **connection: Any) -> None:
    """Print what was changed as a diff: all of it, or these paths (and what is beneath them)."""
    with _changes(sandbox, **connection) as there:
        chosen = [os.fsencode(one).rstrip(b"/") for one in paths]
        for change in there.list(target):
            path = change.path if isinstance(change.path, bytes) else change.path.encode()
            if chosen and not any(path == one or path.startswith(one + b"/") for one in chosen):
                continue
            # What a stranger wrote does not talk to the terminal.
            for line in there.diff(change.path).text().split("\n"):
                click.echo("\t".join(printable(part) for part in line.split("\t")))


@changes.command("accept")
@_sandbox
@_paths
@_target
@click.option("--skip", "skip", metavar="PATH", multiple=True, help="But not this, or what is beneath it.")
@click.option("--set", "digest", metavar="DIGEST", help="Only if it is still the set that `list` named.")
@click.option("--force", is_flag=True, help="Replace what was changed on the host meanwhile, too.")
@_answered
def accept(
    sandbox: str,
    paths: tuple[str, ...],
    target: str | None,
    skip: tuple[str, ...],
    digest: str | None,
    force: bool,
    as_json: bool,
    **connection: Any,
) -> None:
    """Apply changes to the host, as you: all of them, or these paths (and what is beneath them). All or none."""
    listed = None
    if digest is not None:
        try:
            listed = bytes.fromhex(digest)
        except ValueError:
            raise click.UsageError(f"--set {digest!r} is no digest in hex") from None
    with _changes(sandbox, **connection) as there:
        done = there.accept(*map(os.fsencode, paths), target=target, skip=skip, as_listed=listed, force=force)
    if as_json:
        click.echo(
            json_text({"target": done.target, "total": done.total, "changes": [_row(one) for one in done.changes]})
        )
        return
    for change in done.changes:
        click.echo(f"{_LETTERS.get(change.kind, '?')} {_text(change.path)}")
    note(f"{done.total} applied to {printable(done.target)}")


@changes.command("discard")
@_sandbox
@_paths
@_target
@click.option("--all", "everything", is_flag=True, help="All of it.")
@_answered
def discard(
    sandbox: str, paths: tuple[str, ...], target: str | None, everything: bool, as_json: bool, **connection: Any
) -> None:
    """Throw changes away: the host's files show again. No command may be running in the sandbox."""
    if bool(paths) == everything:
        raise click.UsageError("name paths, or --all")
    with _changes(sandbox, **connection) as there:
        done = there.discard(*map(os.fsencode, paths), target=target)
    if as_json:
        click.echo(json_text({"target": done.target, "removed": done.removed}))


def _text(path: str | bytes) -> str:
    return printable(path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path)


def _line(change: Change) -> tuple[str, str, str, str, str]:
    side = change.after or change.before
    name = _text(change.path)
    if change.former is not None:
        name = f"{_text(change.former)} => {name}"
    if side is not None and side.link is not None:
        name += f" -> {_text(side.link)}"
    modes = [f"{one.mode:04o}" for one in (change.before, change.after) if one is not None]
    return (
        _LETTERS.get(change.kind, "?"),
        " ".join(dict.fromkeys(modes)),
        "" if side is None or side.kind == "directory" else size_text(side.size),
        name + ("/" if side is not None and side.kind == "directory" else ""),
        change.trouble or "",
    )


def _row(change: Change) -> dict[str, object]:
    row = {name: value for name, value in dataclasses.asdict(change).items() if value is not None}
    for name, side in (("before", change.before), ("after", change.after)):
        if side is not None:
            row[name] = _side(side)
    return row


def _side(side: Side) -> dict[str, object]:
    shown: dict[str, object] = {"kind": side.kind, "mode": f"{side.mode:04o}", "size": side.size}
    if side.sha256:
        shown["sha256"] = side.sha256.hex()
    if side.link is not None:
        shown["link"] = side.link
    return shown
