"""`immure ledger repair --dry-run`: what the next start would do with a ledger, or why it would refuse."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click

from immured.cli.ledger_places import unreadable
from immured.cli.say import json_text, printable
from immured.cli.target import SYSTEM_STATE
from immured.ledger.foresight import Foresight, foresee
from immured.ledger.keys import VERIFIER_KEYS, load_vkeys

__all__ = ["repair"]


@click.command()
@click.option("--state", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="A state directory.")
@click.option("--dry-run", is_flag=True, help="Say what would be done. There is nothing else that this does.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def repair(state: str, dry_run: bool, as_json: bool) -> None:
    """Explain what the next start makes of the ledger: whole, the remains of an unfinished write, or damaged.

    Nothing is changed. Whatever may be done without losing anything a start does by itself; what is damaged is put back
    from a copy, by hand. Exits 0 where the daemon would start, 1 where it would refuse.
    """
    if not dry_run:
        raise click.UsageError(
            "only --dry-run: a start sets aside what a crash left by itself, and nothing else is repaired; restore "
            "a damaged ledger from a copy (`immure ledger compare` finds where it differs)"
        )
    root = Path(state)
    try:
        found = foresee(root / "ledger", load_vkeys(root / "keys" / VERIFIER_KEYS), time.time_ns())
    except OSError as failed:
        raise unreadable(failed) from failed
    click.echo(json_text(_map(found)) if as_json else "\n".join(_lines(found)))
    if found.refusal is not None:
        raise click.exceptions.Exit(1)


def _map(found: Foresight) -> dict[str, object]:
    if found.refusal is not None:
        error = found.refusal
        return {"starts": False, "code": error.code, "message": error.message, "remedy": error.remedy}
    described: dict[str, object] = {"starts": True, "entries": found.entries, "signed": found.signed}
    if found.aside is not None:
        one = found.aside
        described["aside"] = {
            "file": one.file, "offset": one.offset, "length": one.length, "sha256": one.sha256, "seq": one.seq
        }  # fmt: skip
    if found.unrecorded:
        described["unrecorded"] = list(found.unrecorded)
    return described


def _lines(found: Foresight) -> Iterator[str]:
    if found.refusal is not None:
        yield f"the daemon would refuse to start ({found.refusal.code}), and change nothing:"
        yield f"  {printable(found.refusal.message)}"
        yield f"  {printable(found.refusal.remedy)}"
        return
    yield f"the daemon would start: {found.entries} entries are good, {found.signed} of them signed"
    if found.aside is not None:
        one = found.aside
        yield f"  {one.length} bytes at the end of {one.file}, from byte {one.offset} on, are an unfinished write of"
        yield f"  what would have been entry {one.seq}, and nobody was told of it: they would be moved to quarantine/,"
        yield f"  byte for byte (SHA-256 {one.sha256}), and an entry would say so (ledger.recovered)"
    for name in found.unrecorded:
        if found.aside is None or not name.startswith(f"{found.aside.seq:020}"):
            yield f"  quarantine/{printable(name)} is there, and no entry says so: one would (ledger.recovered)"
    if found.aside is None and not found.unrecorded:
        yield "  there is nothing to repair"
