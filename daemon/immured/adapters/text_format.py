"""Protobuf's text format, for one message whose fields are told: strictly, without descriptors. Pure.

Protobuf's own `text_format` needs the message compiled from its .proto, and a runtime of several megabytes with it. A
config is names, values, braces and strings (over several lines too, as protobuf's own parser takes them); what of the
format no config uses (extensions, `Any`, `<` for `{`) is refused, not guessed.
https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from immured.adapters.imported import invalid
from immured.errors import Refused
from immured.wire.strict import nearest, shown

__all__ = ["Field", "Message", "read_text"]

_TOKEN: Final = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>-?(?:0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})(?![0-9A-Za-z_.]))
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<sign>[{}\[\]:,;])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(
    rb"\\(?:([abfnrtv\\'\"?])|([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)
_LETTERS: Final = dict(zip(b"abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))
_MAX_DEPTH: Final = 16
_RANGES: Final = {
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}


@dataclass(frozen=True, slots=True)
class Field:
    """`kind`: string, bytes, bool, uint32, uint64, int32, int64; with `values`, an enum; with `fields`, a message."""

    kind: str
    repeated: bool = False
    values: tuple[str, ...] = ()
    fields: Mapping[str, Field] | None = None


Message = dict[str, list[object]]
"""The values of every field that was named: str, bytes, bool, int, an enum's name as str, Message."""


def read_text(text: str, fields: Mapping[str, Field]) -> Message:
    """Raises Refused `adapter_invalid`, with the line."""
    reader = _Reader(text)
    message = reader.message(fields, "", 0)
    if reader.at < len(reader.tokens):
        raise reader.wrong("closes what was not opened")
    return message


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str, int]] = []
        self.at = 0
        at, line = 0, 1
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise invalid(f"line {line}: {shown(text[at : at + 16], 16)} is no part of the text format")
            if found.lastgroup != "space":
                self.tokens.append((str(found.lastgroup), found[0], line))
            line += found[0].count("\n")
            at = found.end()

    def wrong(self, problem: str, remedy: str = "") -> Refused:
        kind, text, line = self.tokens[min(self.at, len(self.tokens) - 1)] if self.tokens else ("", "", 1)
        return invalid(f"line {line}: {shown(text)} {problem}" if kind else f"line 1: {problem}", remedy)

    def message(self, fields: Mapping[str, Field], where: str, depth: int) -> Message:
        if depth > _MAX_DEPTH:
            raise self.wrong("nests too deeply")
        message: Message = {}
        while self.at < len(self.tokens) and self.tokens[self.at][1] != "}":
            kind, name, _ = self.tokens[self.at]
            if kind != "name":
                raise self.wrong("is no field's name")
            field = fields.get(name)
            if field is None:
                meant = nearest(name, fields)
                raise self.wrong(
                    f"is no field{f' of {where}' if where else ''}", f"did you mean {meant!r}?" if meant else ""
                )
            if name in message and not field.repeated:
                raise self.wrong("is given twice")
            self.at += 1
            values = message.setdefault(name, [])
            colon = self._take(":")
            if field.fields is None and not colon:
                raise self.wrong(f"follows {name}; a colon does")
            if field.repeated and self._take("["):
                while not self._take("]"):
                    values.append(self._value(field, name, depth))
                    if not self._take(",") and self._peek() != "]":
                        raise self.wrong("follows a list's value; a comma or `]` does")
            else:
                values.append(self._value(field, name, depth))
            if not self._take(","):
                self._take(";")
        return message

    def _peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def _take(self, sign: str) -> bool:
        if self._peek() != sign or self.tokens[self.at][0] != "sign":
            return False
        self.at += 1
        return True

    def _value(self, field: Field, name: str, depth: int) -> object:
        if self.at == len(self.tokens):
            raise invalid(f"the text ends where {name} has no value")
        if field.fields is not None:
            if not self._take("{"):
                raise self.wrong(f"begins no {name}; `{{` does")
            inner = self.message(field.fields, name, depth + 1)
            if not self._take("}"):
                raise invalid(f"the text ends within {name}")
            return inner
        kind, text, _ = self.tokens[self.at]
        if field.kind in ("string", "bytes"):
            return self._text(field.kind, name)
        value: object = None
        if field.kind == "bool":
            value = {
                "true": True,
                "True": True,
                "t": True,
                "1": True,
                "false": False,
                "False": False,
                "f": False,
                "0": False,
            }.get(text)
        elif field.values and kind == "name" and text in field.values:
            value = text
        elif field.kind in _RANGES and kind == "number":
            value = _number(text)
            low, high = _RANGES[field.kind]
            value = value if low <= value <= high else None
        if value is None:
            wanted = ", ".join(field.values) or field.kind
            raise self.wrong(f"is no value of {name}", f"it may be {wanted}")
        self.at += 1
        return value

    def _text(self, kind: str, name: str) -> object:
        raw = b""
        if self.tokens[self.at][0] != "text":
            raise self.wrong(f"is no value of {name}", "write it in quotation marks")
        while self.at < len(self.tokens) and self.tokens[self.at][0] == "text":
            raw += _ESCAPE.sub(self._escaped, self.tokens[self.at][1][1:-1].encode("utf-8", "surrogateescape"))
            self.at += 1
        return raw if kind == "bytes" else raw.decode("utf-8", "surrogateescape")

    def _escaped(self, found: re.Match[bytes]) -> bytes:
        letter, octal, hexed, short, long, other = found.groups()
        if letter:
            return bytes([_LETTERS[letter[0]]])
        if octal or hexed:
            value = int(octal, 8) if octal else int(hexed, 16)
            if value < 256:
                return bytes([value])
        elif (short or long) and (value := int(short or long, 16)) <= 0x10FFFF and not 0xD800 <= value < 0xE000:
            return chr(value).encode()
        raise self.wrong(
            f"has the escape {shown(found[0].decode('utf-8', 'replace'))}, which there is not", str(other or "")
        )


def _number(text: str) -> int:
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    if digits[:2].lower() == "0x":
        return sign * int(digits, 16)
    if len(digits) > 1 and digits[0] == "0":
        return sign * int(digits, 8) if set(digits) <= set("01234567") else 1 << 80
    return sign * int(digits)
