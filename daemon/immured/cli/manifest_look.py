"""`immure manifest show` and `diff`: what one admits, and what it admits beyond another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.cli.manifest_check import profiles_of
from immured.cli.manifest_files import DIGEST, beside, digest_of, parse, read_manifest, read_signatures
from immured.cli.manifest_words import added_lines, facts_lines
from immured.cli.moments import date_of, left
from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.target import SYSTEM_STATE, connection_options
from immured.errors import ConfigurationError, ImmuredError
from immured.isolation.granted import granted
from immured.manifest.builtin import CLASSES, class_text
from immured.manifest.capabilities import capabilities
from immured.manifest.difference import Severity, difference
from immured.manifest.signature import parse_signatures

if TYPE_CHECKING:
    from immured.manifest.capabilities import Capability
    from immured.manifest.schema import Manifest

__all__ = ["diff", "show"]

_SEVERITIES = ("low", "medium", "high", "critical")


@click.command()
@click.argument("name", metavar="FILE|CLASS|DIGEST")
@click.option("--raw", "as_raw", is_flag=True, help="Print exactly its bytes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def show(
    name: str, as_raw: bool, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """What a manifest admits: of a file or a class, and no daemon is asked; of sha256:..., as the daemon has it, with
    who signed it."""
    facts, signed = None, None
    if DIGEST.fullmatch(name):
        with connect(socket, key_file, daemon_key, state, as_user) as client:
            facts = client.manifests.show(name)
        path, raw = Path(name), facts.manifest
    elif name in CLASSES:
        path, raw = Path(name), class_text(name)
    else:
        path = Path(name)
        raw, signed = read_manifest(path), beside(path)
    if as_raw:
        if raw is None:
            raise ConfigurationError("manifest_damaged", f"{name} is not there whole any more", "load it again")
        click.echo(raw, nl=False)
        return
    found = None if raw is None else _parsed(path, raw, of_daemon=facts is not None)
    if as_json:
        told = {} if found is None else {one.field: list(one.words) for one in _told(found)}
        said = dict(facts.raw) if facts is not None else {"digest": digest_of(raw or b"")}
        if found is not None:
            said |= {"name": found.name, "class": found.class_}
        click.echo(json_text({**said, "admits": told}))
        return
    if facts is not None:
        click.echo("\n".join(facts_lines(facts)))
    elif found is not None:
        click.echo(f"digest      {found.digest}\nname        {found.name}\nclass       {found.class_}")
        for line in _signature_lines(signed):
            click.echo(line)
    for one in () if found is None else _told(found):
        for words in one.words:
            click.echo(f"{one.field:24}  {printable(words)}")


@click.command()
@click.argument("file", metavar="FILE|DIGEST")
@click.option("--against", metavar="FILE|CLASS|DIGEST", help="Beside this one.  [its class]")
@click.option("--fail", "fail", type=click.Choice(_SEVERITIES), help="Exit 1 where so much is added, or more.")
@click.option("--profiles", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="Whose installed profiles.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
@click.pass_context
def diff(
    ctx: click.Context, file: str, against: str | None, fail: str | None, profiles: str, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """What FILE admits that another manifest does not (+), and what it admits no more (-), by meaning.

    sha256:... is asked of the daemon; for what `load` would compare FILE with, see `verify`.
    """

    def named(name: str) -> Manifest:
        if not DIGEST.fullmatch(name):
            return _file_or_class(name)
        with connect(socket, key_file, daemon_key, state, as_user) as client:
            raw = client.manifests.show(name).manifest
        if raw is None:
            raise ConfigurationError("manifest_damaged", f"{name} is not there whole any more", "load it again")
        found = _parsed(Path(name), raw, of_daemon=True)
        if found is None:
            raise ConfigurationError("bad_manifest", f"{name} is not understood by this version", "ask a newer one")
        return found

    manifest = parse(Path(file), read_manifest(Path(file))) if not DIGEST.fullmatch(file) else named(file)
    baseline = named(against or manifest.class_)
    found = difference(baseline, manifest, granted(profiles_of(profiles)))
    if as_json:
        rows = {side: [one.to_map() for one in getattr(found, side)] for side in ("added", "removed")}
        severity = {} if found.severity is None else {"severity": str(found.severity)}
        click.echo(json_text({"baseline": baseline.digest, "digest": manifest.digest, **severity, **rows}))
    else:
        for line in (*added_lines(found.added), *added_lines(found.removed, "-")):
            click.echo(line)
        if not found.added and not found.removed:
            click.echo("they admit the same")
    ctx.exit(1 if fail is not None and (found.severity or 0) >= Severity[fail.upper()] else 0)


def _told(manifest: Manifest) -> list[Capability]:
    return list(capabilities(manifest).values())


def _parsed(path: Path, raw: bytes, *, of_daemon: bool) -> Manifest | None:
    """None: the daemon has it, and this version does not understand it."""
    try:
        return parse(path, raw)
    except ImmuredError:
        if of_daemon:
            return None
        raise


def _file_or_class(name: str) -> Manifest:
    """A class by its name; a file that is called so too is `./NAME`."""
    return parse(Path(name), class_text(name) if name in CLASSES else read_manifest(Path(name)))


def _signature_lines(path: Path | None) -> list[str]:
    """What stands beside the file, by its own word."""
    if path is None:
        return ["signed by   nobody: it is a class"]
    if not path.exists():
        return ["signed by   nobody: there is no " + printable(str(path))]
    found = parse_signatures(read_signatures(path))
    return [
        f"signed by   {one.key_id}, until {date_of(one.expires_ms)} ({left(one.expires_ms)}), not verified"
        for one in found
    ]
