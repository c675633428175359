"""System-call policies in Kafel, nsjail's language for them, as calls to allow and to deny. Pure.

A manifest knows calls, not arguments: a call that Kafel allows only with some arguments is denied, and one that it
denies with some is denied with all. https://google.github.io/kafel/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from immured.adapters.imported import invalid
from immured.wire.strict import shown

__all__ = ["Calls", "read_kafel"]

_TOKEN: Final = re.compile(
    r"""(?P<space>(?:\s|//[^\n]*|/\*.*?\*/)+)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]+)
      | (?P<sign>[{}()\[\],;]|&&|\|\||[=!<>]=|[<>&|!^-])""",
    re.VERBOSE | re.DOTALL,
)
_DEFINE: Final = re.compile(r"^[ \t]*#define[ \t]+([A-Za-z_][A-Za-z0-9_]*)[ \t]+[^\n]*$", re.MULTILINE)
_PERMIT: Final = ("ALLOW", "LOG")
_REFUSE: Final = ("DENY", "KILL", "KILL_PROCESS", "KILL_THREAD", "ERRNO", "TRAP", "TRACE", "USER_NOTIF")
_KERNELS: Final = {
    "newstat": "stat", "newfstat": "fstat", "newlstat": "lstat", "newuname": "uname", "umount": "umount2",
    "sendfile64": "sendfile", "fadvise64_64": "fadvise64", "mmap_pgoff": "mmap",
}  # fmt: skip
"""Calls that Kafel calls by the kernel's own function."""

_MAX_CALLS: Final = 2048


@dataclass
class Calls:
    """`default`: whether what is not named is allowed. `partly`: named with conditions on arguments. `answers`: what
    is said to a refused call, by name, where it is not plain EPERM.
    """

    default: bool = False
    allow: set[str] = field(default_factory=set)
    deny: set[str] = field(default_factory=set)
    partly: set[str] = field(default_factory=set)
    answers: dict[str, str] = field(default_factory=dict)


_Entry = tuple[str, str, bool]  # the answer, the call, whether arguments decide


def read_kafel(text: str) -> Calls:
    """Raises Refused `adapter_invalid`."""
    reader = _Reader(_DEFINE.sub("", text))
    entries, default = reader.program()
    calls = Calls(default=default in _PERMIT)
    for answer, name, conditional in entries:
        call = _KERNELS.get(name, name)
        if conditional:
            calls.partly.add(call)
        permitted = answer.split("(")[0] in _PERMIT and not conditional
        if call in calls.allow or call in calls.deny:
            permitted = permitted and call in calls.allow  # of two answers the stricter
        (calls.allow if permitted else calls.deny).add(call)
        if not permitted:
            calls.allow.discard(call)
            calls.answers[call] = answer
    return calls


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise invalid(f"the system-call policy: {shown(text[at : at + 16], 16)} is no part of Kafel")
            if found.lastgroup != "space":
                self.tokens.append((str(found.lastgroup), found[0]))
            at = found.end()

    def program(self) -> tuple[list[_Entry], str]:
        """The entries in force, and the answer to what they do not name."""
        policies: dict[str, list[_Entry]] = {}
        entries: list[_Entry] = []
        default = ""
        while self.at < len(self.tokens):
            word = self._name()
            if word == "POLICY":
                name = self._name()
                self._expect("{")
                policies[name] = self._body(policies, "}")
            elif word == "USE":
                entries += self._used(policies)
            elif word == "DEFAULT":
                default = self._action(self._name())
            else:
                entries += self._block(word)
            self._separators()
        if len(entries) > _MAX_CALLS:
            raise invalid(f"the system-call policy names {len(entries)} calls")
        return entries, default.split("(")[0] or "KILL"

    def _body(self, policies: Mapping[str, list[_Entry]], end: str) -> list[_Entry]:
        entries: list[_Entry] = []
        while not self._take(end):
            word = self._name()
            entries += self._used(policies) if word == "USE" else self._block(word)
            self._separators()
        return entries

    def _used(self, policies: Mapping[str, list[_Entry]]) -> Iterable[_Entry]:
        entries: list[_Entry] = []
        while True:
            name = self._name()
            if name not in policies:
                raise invalid(f"the system-call policy uses {shown(name)}, which it does not define before")
            entries += policies[name]
            if self._peek() != "," or self._peek(1) not in policies:
                return entries
            self.at += 1

    def _block(self, word: str) -> list[_Entry]:
        answer = self._action(word)
        self._expect("{")
        entries: list[_Entry] = []
        while not self._take("}"):
            name = self._name()
            if name == "SYSCALL" and self._take("["):
                raise invalid("the system-call policy names a call by its number", "name it")
            if self._take("("):
                self._skip("(", ")")
            conditional = self._take("{")
            if conditional:
                self._skip("{", "}")
            entries.append((answer, name, conditional))
            if not self._take(",") and self._peek() != "}":
                raise invalid(f"the system-call policy: {shown(self._peek())} follows {name}; a comma or `}}` does")
        return entries

    def _action(self, word: str) -> str:
        if word not in (*_PERMIT, *_REFUSE):
            raise invalid(f"the system-call policy: {shown(word)} is no action")
        if self._take("("):
            start = self.at
            self._skip("(", ")")
            return f"{word}({''.join(text for _, text in self.tokens[start : self.at - 1])})"
        return word

    def _skip(self, opening: str, closing: str) -> None:
        depth = 1
        while depth:
            if self.at == len(self.tokens):
                raise invalid(f"the system-call policy ends before a `{closing}`")
            depth += {opening: 1, closing: -1}.get(self.tokens[self.at][1], 0)
            self.at += 1

    def _separators(self) -> None:
        while self._peek() in (",", ";"):
            self.at += 1

    def _peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead][1] if self.at + ahead < len(self.tokens) else ""

    def _take(self, sign: str) -> bool:
        if self._peek() != sign:
            return False
        self.at += 1
        return True

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise invalid(f"the system-call policy: {shown(self._peek())} stands where `{sign}` does")

    def _name(self) -> str:
        if self.at == len(self.tokens) or self.tokens[self.at][0] != "name":
            raise invalid(f"the system-call policy: {shown(self._peek())} stands where a name does")
        self.at += 1
        return self.tokens[self.at - 1][1]
