"""Keys as files: `immure key new`, `import`, `public`. No daemon is asked."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.cli.say import json_text, printable
from immured.cli.target import AGENT, USER_KEY
from immured.errors import ConfigurationError
from immured.wire import openssh
from immured.wire.keys import PrivateKey, PublicKey

if TYPE_CHECKING:
    from immured.wire.keys import Signer

__all__ = ["import_key", "new", "public", "read_public", "signer_of", "write_new"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
_OUT = click.option(
    "--out", metavar="FILE", default=USER_KEY, show_default=True, help="Where the private key goes; .pub beside it."
)


@click.command()
@_OUT
@_JSON
def new(out: str, as_json: bool) -> None:
    """Make a key pair: FILE (only you can read it), and the public half in FILE with .pub at its end."""
    _put(PrivateKey.generate(), out, as_json)


@click.command("import")
@click.argument("file", metavar="FILE")
@_OUT
@_JSON
def import_key(file: str, out: str, as_json: bool) -> None:
    """Take a private key over: PKCS#8 or OpenSSH's form (FILE; - is standard input), without a passphrase.

    One with a passphrase, or one that is to stay where it is, signs in ssh-agent: --key agent:NAME, or --key FILE.pub.
    """
    _put(PrivateKey.from_pem(_content(file)), out, as_json)


@click.command()
@click.argument("key", metavar="KEY")
@click.option(
    "--form", type=click.Choice(["pem", "openssh", "hex", "id"]), default="pem", show_default=True,
    help="SPKI, the line of a .pub, 64 hex digits, or the key's id.",
)  # fmt: skip
def public(key: str, form: str) -> None:
    """Print the public half of a key: of a private or public one's file, of agent:NAME, of 64 hex digits."""
    found = _public_of(key)
    forms = {
        "pem": found.to_pem().decode(), "openssh": openssh.line_of(found.raw) + "\n",
        "hex": found.raw.hex() + "\n", "id": found.id + "\n",
    }  # fmt: skip
    click.echo(forms[form], nl=False)


def read_public(text: str) -> PublicKey:
    """A public key from the command line: 64 hex digits, a PEM file's path, or that of OpenSSH's .pub.

    Raises ConfigurationError `bad_key`.
    """
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


def signer_of(key: str | None) -> Signer:
    """Who signs without a daemon: --key, IMMURE_KEY, or the user's own. Raises ConfigurationError."""
    from immured.cli.target import resolve
    from immured.client.trust import signer

    return signer(resolve(None, key, None, None).key)


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist yet. Raises ConfigurationError `key_exists`, or `cannot_write`."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as failed:
        raise ConfigurationError("cannot_write", f"{path}: {failed.strerror}", "choose another with --out") from failed
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(
        "key_exists", f"{path} exists, and a key that is overwritten is lost", "choose another file with --out"
    )


def _put(private: PrivateKey, out: str, as_json: bool) -> None:
    path = Path(out).expanduser().absolute()
    public_path = path.with_suffix(".pub")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if public_path.exists():  # before there is a private key that nobody was told of
        raise _exists(public_path)
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


def _public_of(text: str) -> PublicKey:
    if text.startswith(AGENT):
        from immured.client.trust import signer

        return signer(text).public
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return PublicKey(bytes.fromhex(text))
    content = _content(text)
    return PrivateKey.from_pem(content).public if b"PRIVATE KEY-----" in content else PublicKey.from_pem(content)


def _content(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read(1 << 20)
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as failed:
        raise ConfigurationError(
            "bad_key", f"{path}: {failed.strerror}", "check the path and who may read it"
        ) from failed
