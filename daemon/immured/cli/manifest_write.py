"""`immure manifest new`, `sign`, `schema`. No daemon is asked."""

from __future__ import annotations

from pathlib import Path

import click

from immured.cli.key_files import signer_of
from immured.cli.manifest_files import beside, digest_of, parse, read_manifest, read_signatures, write_new, write_whole
from immured.cli.moments import date_of, left, now_ms, span_of
from immured.cli.say import json_text, note, printable
from immured.manifest.builtin import CLASSES, class_text
from immured.manifest.signature import (
    MAX_LIFE_MS,
    MAX_SIGNATURES,
    Signature,
    parse_signatures,
    show_signatures,
    sign,
    verify,
)
from immured.shipped import shipped

__all__ = ["new", "schema", "sign_file"]

_HEAD = """\
# What the class `{class_}` says stands here behind `#`: a line without it says it otherwise.
# Every name is explained in docs/manifest.md. Then: immure manifest lint, diff, sign, load.

schema = 1
name = "{name}"
class = "{class_}"
# personas = ["operator"]   # who may use it, by name; without: whoever the policy lets
# tenants = ["acme"]        # for which; without: for all, and then only who governs the host signs and loads it
"""
_TAIL = """
# What a run may fill in, within bounds; then "${project}" may stand in paths, arguments and limits.
# [parameters.project]
# type = "path"
# within = ["/srv"]
"""


@click.command()
@click.argument("name")
@click.option("--class", "class_", type=click.Choice(CLASSES), default="default", show_default=True, help="What it is.")
@click.option("--out", metavar="FILE", help="Where it goes; it must not be there yet.  [standard output]")
def new(name: str, class_: str, out: str | None) -> None:
    """Write a manifest called NAME that is what its class is, each line of it there to be changed."""
    text = _HEAD.format(name=name, class_=class_) + _commented(class_text(class_).decode()) + _TAIL
    parse(Path(out or "-"), text.encode())  # the name may be none
    if out is None:
        click.echo(text, nl=False)
        return
    write_new(Path(out), text.encode())


@click.command("sign")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--key", "key_file", metavar="FILE", help="Your private key; agent:NAME or a .pub: in ssh-agent.  [$IMMURE_KEY]"
)
@click.option("--expires", metavar="TIME", default="90d", show_default=True, help="How long it holds; at most 366d.")
@click.option("--signatures", metavar="FILE", type=click.Path(path_type=Path), help="Where they stand.  [FILE.sig]")
@click.option("--alone", is_flag=True, help="Keep no signatures of other keys.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def sign_file(
    file: Path, key_file: str | None, expires: str, signatures: Path | None, alone: bool, as_json: bool
) -> None:
    """Sign FILE as it is, byte for byte, into FILE.sig.

    Signatures of other keys that stand there are kept, unless yours shows that they are of an earlier text. A file that
    the daemon would not take is not signed.
    """
    raw, place = read_manifest(file), signatures or beside(file)
    parse(file, raw)
    life = span_of(expires, "--expires")
    if not 0 < life <= MAX_LIFE_MS:
        raise click.BadParameter("at most 366d, and longer than nothing", param_hint="--expires")
    now, signer = now_ms(), signer_of(key_file)
    made = sign(signer, raw, now, now + life)
    kept = [] if alone or not place.exists() else _kept(place, made, raw, signer.public)
    if len(kept) >= MAX_SIGNATURES:
        raise click.UsageError(f"{place} has {len(kept)} signatures of other keys, and no more fit; --alone drops them")
    write_whole(place, show_signatures([*kept, made]).encode())
    if as_json:
        said = {"digest": digest_of(raw), "key": made.key_id, "signed_ms": made.signed_ms}
        said |= {"expires_ms": made.expires_ms, "signatures": str(place), "others": [one.key_id for one in kept]}
        click.echo(json_text(said))
        return
    click.echo(f"digest   {digest_of(raw)}")
    click.echo(f"key      {made.key_id}")
    click.echo(f"until    {date_of(made.expires_ms)} ({left(made.expires_ms, now)})")
    click.echo(printable(f"in       {place}"))


@click.command()
def schema() -> None:
    """Print the JSON Schema of manifests, with which an editor completes and checks them."""
    click.echo(shipped("profiles", "manifest.schema.json").read_text("utf-8"), nl=False)


def _kept(place: Path, made: Signature, raw: bytes, public: object) -> list[Signature]:
    """Those of other keys. Where ours of before does not verify, the text is another, and theirs do not either."""
    from immured.wire.keys import PublicKey

    found = parse_signatures(read_signatures(place))
    others = [one for one in found if one.key_id != made.key_id]
    before = next((one for one in found if one.key_id == made.key_id), None)
    if before is not None and isinstance(public, PublicKey) and not verify(before, public, raw) and others:
        note(f"the text is another than was signed before: {len(others)} signatures of other keys are dropped")
        return []
    return others


def _commented(text: str) -> str:
    """A class's file with every assignment behind `#`; what heads it and what names it are left out."""
    lines, out = text.split("\n"), list[str]()
    start = next(number for number, line in enumerate(lines) if line.startswith("["))
    for line in lines[start:]:
        plain = not line or line.startswith(("#", "["))
        out.append(line if plain else f"# {line}")
    return "\n" + "\n".join(out)
