"""`immure manifest lint` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.cli.manifest_files import beside, digest_of, read_manifest, read_signatures
from immured.cli.manifest_words import stage_lines
from immured.cli.moments import date_of, left, now_ms
from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.target import SYSTEM_STATE, connection_options
from immured.errors import ConfigurationError
from immured.isolation.profiles import SHIPPED
from immured.service.profiles import read_profiles

if TYPE_CHECKING:
    from immured.isolation.profiles import Profiles
    from immured.manifest.signature import Signature
    from immured.wire.keys import PublicKey

__all__ = ["lint_file", "verify"]


@click.command("lint")
@click.argument("names", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Fail for warnings too.")
@click.option("--state", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="Whose installed profiles.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@click.pass_context
def lint_file(ctx: click.Context, names: tuple[Path, ...], strict: bool, state: str, as_json: bool) -> None:
    """Read each FILE as the daemon would, and say what is wrong with it and what may not be meant, by line.

    Exits 1 for errors: all of them are told, not the first alone.
    """
    from immured.isolation.granted import granted
    from immured.isolation.seccomp import compile_profile
    from immured.manifest.lint import Level, lint

    profiles = profiles_of(state)
    calls, bad, rows = granted(profiles), {Level.ERROR, Level.WARNING} if strict else {Level.ERROR}, []
    failed = False
    for path in names:
        raw = read_manifest(path)
        found = lint(raw, calls, lambda one: compile_profile(one.profile, one.allow, one.deny, profiles=profiles))
        failed = failed or any(one.level in bad for one in found)
        rows.append({"file": str(path), "digest": digest_of(raw), "findings": [one.to_map() for one in found]})
        if as_json:
            continue
        for one in found:
            remedy = f"; {one.remedy}" if one.remedy else ""
            where = f"{path}:{one.line}" if one.line else f"{path}"
            click.echo(printable(f"{where}: {one.level}: {one.message}{remedy} ({one.kind})"))
    if as_json:
        click.echo(json_text({"files": rows}))
    ctx.exit(1 if failed else 0)


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--signatures", metavar="FILE", type=click.Path(path_type=Path), help="Where they stand.  [FILE.sig]")
@click.option("--public", "publics", metavar="PUB", multiple=True, help="By this public key, and ask no daemon.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
@click.pass_context
def verify(
    ctx: click.Context, file: Path, signatures: Path | None, publics: tuple[str, ...], as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Whether the signatures of FILE hold: with --public by those keys; else as the daemon judges the whole of it.

    PUB is a .pub file, a PEM file or 64 hex digits. Exits 0 where one of them signed it and no signature is bad. Asked,
    the daemon says what `load` would: signatures, schema, what is added; and stores nothing.
    """
    if publics:
        from immured.cli.key_files import read_public

        raw, text = read_manifest(file), read_signatures(signatures or beside(file))
        ctx.exit(_by_keys(raw, text, [read_public(one) for one in publics], as_json))
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        raw = read_manifest(file)
        found = client.manifests.load(raw, read_signatures(signatures or beside(file)), check=True)
    click.echo(json_text(found.raw) if as_json else "\n".join(stage_lines(found)))
    ctx.exit(0 if found.passes else 1)


def profiles_of(state: str) -> Profiles:
    """The package's, and those installed there, where that can be read."""
    try:
        return read_profiles(Path(state))
    except (OSError, ConfigurationError):
        return SHIPPED


def _by_keys(raw: bytes, text: bytes, publics: list[PublicKey], as_json: bool) -> int:
    from immured.manifest.signature import parse_signatures

    known, now = {one.id: one for one in publics}, now_ms()
    judged = [(one, _judged(one, known.get(one.key_id), raw, now)) for one in parse_signatures(text)]
    verdicts = {verdict for _, verdict in judged}
    fine = "valid" in verdicts and not verdicts - {"valid", "unknown key"}
    if as_json:
        rows = [
            {"key": one.key_id, "signed_ms": one.signed_ms, "expires_ms": one.expires_ms, "verdict": verdict}
            for one, verdict in judged
        ]
        click.echo(json_text({"digest": digest_of(raw), "verified": fine, "signatures": rows}))
    else:
        click.echo(f"digest  {digest_of(raw)}")
        for one, verdict in judged:
            until = f"until {date_of(one.expires_ms)} ({left(one.expires_ms, now)})"
            click.echo(f"{one.key_id}  signed {date_of(one.signed_ms)}, {until}: {verdict}")
    return 0 if fine else 1


def _judged(one: Signature, public: PublicKey | None, raw: bytes, now: int) -> str:
    from immured.manifest.signature import verify as holds

    if public is None:
        return "unknown key"
    if not holds(one, public, raw):
        return "not over these bytes"
    if one.expired(now):
        return "expired"
    return "signed in the future" if one.early(now) else "valid"
