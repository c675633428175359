"""`immure ledger compare`: is what was kept elsewhere what the ledger says, and where not, what differs first?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.cli.ledger_export import s3_options, s3_place
from immured.cli.ledger_places import unreadable
from immured.cli.say import json_text, printable
from immured.cli.target import SYSTEM_STATE
from immured.errors import ConfigurationError
from immured.ledger.checkpoint import origin_of
from immured.ledger.entry import MAX_LINE, LineError, leaf_hash, parse_line
from immured.ledger.segments import Files

if TYPE_CHECKING:
    from immured.ledger.exports.compare import Comparison, Kept

__all__ = ["compare"]

_SHOWN = 400
_BEFORE = 160  # of what is the same, in front of the first difference


@click.command()
@click.option(
    "--against", metavar="KEPT", required=True, help="A copy, tiles, s3://..., JSON lines, checkpoint, proof."
)
@click.option("--state", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="A state directory.")
@click.option("--copy", metavar="DIR", type=click.Path(), help="A copy of a ledger's directory, instead.")
@s3_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def compare(
    against: str, state: str, copy: str | None, endpoint: str, region: str, credentials: str | None, as_json: bool
) -> None:
    """Compare the ledger with what was KEPT of it elsewhere: a directory that it was exported to, S3, tiles, JSON
    lines, a checkpoint, a proof, or a witness's state. Exits 0 where all of that is in this ledger as it was."""
    from immured.ledger.exports.compare import compare as compared

    directory = Path(copy) if copy is not None else Path(state) / "ledger"
    try:
        with Files.open(directory) as files:
            origin = _origin(files)
            found = compared(files, origin, _kept(against, origin, endpoint, region, credentials))
    except OSError as failed:
        raise unreadable(failed) from failed
    click.echo(
        json_text({"origin": origin, **found.as_dict()}) if as_json else "\n".join(_told(against, origin, found))
    )
    click.get_current_context().exit(0 if found.good else 1)


def _kept(against: str, origin: str, endpoint: str, region: str, credentials: str | None) -> Kept:
    from immured.ledger.exports.others import find, find_in_s3

    place = s3_place(against, endpoint, region, credentials)
    if place.directory is not None:
        if not place.directory.exists():
            remedy = "name a copy, tiles, JSON lines, a checkpoint, a proof, or a witness's state"
            raise ConfigurationError("not_comparable", f"{against}: there is no such file or directory", remedy)
        return find(Path(against), origin)
    from immured.ledger.exports.s3 import S3, session_of

    return find_in_s3(S3(place, session_of(place, owner=os.geteuid())), origin)


def _origin(files: Files) -> str:
    """As its first line has it. Raises ConfigurationError."""
    line = files.read(files.start, MAX_LINE + 1).partition(b"\n")[0]
    if not files.start:
        return origin_of(leaf_hash(line))
    try:
        origin = parse_line(line).data.get("origin")
    except LineError as error:
        raise ConfigurationError("ledger_damaged", str(error), "immure ledger verify names what is wrong") from error
    return str(origin)


def _told(against: str, origin: str, found: Comparison) -> Iterator[str]:
    yield f"{printable(against)}: {found.verdict.upper()}: {printable(found.message)}"
    yield f"  ledger       {origin}"
    if found.entries:
        yield f"  the same     {found.entries} entries"
    ours, theirs = _parted(found.ours, found.theirs)
    if found.seq is not None and found.line is not None:
        yield f"  here         {found.file} line {found.line} (seq {found.seq}): {printable(ours)}"
    if found.theirs:
        yield f"  there        {printable(found.where)}: {printable(theirs)}"
    elif found.where:
        yield f"  there        {printable(found.where)}"
    for detail in found.details:
        yield f"  and          {printable(detail)}"


def _parted(ours: str, theirs: str) -> tuple[str, str]:
    """Of two lines what differs, with some of what is around it: lines are long, and alike for most of it."""
    same = next((at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), 0)
    start = max(0, same - _BEFORE) if same >= _SHOWN - _BEFORE else 0
    return _excerpt(ours, start), _excerpt(theirs, start)


def _excerpt(line: str, start: int) -> str:
    shown = line[start : start + _SHOWN]
    return f"{'...' if start and line else ''}{shown}{'...' if start + _SHOWN < len(line) else ''}"
