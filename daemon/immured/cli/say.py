"""What the command line says besides a command's own output: errors and notes on stderr, records as JSON on stdout.

Names and messages can hold anything that a stranger typed: nothing of it reaches a terminal as a control character.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence

import click

DIGESTS = frozenset({"sha256", "leaf", "boot"})

__all__ = ["complain", "json_line", "json_text", "note", "plain", "printable"]


def complain(code: str, message: str, remedy: str = "") -> None:
    """`immure: <code>: <message>` and, where there is one, a `remedy:` line."""
    click.echo(f"immure: {printable(code)}: {printable(message)}", err=True)
    if remedy:
        click.echo(f"remedy: {printable(remedy)}", err=True)


def note(message: str) -> None:
    """Something that went as asked, and that the caller may not expect."""
    click.echo(f"immure: note: {printable(message)}", err=True)


def printable(text: str) -> str:
    """`text` with everything that is not printable, newlines too, escaped as Python would."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def plain(value: object) -> object:
    """`value` as JSON holds it, deeply: digests in hex, other bytes as text where they are UTF-8, else as `{"b64"}`."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {str(plain(key)): _member(key, inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return value


def _member(name: object, value: object) -> object:
    return value.hex() if name in DIGESTS and isinstance(value, bytes) else plain(value)


def json_text(value: object) -> str:
    """One record, indented, non-ASCII kept."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False)


def json_line(value: object) -> str:
    """One record of many, on a line."""
    return json.dumps(plain(value), ensure_ascii=False)
