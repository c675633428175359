"""`immure key certify` and `inspect`: what a key passes on to another. No daemon is asked."""

from __future__ import annotations

from pathlib import Path

import click

from immured.cli.key_files import read_public, signer_of
from immured.cli.moments import date_of, left, now_ms, span_of
from immured.cli.sandbox_words import labels_of
from immured.cli.say import json_text, printable
from immured.client.trust import certificates
from immured.errors import ConfigurationError
from immured.wire.certificate import Certificate, chain_to_pem, issue, parse_certificate
from immured.wire.envelope import Envelope

__all__ = ["certify", "inspect"]


@click.command()
@click.argument("name")
@click.argument("public", metavar="PUB")
@click.option("--allow", metavar="CMD", multiple=True, required=True, help="A command that it may give; once each.")
@click.option("--life", metavar="TIME", default="1h", show_default=True, help="How long it holds; at most 30d.")
@click.option("--tenant", metavar="NAME", multiple=True, help="Only in this tenant.")
@click.option("--project", metavar="NAME", multiple=True, help="Only in this project.")
@click.option("--class", "classes", metavar="NAME", multiple=True, help="Only under manifests of this class.")
@click.option("--label", metavar="K=V", multiple=True, help="Only sandboxes with this label.")
@click.option("--commands", type=click.IntRange(1), help="Good for so many; those that only tell are free.")
@click.option("--depth", type=click.IntRange(0, 3), default=0, show_default=True, help="Links that may follow.")
@click.option("--sub", metavar="WHO", help="All it does is on their behalf.")
@click.option("--aud", metavar="DAEMON", multiple=True, help="Only at this daemon: its key id or audience name.")
@click.option("--key", "key_file", metavar="FILE", help="Your private key, which signs.  [$IMMURE_KEY]")
@click.option("--certificate", metavar="FILE", help="By what chain your key acts itself.  [$IMMURE_CERTIFICATE]")
@click.option("--out", metavar="FILE", help="Where the chain goes.  [standard output]")
def certify(
    name: str, public: str, allow: tuple[str, ...], life: str, tenant: tuple[str, ...], project: tuple[str, ...],
    classes: tuple[str, ...], label: tuple[str, ...], commands: int | None, depth: int, sub: str | None,
    aud: tuple[str, ...], key_file: str | None, certificate: str | None, out: str | None,
) -> None:  # fmt: skip
    """Pass a part of your rights on to the owner of PUB, who is in no keyring.

    Whoever holds that key and this chain may do what is named, as long as you may, and never more than you: your key
    suspended, revoked or expired ends it, and `immure key revoke ID` ends it alone. An inline manifest needs
    --allow manifest.inline, as with you.

    \b
      immure key new --out agent.pem
      immure key certify agent agent.pub --allow run --allow manifest.inline --life 8h --out agent.chain
      immure run --key agent.pem --certificate agent.chain -- make test
    """
    chain = certificates(certificate)
    made = issue(
        signer_of(key_file), read_public(public), name,
        now_ms=now_ms(), life_ms=span_of(life, "--life"), permissions=set(allow), tenants=set(tenant),
        projects=set(project), classes=set(classes), labels=labels_of(label), commands=commands, depth=depth,
        sub=sub, aud=set(aud),
    )  # fmt: skip
    pem = chain_to_pem([*(body for body, _ in chain), made])
    if out is None:
        click.echo(pem.decode(), nl=False)
        return
    try:
        Path(out).write_bytes(pem)
    except OSError as failed:
        raise ConfigurationError("cannot_write", f"{out}: {failed.strerror}", "choose another with --out") from failed


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def inspect(file: str, as_json: bool) -> None:
    """What the certificates in FILE say, the first issuer's own first. Whether they hold is the daemon's to say."""
    rows = [(issuer_of(envelope), parse_certificate(envelope.payload)) for _, envelope in certificates(file)]
    if as_json:
        click.echo(json_text({"chain": [{"issuer": issuer, **said.to_map()} for issuer, said in rows]}))
        return
    click.echo("\n\n".join(_lines(issuer, said) for issuer, said in rows))


def issuer_of(envelope: Envelope) -> str:
    """The id under which it is signed, by its own word."""
    return envelope.signatures[0][0] if envelope.signatures else "unsigned"


def _lines(issuer: str, said: Certificate) -> str:
    lines = [
        ("name", said.name), ("key", said.public.id), ("issuer", issuer),
        ("from", date_of(said.nbf)), ("until", f"{date_of(said.exp)} ({left(said.exp)})"),
        ("may", ", ".join(sorted(said.permissions))),
        ("tenants", ", ".join(sorted(said.tenants))), ("projects", ", ".join(sorted(said.projects))),
        ("classes", ", ".join(sorted(said.classes))),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(said.labels.items()))),
        ("commands", "" if said.commands is None else str(said.commands)), ("depth", str(said.depth)),
        ("for", said.sub or ""), ("at", ", ".join(sorted(said.aud))),
    ]  # fmt: skip
    return "\n".join(f"{name:10}  {printable(value)}" for name, value in lines if value)
