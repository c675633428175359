"""What passes between a person's terminal and a program far away, looked at on the way. Sans-I/O.

Keys: an escape character at the start of a line speaks to the client, as ssh has it. Output: the modes that a program
sets are noted, so that they can be taken back when it is gone without having done so.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

__all__ = ["Keys", "Modes", "Wish"]


class Wish(Enum):
    """What a person wants of the client itself."""

    LEAVE = "leave"
    SUSPEND = "suspend"
    HELP = "help"


_WISHES: Final = {b".": Wish.LEAVE, b"\x1a": Wish.SUSPEND, b"?": Wish.HELP}


class Keys:
    """Splits what is typed into what is for the program, and wishes. `escape`: one byte, or none: all is the
    program's."""

    def __init__(self, escape: bytes = b"~") -> None:
        if len(escape) > 1:
            raise ValueError("the escape character is one byte")
        self._escape = escape
        self._starts_line = True
        self._escaped = False

    def feed(self, data: bytes) -> list[bytes | Wish]:
        """In the order in which they were typed; no empty bytes."""
        if not self._escape:
            return [data] if data else []
        found: list[bytes | Wish] = []
        plain = bytearray()
        for number in data:
            key = bytes((number,))
            if self._escaped:
                self._escaped = False
                wish = _WISHES.get(key)
                if wish is not None:
                    if plain:
                        found.append(bytes(plain))
                        plain.clear()
                    found.append(wish)
                    self._starts_line = True
                    continue
                plain += self._escape if key == self._escape else self._escape + key
            elif self._starts_line and key == self._escape:
                self._escaped = True
                continue
            else:
                plain += key
            self._starts_line = key in (b"\r", b"\n")
        if plain:
            found.append(bytes(plain))
        return found


_SEQUENCE: Final = re.compile(rb"\x1b(?:\[([?>!]?)([0-9;]*)([@-~])|([=>c]))")
_UNFINISHED: Final = re.compile(rb"\x1b(?:\[[?>!]?[0-9;]*)?")
_LONGEST: Final = 64
_ALTERNATE: Final = (b"47", b"1047", b"1049")
_TAKEN_BACK: Final = frozenset(
    {b"1", b"5", b"6", b"9", b"1000", b"1001", b"1002", b"1003", b"1004", b"1005", b"1006", b"1015", b"1016", b"2004"}
    | set(_ALTERNATE)
)
"""DEC private modes that a shell's terminal has off: cursor keys, reverse screen, mouse, paste, a second screen."""


class Modes:
    """Which modes of the terminal a program has set so far, from its output."""

    def __init__(self) -> None:
        self._on: dict[bytes, None] = {}
        self._hidden = self._keypad = self._coloured = self._region = self._keys = False
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """A piece of output; sequences may be cut between pieces."""
        if not self._rest and b"\x1b" not in data:
            return
        data = self._rest + data
        for found in _SEQUENCE.finditer(data):
            prefix, parameters, final, alone = found.groups()
            if alone is not None:
                self._alone(alone)
            else:
                self._control(prefix, parameters, final)
        last = data.rfind(b"\x1b")
        rest = data[last:] if last >= 0 else b""
        self._rest = rest if len(rest) <= _LONGEST and _UNFINISHED.fullmatch(rest) else b""

    def undo(self) -> bytes:
        """What takes it all back; empty where there is nothing to."""
        said = b""
        if self._region:
            said += b"\x1b7\x1b[r\x1b8"
        for mode in reversed(self._on):
            said += b"\x1b[?" + mode + b"l"
        if self._keypad:
            said += b"\x1b>"
        if self._keys:
            said += b"\x1b[>4m"
        if self._hidden:
            said += b"\x1b[?25h"
        if self._coloured:
            said += b"\x1b[m"
        return said

    def _alone(self, letter: bytes) -> None:
        if letter == b"c":
            self._on.clear()
            self._hidden = self._keypad = self._coloured = self._region = self._keys = False
        else:
            self._keypad = letter == b"="

    def _control(self, prefix: bytes, parameters: bytes, final: bytes) -> None:
        if prefix == b"?" and final in b"hl":
            for mode in parameters.split(b";"):
                self._private(mode, on=final == b"h")
        elif prefix == b">" and final == b"m":
            self._keys = parameters.startswith(b"4;") and parameters not in (b"4;0", b"4;")
        elif not prefix and final == b"m":
            self._coloured = parameters.strip(b"0;") != b""
        elif not prefix and final == b"r":
            self._region = parameters.strip(b";") != b""

    def _private(self, mode: bytes, *, on: bool) -> None:
        if mode == b"25":
            self._hidden = not on
        elif mode in _TAKEN_BACK:
            if on:
                self._on[mode] = None
            else:
                self._on.pop(mode, None)
