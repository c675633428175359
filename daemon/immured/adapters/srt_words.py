"""The command line of `srt`, as its parser (commander) takes it: options are its own wherever they stand before `--`;
from the first that it does not know, words are only words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from immured.adapters.imported import invalid

__all__ = ["Words", "read_words"]

_VALUES = {"-s": "settings", "--settings": "settings", "-c": "command", "--control-fd": "control_fd"}
_FLAGS = {
    "-d": "debug", "--debug": "debug", "-q": "quiet", "--quiet": "quiet", "-h": "help", "--help": "help",
    "-V": "version", "--version": "version",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Words:
    """`command`: the line that a shell is given."""

    command: str
    settings: str | None = None
    flags: frozenset[str] = field(default_factory=frozenset)


def read_words(words: Sequence[str]) -> Words:
    """Raises Refused `adapter_invalid`."""
    values: dict[str, str] = {}
    flags: set[str] = set()
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            rest += left
            break
        name, joined, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if name in _VALUES:
            if not joined and not left:
                raise invalid(f"{name} takes a value")
            values[_VALUES[name]] = value if joined else left.pop(0)
        elif name in _FLAGS:
            flags.add(_FLAGS[name])
        elif len(word) > 2 and word[0] == "-" != word[1] and word[:2] in _VALUES:
            values[_VALUES[word[:2]]] = word[2:]
        elif len(word) > 2 and word[0] == "-" != word[1] and word[:2] in _FLAGS:
            flags.add(_FLAGS[word[:2]])
            left.insert(0, f"-{word[2:]}")
        else:
            rest.append(word)
    if "control_fd" in values:
        raise invalid(
            "--control-fd changes the settings while the command runs", "start another run with other settings"
        )
    command = values.get("command") or " ".join(rest)
    if not command and not flags & {"help", "version"}:
        raise invalid("no command is named", "srt [-s SETTINGS] [-c LINE] [COMMAND...]")
    return Words(command, values.get("settings"), frozenset(flags))
