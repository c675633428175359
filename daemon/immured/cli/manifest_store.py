"""`immure manifest load`, `list`, `revoke`: those that a daemon has."""

from __future__ import annotations

from pathlib import Path

import click

from immured.cli.manifest_files import beside, read_manifest, read_signatures
from immured.cli.manifest_words import refused_lines, stage_lines
from immured.cli.moments import left
from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.table import table
from immured.cli.target import connection_options
from immured.client.errors import Refusal

__all__ = ["list_manifests", "load", "revoke"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--signatures", metavar="FILE", type=click.Path(path_type=Path), help="Where they stand.  [FILE.sig]")
@click.option("--check", is_flag=True, help="Only say what would come of it.")
@_JSON
@connection_options
@click.pass_context
def load(
    ctx: click.Context, file: Path, signatures: Path | None, check: bool, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Have FILE, with its signatures, in force: signatures first, then its form and whom it is for, then what it adds.

    Runs name it by its digest: --manifest FILE does, or --manifest sha256:... What adds more than the policy lets one
    key add is proposed: immure --propose WHY manifest load FILE.
    """
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        place = signatures or beside(file)
        signed = read_signatures(place) if signatures is not None or place.exists() else None
        try:
            found = client.manifests.load(read_manifest(file), signed, check=check)
        except Refusal as refusal:
            for line in refused_lines(refusal):
                click.echo(line, err=True)
            raise
    if as_json:
        click.echo(json_text(found.raw))
    else:
        for line in stage_lines(found):
            click.echo(line)
        done = "would be loaded" if check else "loaded" if found.stored else "was loaded already"
        click.echo(f"{found.digest}  {done if found.passes else 'would not be loaded'}")
    ctx.exit(0 if found.passes else 1)


@click.command("list")
@click.option("--name", metavar="NAME", help="Only those of this name.")
@_JSON
@connection_options
def list_manifests(
    name: str | None, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Those that you may use or load, and the classes."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = client.manifests.list(name)
    if as_json:
        click.echo(json_text({"manifests": [one.raw for one in found]}))
        return
    rows = [
        [one.digest, one.name or "-", one.class_ or "-", "built in" if one.built_in else one.standing,
         ",".join(one.tenants) or "all", left(one.expires_ms), ",".join(by.name or by.key for by in one.signers)]
        for one in found
    ]  # fmt: skip
    click.echo(table(["DIGEST", "NAME", "CLASS", "STANDING", "TENANTS", "LEFT", "SIGNED BY"], rows))


@click.command()
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)
@click.option("--reason", metavar="WHY", required=True, help="For the ledger.")
@_JSON
@connection_options
def revoke(
    digests: tuple[str, ...], reason: str, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Nothing is run under them any more, and they are never loaded again. What runs goes on."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        found = [client.manifests.revoke(one, reason) for one in digests]
    if as_json:
        click.echo(json_text({"manifests": [one.raw for one in found]}))
        return
    for one in found:
        click.echo(printable(f"{one.digest}  {one.standing}"))
