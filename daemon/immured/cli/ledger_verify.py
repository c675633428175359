"""`immure ledger verify`: is every line, link and signed head as it was written?"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.cli.ledger_places import place_options, unreadable
from immured.cli.ledger_prove import keys_named
from immured.cli.say import json_text, printable
from immured.ledger.completeness import Completeness
from immured.ledger.completeness import Report as Outcomes
from immured.ledger.ledger import load_vkeys
from immured.ledger.note_keys import parse_witness_keys
from immured.ledger.verify import Report, verify_file

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["verify"]

_SHOWN = 20


@click.command()
@place_options
@click.option("--checkpoints", metavar="DIR", type=click.Path(), help="With --file: the signed heads to check against.")
@click.option(
    "--vkey", metavar="F", type=click.Path(), help="The keys that they are signed with; with --state its own."
)
@click.option("--anchor", "anchors", metavar="F", multiple=True, type=click.Path(), help="A head kept elsewhere.")
@click.option("--witness", "witnesses", metavar="KEY", multiple=True, help="A witness's key, or a file of such.")
@click.option("--require", metavar="N", type=click.IntRange(0), help="So many of the witnesses; all of them.")
@click.option("--complete", is_flag=True, help="Has every intent its outcome?")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@click.pass_context
def verify(
    ctx: click.Context,
    state: str,
    file: str | None,
    checkpoints: str | None,
    vkey: str | None,
    anchors: tuple[str, ...],
    witnesses: tuple[str, ...],
    require: int | None,
    complete: bool,
    as_json: bool,
) -> None:
    """Check every line, every link, and every signed head. Exits 0 when the ledger is whole, 1 when it is not; with
    --complete also 1 where an intent has no outcome, and no daemon answers for it any more.

    With --file a copy: one file, or a directory as DIR/ledger is.
    """
    path = Path(file) if file else Path(state) / "ledger"
    folder = path if file is None or path.is_dir() else None
    if file is None:
        vkey = vkey or str(Path(state) / "keys" / "ledger.vkey")
    if folder is not None and vkey is not None:
        checkpoints = checkpoints or str(folder / "checkpoints")
    if (checkpoints or anchors or witnesses) and vkey is None:
        raise click.UsageError("signed heads are checked with a key: --vkey", ctx)
    if vkey is not None and not checkpoints and not anchors:
        raise click.UsageError("--vkey is for signed heads: --checkpoints, or --anchor", ctx)
    known = keys_named(witnesses, parse_witness_keys)
    intents = Completeness() if complete else None
    try:
        report = verify_file(
            path,
            Path(checkpoints) if checkpoints else None,
            load_vkeys(Path(vkey)) if vkey else (),
            witnessed_dir=folder / "witnessed" if folder is not None and known else None,
            anchors=[Path(anchor) for anchor in anchors],
            witnesses=known,
            require=len({key.public for key in known}) if require is None else require,
            visit=None if intents is None else intents.visit,
        )
    except OSError as failed:
        raise unreadable(failed) from failed
    outcomes = None if intents is None else intents.report(report.first)
    if as_json:
        click.echo(json_text({**report.as_dict(), **({} if outcomes is None else {"intents": outcomes.as_dict()})}))
    else:
        click.echo("\n".join([*_told(report, anchors), *(() if outcomes is None else _complete(outcomes))]))
    ctx.exit(0 if report.whole and (outcomes is None or outcomes.complete) else 1)


def _complete(found: Outcomes) -> Iterable[str]:
    rest = f", {found.lost} lost" if found.lost else ""
    yield f"  intents      {found.intents}: {found.finished} with their outcome{rest}, {len(found.open)} open"
    for fault in found.faults[:_SHOWN]:
        yield f"  NOT COMPLETE entry {fault.seq} ({fault.type}): {fault.message}"
    if len(found.faults) > _SHOWN:
        yield f"  NOT COMPLETE and {len(found.faults) - _SHOWN} more: --json has all"


def _told(report: Report, anchors: Iterable[str]) -> Iterable[str]:
    name = printable(report.path)
    if report.problem is not None:
        where = name if len(report.files) < 2 else f"{name}/{printable(report.problem.file)}"
        yield f"{where}: NOT WHOLE: {printable(str(report.problem))}"
        yield f"good before it: {report.entries} entries"
    for bad in report.bad_checkpoints:
        yield f"{name}: checkpoint {printable(bad.file)}: {printable(bad.message)}"
    if report.unwitnessed:
        yield f"{name}: NOT WITNESSED: {report.unwitnessed}"
    if report.whole:
        yield f"{name}: whole"
        yield f"  ledger       {report.origin}"
        kept = f", kept from {report.first} on" if report.first else ""
        yield f"  entries      {report.entries}{kept}  ({report.first_ts} to {report.last_ts})"
        yield f"  root         {report.root}"
        signed = f"{report.covered} of them under {report.checkpoints} signed heads"
        yield f"  signed       {signed}" if report.checkpoints else "  signed       no heads were checked"
        for anchor in anchors:
            yield f"  anchor       {printable(anchor)}: what it signs is the beginning of this ledger"
        if report.unsynced:
            spans = ", ".join(f"{first}-{last}" for first, last in report.unsynced)
            yield f"  durability   nobody waited for the disk with entries {spans}"
        for one in report.seen:
            when = datetime.fromtimestamp(one.time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            yield f"  witness      {printable(one.witness.name)} saw {one.size} of them at {when}"
