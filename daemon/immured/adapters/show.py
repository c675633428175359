"""An imported manifest as a file: what became of each part of the policy, as comments, and then the manifest. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from immured.adapters.imported import VERDICTS, Imported, invalid

__all__ = ["finding_lines", "manifest_text"]

_HEADS: Final = {
    "lost": "Lost: asked for, and not to be had",
    "looser": "Looser: more is let through than there",
    "stricter": "Stricter: less is let through than there",
    "maps": "As it was",
}


def manifest_text(imported: Imported, tool: str, source: str) -> str:
    """TOML. `tool`: whose policy it was; `source`: where it stood.

    Raises Refused `adapter_invalid` where something in it is no text.
    """
    out = [f"# Imported from {_line(tool)}: {_line(source)}", "# docs/adapters.md says what each tool's words come to."]
    for verdict in reversed(VERDICTS):
        found = imported.of(verdict)
        if found:
            out += ["#", f"# {_HEADS[verdict]}.", *(f"#   {_line(one.source)}: {_line(one.words)}" for one in found)]
    if imported.argv:
        out += ["#", "# It is run as:", f"#   {_line(' '.join(imported.argv))}"]
    if imported.files:
        out += ["#", "# A run of it brings these files along: " + ", ".join(map(_line, imported.files))]
    plain = {name: value for name, value in imported.manifest.items() if not isinstance(value, Mapping)}
    out += ["", *(f"{name} = {_value(value)}" for name, value in plain.items())]
    for name, table in imported.manifest.items():
        if isinstance(table, Mapping):
            out += ["", f"[{name}]", *(line for key, value in table.items() for line in _entry(str(key), value))]
    return "\n".join(out) + "\n"


def finding_lines(imported: Imported, *verdicts: str) -> list[str]:
    """`stricter: limits: …`, the gravest first."""
    found = []
    for verdict in reversed(VERDICTS):
        if verdict in verdicts:
            found += [f"{verdict}: {_line(one.source)}: {_line(one.words)}" for one in imported.of(verdict)]
    return found


def _entry(name: str, value: object) -> list[str]:
    if isinstance(value, list) and len(value) > 3:
        return [f"{name} = [", *(f"  {_value(one)}," for one in value), "]"]
    return [f"{name} = {_value(value)}"]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(name))} = {_value(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, int):
        return str(value)
    # A TOML basic string is JSON's, but that DEL is escaped too; a manifest holds no character that nobody sees.
    return "".join(map(_seen, json.dumps(str(value), ensure_ascii=False)))


def _seen(character: str) -> str:
    if character.isprintable():
        return character
    number = ord(character)
    if 0xD800 <= number < 0xE000:
        raise invalid("the policy names a path that is not UTF-8, and a manifest's file is text", "use another name")
    return f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"


def _key(name: str) -> str:
    return name if name.replace("-", "_").isidentifier() and name.isascii() else _value(name)


def _line(text: str) -> str:
    """One line, whatever a stranger wrote."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)[:300]
