"""`immure ledger export`: a ledger, or some of it, for somewhere else; `check-export`: is that as it was written?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.cli.ledger_places import unreadable
from immured.cli.ledger_prove import trust_options, trusted
from immured.cli.ledger_types import types_option
from immured.cli.moments import span_of, stamp_option
from immured.cli.say import complain, json_text, printable
from immured.cli.target import SYSTEM_STATE
from immured.errors import ConfigurationError
from immured.ledger.exports.now import Ledgered, export_now
from immured.ledger.exports.place import LINES, TILES, Place, bucket_of, check_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["check_export", "export", "s3_options", "s3_place"]


def s3_options(command: F) -> F:
    """Adds --endpoint, --region and --credentials: of an S3 that is named as s3://BUCKET[/PREFIX]."""
    for option in (
        click.option(
            "--credentials", metavar="F", type=click.Path(), help="With s3://: a file of keys; else AWS's own chain."
        ),
        click.option("--region", default="", metavar="NAME", help="With s3://: its region."),
        click.option("--endpoint", default="", metavar="URL", help="With s3://: a server that is not AWS's."),
    ):
        command = option(command)
    return command


def s3_place(to: str, endpoint: str, region: str, credentials: str | None, **more: Any) -> Place:
    """The place, checked. Raises BadParameter."""
    try:
        if to.startswith("s3://"):
            bucket_of(to)
        elif endpoint or region or credentials or more.get("lock_ms"):
            raise ValueError("--endpoint, --region, --credentials and --lock are for s3:// only")
        if endpoint:
            check_endpoint(endpoint)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    path = Path(credentials).absolute() if credentials else None
    where = to.rstrip("/") if to.startswith("s3://") else os.fspath(Path(to).absolute())
    return Place(where, endpoint=endpoint, region=region, credentials=path, **more)


@click.command()
@click.option("--state", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="A state directory.")
@click.option("--copy", metavar="DIR", type=click.Path(), help="A copy of a ledger's directory, instead.")
@click.option("--to", metavar="PLACE", help="Bring a copy up to date: a directory, or s3://BUCKET[/PREFIX].")
@click.option("--tiles", metavar="PLACE", help="The same, as tlog-tiles.")
@click.option("--jsonl", metavar="F", type=click.Path(), help="Write entries as JSON lines.")
@click.option("--proofs", is_flag=True, help="With --jsonl: the proof of each line too, in F.proofs.")
@click.option("--tenant", metavar="NAME", help="With --jsonl: what is this tenant's, and nobody else's.")
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", callback=types_option,
    help="With --jsonl: of this type; run.* is a pattern.",
)  # fmt: skip
@click.option("--actor", default="", metavar="TEXT", help="With --jsonl: by this key, uid, role, session, `sub`.")
@click.option(
    "--since", default="", metavar="TIME", callback=stamp_option, help="With --jsonl: from then on: 2026-01-31T12"
)
@click.option("--until", default="", metavar="TIME", callback=stamp_option, help="With --jsonl: before this moment.")
@click.option("--sandbox", default="", metavar="ID", help="With --jsonl: of this sandbox.")
@s3_options
@click.option("--lock", metavar="SPAN", help="With s3://: lock each object for so long: 365d")
@click.option("--lock-mode", type=click.Choice(["compliance", "governance"]), default="compliance", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def export(
    state: str, copy: str | None, to: str | None, tiles: str | None, jsonl: str | None,
    proofs: bool, tenant: str | None, endpoint: str, region: str, credentials: str | None, lock: str | None,
    lock_mode: str, as_json: bool, **chosen: Any,
) -> None:  # fmt: skip
    """Copy what of the ledger is signed to PLACE, or write what is selected of it to F. A copy goes on from what is
    there; what is written is read again, and nothing is replaced."""
    if sum(one is not None for one in (to, tiles, jsonl)) != 1:
        raise click.UsageError("one of --to, --tiles and --jsonl")
    if jsonl is None and (proofs or tenant is not None or any(chosen.values())):
        raise click.UsageError("--proofs and what selects entries belong to --jsonl")
    source = Ledgered.of_copy(Path(copy)) if copy is not None else Ledgered.of_state(Path(state))
    try:
        if jsonl is not None:
            _written(source, Path(jsonl), tenant, proofs=proofs, as_json=as_json, **chosen)
            return
        more = {"lock_ms": span_of(lock, "--lock") if lock else 0, "lock_mode": lock_mode}
        more["format"] = TILES if tiles is not None else LINES
        place = s3_place(to or tiles or "", endpoint, region, credentials, **more)
        if place.directory is not None and not place.directory.is_dir():
            remedy = "make it, or mount it: a directory is never made, as its disk may just not be mounted"
            raise ConfigurationError("export_unreachable", f"{place.directory}: there is no such directory", remedy)
        copied, origin = export_now(source, place)
    except OSError as failed:
        raise unreadable(failed) from failed
    said = {"destination": place.name, "origin": origin, "entries": copied.entries, "bytes": copied.bytes}
    if as_json:
        click.echo(json_text({**said, "began": copied.began}))
    else:
        done = "begun, and holds" if copied.began else "holds"
        click.echo(f"{printable(place.name)}: {done} {copied.entries} entries of {origin}, read again as written")


@click.command("check-export")
@click.argument("file", type=click.Path())
@trust_options
def check_export(file: str, as_json: bool, **trust: Any) -> None:
    """Check each line of an export FILE by the proof of it in FILE.proofs. Exits 1 where one proves nothing."""
    from immured.ledger.exports.lines import check_lines
    from immured.ledger.proof import ProofError

    history, witnesses, require = trusted(**trust)
    try:
        checked = check_lines(Path(file), history, witnesses, require)
    except ProofError as error:
        complain("bad_proof", f"{file}: {error}", "ask whoever gave it for another, and keep this one")
        click.get_current_context().exit(1)
    except OSError as failed:
        remedy = "an export is checked by the file beside it that `immure ledger export --jsonl F --proofs` writes"
        raise ConfigurationError("ledger_unreadable", f"{failed.filename}: {failed.strerror}", remedy) from failed
    if as_json:
        click.echo(json_text({"entries": checked.entries, "origin": checked.origin}))
    else:
        click.echo(f"{printable(file)}: {checked.entries} lines, each proven: {checked.origin}")


def _written(source: Ledgered, out: Path, tenant: str | None, *, proofs: bool, as_json: bool, **chosen: Any) -> None:
    from immured.ledger.exports.lines import write_lines
    from immured.ledger.proving import NoProof, Prover
    from immured.ledger.segments import Files
    from immured.ledger.show import Selection

    try:
        with Prover.open(source.ledger) as prover, Files.open(source.ledger) as files:
            written = write_lines(prover, files, out, Selection(**chosen), tenant, proofs=proofs)
    except NoProof as error:
        raise ConfigurationError("no_checkpoint", str(error), "a daemon signs one when it starts and stops") from error
    said = {"file": str(out), "entries": written.entries, "bytes": written.bytes, "sha256": written.sha256}
    said |= {"origin": written.origin, "size": written.size}
    if as_json:
        click.echo(json_text(said))
    else:
        click.echo(f"{printable(str(out))}: {written.entries} entries, of {written.size} that are signed")
