"""TOML of strangers: parsed in a time that grows with its length. Pure."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

__all__ = ["parse_toml"]

_LONG_INTEGER: Final = "an integer of more than 64 bits"

_QUOTED: Final = r'"(?:[^"\\\n]|\\.)*"'
_LITERAL: Final = r"'[^'\n]*'"
_PART: Final = r"""(?:[^\s=,.{}\[\]"'#]{1,64}|"(?:[^"\\\n]|\\.){0,64}"|'[^'\n]{0,64}')"""
_LONG: Final = rf"(?:{_PART}[ \t]*\.[ \t]*){{32}}"
_LONG_KEY: Final = re.compile(rf"""(?<![^\s=,.{{}}\[\]"']){_LONG}""")
_TOKENS: Final = re.compile(
    rf"""#[^\n]*|\"\"\"(?:[^\\]|\\.)*?\"{{3,5}}|'''.*?'{{3,5}}|(?P<key>{_LONG})|{_QUOTED}|{_LITERAL}|[^\s=,.{{}}\[\]"'#]+|.""",
    re.DOTALL,
)


def parse_toml(raw: bytes, parse_float: Any = float) -> dict[str, Any]:
    """What the text says. Raises ValueError with what is wrong with it, in words.

    tomllib takes a time for a dotted key that grows with the square of its parts: a minute for a quarter of a megabyte.
    Nothing here nests so deeply.
    """
    text = _text(raw)
    if _LONG_KEY.search(text) and any(found["key"] for found in _TOKENS.finditer(text)):
        raise ValueError("nested too deeply")
    try:
        found = tomllib.loads(text, parse_float=parse_float)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # of more digits than Python reads
        raise ValueError(_LONG_INTEGER) from None
    _check_integers(found)
    return found


def _check_integers(whole: dict[str, Any]) -> None:
    """TOML's are of 64 bits. Python's are endless, and one of more than 4,300 digits, read as hex, cannot even be
    shown in a message."""
    left: list[Any] = [whole]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list):
            left += one
        elif type(one) is int and not -(2**63) <= one < 2**63:
            raise ValueError(_LONG_INTEGER)


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} holds bytes that are not UTF-8") from None
