"""`immure key`: make a key pair; let its owner in; see who is in."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from immured.cli.say import json_text, printable
from immured.cli.session import connect
from immured.cli.target import USER_KEY, connection_options
from immured.errors import ConfigurationError
from immured.wire.keys import PrivateKey, PublicKey

__all__ = ["key"]


@click.group(no_args_is_help=True)
def key() -> None:
    """Make keys, and let their owners in.

    A new user runs `immure key new` and hands over what it prints; whoever holds an admin key runs `immure key add`.
    """


@key.command()
@click.option("--out", metavar="FILE", default=USER_KEY, show_default=True, help="Where the private key goes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def new(out: str, as_json: bool) -> None:
    """Make a key pair: FILE (only you can read it), and the public half in FILE with .pub at its end."""
    private = PrivateKey.generate()
    path = Path(out).expanduser().absolute()
    public_path = path.with_suffix(".pub")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_new(path, private.to_pem(), 0o600)
    write_new(public_path, private.public.to_pem(), 0o644)
    if as_json:
        files = {"key": str(path), "public_key": str(public_path)}
        click.echo(json_text({"id": private.id, "public": private.public.raw.hex(), **files}))
        return
    click.echo(f"id       {private.id}")
    click.echo(f"public   {private.public.raw.hex()}")
    click.echo(f"private  {printable(str(path))}")
    click.echo(f"\nAn administrator lets it in with:\n  immure key add NAME {private.public.raw.hex()}")


@key.command()
@click.argument("name")
@click.argument("public", metavar="PUB")
@click.option("--role", type=click.Choice(["runner", "admin"]), default="runner", show_default=True)
@click.option("--uid", "uids", type=click.IntRange(0), multiple=True, help="Only a peer with this uid may use it.")
@click.option("--json", "as_json", is_flag=True, help="Print the reply as JSON instead.")
@connection_options
def add(
    name: str, public: str, role: str, uids: tuple[int, ...], as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Let the owner of a public key in. PUB is a PEM file, or the 64 hex digits that `immure key new` prints."""
    given = read_public(public)
    bindings = {"uids": sorted(set(uids))} if uids else {}
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        answer = client.key_add(name, given, role=role, **bindings)
    if as_json:
        click.echo(json_text(answer))
    else:
        click.echo(f"{given.id} is in, as {name} ({role})")


@key.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@connection_options
def list_keys(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Who is in, with which role."""
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        answer = client.key_list()
    if as_json:
        click.echo(json_text(answer))
        return
    keys = answer.get("keys")
    for record in keys if isinstance(keys, list) else ():
        bound = record.get("uids")
        uids = ",".join(map(str, bound)) if isinstance(bound, list) else "any uid"
        click.echo(f"{record['id']}  {record['role']!s:7} {uids:12} {printable(str(record['name']))}")


def read_public(text: str) -> PublicKey:
    """A public key from the command line: 64 hex digits, or a PEM file's path. Raises ConfigurationError `bad_key`."""
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return PublicKey(bytes.fromhex(text))
    try:
        pem = Path(text).read_bytes()
    except OSError as failed:
        raise ConfigurationError(
            "bad_key", f"{text} is neither 64 hex digits nor a file that can be read: {failed.strerror}",
            "give what `immure key new` printed as `public`, or the .pub file",
        ) from failed  # fmt: skip
    return PublicKey.from_pem(pem)


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist yet. Raises ConfigurationError `key_exists`, or `cannot_write`."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise ConfigurationError(
            "key_exists", f"{path} exists, and a key that is overwritten is lost", "choose another file with --out"
        ) from None
    except OSError as failed:
        raise ConfigurationError("cannot_write", f"{path}: {failed.strerror}", "choose another with --out") from failed
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)
