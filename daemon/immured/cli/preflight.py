"""`immure preflight`: whether a run would be let in, a line for each thing that was looked at."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.cli.bounded import read_file
from immured.cli.flags import DIGEST, Flags, compile_order, read_manifest_bytes
from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.target import connection_options
from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from immured.client.preflight import Preflight

__all__ = ["preflight"]

MAX_SIGNATURES = 64 * 1024


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", metavar="[-- CMD...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--manifest", metavar="F", help="A manifest: a TOML file, or sha256:... of a loaded one.")
@click.option("--signatures", metavar="FILE", help="Its detached signatures; default: F.sig, where it is there.")
@click.option("--set", "settings", metavar="N=V", multiple=True, help="Fill in the manifest's parameter N.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
@click.pass_context
def preflight(
    ctx: click.Context, command: tuple[str, ...],
    manifest: str | None, signatures: str | None, settings: tuple[str, ...], as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Whether a run would be let in, and held by what its manifest asks for; nothing runs.

    A line for each thing that was looked at: pass, warn or fail, with what to do about it. Exits 0 where nothing fails,
    else 1. A file with signatures beside it is looked at as one to be loaded; one without, as `run` would send it.
    """
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = _signed(manifest, signatures)
        if found is not None:
            raw, detached = found
            order = compile_order(Flags(settings=settings), Path.cwd())
            seen = client.preflight(
                raw=raw, signatures=detached, argv=command or None, parameters=order.parameters or None
            )
        else:
            order = compile_order(Flags(manifest=manifest, settings=settings), Path.cwd())
            seen = client.preflight(manifest=order.manifest, argv=command or None, parameters=order.parameters or None)
    if as_json:
        click.echo(json_text(_record(seen)))
    else:
        for line in _lines(seen):
            click.echo(line)
    ctx.exit(0 if seen.ready else 1)


def _signed(manifest: str | None, signatures: str | None) -> tuple[bytes, bytes] | None:
    """The file's bytes and its signatures'; None: there are none, or it is no file."""
    if manifest is None or DIGEST.fullmatch(manifest):
        if signatures is not None:
            raise ConfigurationError(
                "usage", "--signatures without a file", "name the file that they sign: --manifest F"
            )
        return None
    beside = Path(signatures if signatures is not None else f"{manifest}.sig")
    if signatures is None and not beside.exists():
        return None
    remedy = "sign it: immure manifest sign F; or name the file: --signatures FILE"
    return read_manifest_bytes(Path(manifest)), read_file(beside, MAX_SIGNATURES, "no_signatures", remedy)


def _record(seen: Preflight) -> dict[str, object]:
    record: dict[str, object] = {
        "manifest": seen.manifest,
        "name": seen.name,
        "class": seen.manifest_class,
        "entry": seen.entry,
        "verdict": seen.verdict,
        "ready": seen.ready,
        "receipt": None if seen.receipt is None else {"seq": seen.receipt.seq, "leaf": seen.receipt.leaf.hex()},
    }
    record = {name: value for name, value in record.items() if value is not None}
    rows = [{name: value for name, value in dataclasses.asdict(row).items() if value} for row in seen.rows]
    return {**record, "rows": rows}


def _lines(seen: Preflight) -> Iterator[str]:
    """`fail  consent       ...; remedy: ...`: a word says the verdict, and no colour."""
    for row in seen.rows:
        remedy = f"; remedy: {printable(row.remedy)}" if row.remedy and row.verdict != "pass" else ""
        yield f"{row.verdict:4}  {printable(row.check):12}  {printable(row.words)}{remedy}"
