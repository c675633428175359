"""`immure consent export`: who agreed to what, who did not, and what was done by it; from the ledger, without the
daemon. The chain is not checked here: that is `immure ledger verify`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Final

import click

from immured.cli.ledger_places import ledger_file, place_options, unreadable
from immured.cli.moments import date_of, stamp_option
from immured.errors import ConfigurationError
from immured.identity.actor import DEFAULT
from immured.ledger import entry_types
from immured.ledger.entry import Entry
from immured.ledger.show import BadLine, entries

__all__ = ["COLUMNS", "collect", "export"]

COLUMNS: Final = (
    *("seq", "leaf", "time", "answer", "manifest", "name", "text_id", "language", "text", "until"),
    *("key", "key_name", "uid", "role", "persona", "tenant", "project", "sub", "session", "root", "uses"),
)
"""`until`: when it ends by itself; `uses`: how many runs, batches, sandboxes and execs were begun by it."""
_WORDING: Final = ("title", "body", "question", "reviewed_by", "reviewed_on")
_ANSWERS: Final = {entry_types.CONSENT_ACCEPTED: "accepted", entry_types.CONSENT_DECLINED: "declined"}
_USES: Final = frozenset(
    {
        *(entry_types.RUN_ACCEPTED, entry_types.BATCH_ACCEPTED, entry_types.SANDBOX_CREATED),
        *(entry_types.EXEC_ACCEPTED, entry_types.COMMAND_ACCEPTED),
    }
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""With what a cell begins that a spreadsheet would compute."""

Row = dict[str, object]


@click.command(short_help="Who answered what: of a ledger, offline.")
@place_options
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option(
    "--since", default="", metavar="TIME", callback=stamp_option, help="Answers from this moment on: 2026-01-31T12"
)
@click.option("--until", default="", metavar="TIME", callback=stamp_option, help="Answers before this moment.")
@click.option("--tenant", metavar="NAME", help="Of this tenant.")
@click.option("--wording", is_flag=True, help="With the words that were read.")
def export(state: str, file: str | None, form: str, since: str, until: str, tenant: str | None, wording: bool) -> None:
    """Print every consent that was given or declined, one a line, oldest first. Works offline, from the ledger."""
    try:
        found = collect(entries(ledger_file(state, file)), since=since, until=until, tenant=tenant, wording=wording)
    except OSError as failed:
        raise unreadable(failed) from failed
    except BadLine as bad:
        raise ConfigurationError("ledger_damaged", str(bad), "immure ledger verify names what is wrong") from bad
    if form == "csv":
        _print_csv(found, (*COLUMNS, *(_WORDING if wording else ())))
        return
    for row in found:
        click.echo(json.dumps(row, ensure_ascii=False))


def collect(
    ledger: Iterable[Entry], *, since: str = "", until: str = "", tenant: str | None = None, wording: bool = False
) -> list[Row]:
    """The rows: `COLUMNS` and, with `wording`, what was read; what is not known is left out."""
    rows: dict[int, Row] = {}
    read: dict[str, Row] = {}
    for entry in ledger:
        if entry.type == entry_types.CONSENT_TEXT:
            read[str(entry.data.get("text"))] = _wording(entry)
        elif entry.type in _ANSWERS:
            row = _row(entry)
            if (not since or entry.ts >= since) and (not until or entry.ts < until) and tenant in (None, row["tenant"]):
                rows[entry.seq] = row | (read.get(str(row["text"]), {}) if wording else {})
        elif entry.type in _USES:
            used = entry.data.get("consent")
            row = rows.get(used, {}) if isinstance(used, int) else {}
            if row:
                row["uses"] = int(str(row["uses"])) + 1
    return list(rows.values())


def _row(entry: Entry) -> Row:
    actor, data = entry.actor, entry.data
    until = data.get("expires_ms")
    row: Row = {
        "seq": entry.seq,
        "leaf": entry.leaf.hex(),
        "time": entry.ts,
        "answer": _ANSWERS[entry.type],
        **_picked(data, "manifest", "name", "text_id", "language", "text"),
        **_picked(actor, "key", "uid", "role", "persona", "sub", "session", "root"),
        "tenant": actor.get("tenant", DEFAULT),
        "project": actor.get("project", DEFAULT),
    }
    if "name" in actor:
        row["key_name"] = actor["name"]
    if entry.type == entry_types.CONSENT_ACCEPTED:
        row["uses"] = 0
        if isinstance(until, int):
            row["until"] = date_of(until)
    return {name: row[name] for name in COLUMNS if name in row}


def _wording(entry: Entry) -> Row:
    words = entry.data.get("words")
    words = words if isinstance(words, dict) else {}
    pieces = words.get("text")
    body = "".join(map(str, pieces)) if isinstance(pieces, list) else ""
    return {**_picked(words, "title", "question"), "body": body, **_picked(entry.data, "reviewed_by", "reviewed_on")}


def _picked(values: Mapping[str, object], *names: str) -> Row:
    return {name: values[name] for name in names if name in values}


def _print_csv(rows: Iterable[Row], names: Iterable[str]) -> None:
    listed = list(names)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(listed)
    for row in rows:
        writer.writerow([_cell(row.get(name, "")) for name in listed])


def _cell(value: object) -> str:
    """Strangers choose names: none becomes a formula in whatever opens the file."""
    text = str(value)
    return "'" + text if text.startswith(_FORMULA) else text
