"""bubblewrap's command line, to 0.11: options and their arguments in the order in which they act. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from immured.adapters.imported import invalid
from immured.wire.strict import nearest, shown

__all__ = ["ARGUMENTS", "Option", "read_line", "read_words"]

_NONE: Final = (
    "--unshare-all --unshare-user --unshare-user-try --unshare-ipc --unshare-pid --unshare-net --unshare-uts "
    "--unshare-cgroup --unshare-cgroup-try --share-net --disable-userns --assert-userns-disabled --clearenv "
    "--new-session --die-with-parent --as-pid-1 --level-prefix"
)
_ONE: Final = (
    "--args --argv0 --chdir --remount-ro --proc --dev --tmpfs --mqueue --dir --lock-file --sync-fd --block-fd "
    "--userns-block-fd --info-fd --json-status-fd --seccomp --add-seccomp-fd --userns --userns2 --pidns --unsetenv "
    "--uid --gid --hostname --cap-add --cap-drop --perms --size --exec-label --file-label --overlay-src --tmp-overlay "
    "--ro-overlay"
)
_TWO: Final = (
    "--bind --bind-try --dev-bind --dev-bind-try --ro-bind --ro-bind-try --bind-fd --ro-bind-fd --file --bind-data "
    "--ro-bind-data --symlink --setenv --chmod"
)
ARGUMENTS: Final = {
    **dict.fromkeys(_NONE.split(), 0),
    **dict.fromkeys(_ONE.split(), 1),
    **dict.fromkeys(_TWO.split(), 2),
    "--overlay": 3,
}
"""How many words follow each option."""

_MAX_WORDS: Final = 9000  # bubblewrap's own


@dataclass(frozen=True, slots=True)
class Option:
    """One option with its words."""

    name: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.name, *self.words))


def read_words(words: Sequence[str], descriptor: Callable[[int], bytes]) -> tuple[list[Option], tuple[str, ...]]:
    """The options, and the command. `descriptor` reads one to its end, for --args; it may raise OSError.

    Raises Refused `adapter_invalid`.
    """
    options, rest = _read(list(words), descriptor, nested=False)
    return options, tuple(rest)


def read_line(text: str) -> list[str]:
    """The words of a file: NUL-separated as for --args, or a line as for a shell, with comments and `\\` at ends. What
    a shell would put in is refused: nobody knows what it was.

    Raises Refused `adapter_invalid`.
    """
    if "\0" in text:
        return text.removesuffix("\0").split("\0")
    text = text.replace("\\\n", " ")
    if (sign := _for_a_shell(text)) is not None:
        raise invalid(
            f"the command line holds {shown(sign)}, which is a shell's to fill in", "give the words that it comes to"
        )
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise invalid(f"the command line does not end: {error}") from None
    while words and (words[0] in ("exec", "env") or words[0].rpartition("/")[2] in ("bwrap", "bubblewrap")):
        del words[0]
    return words


def _for_a_shell(text: str) -> str | None:
    """The first sign outside of quotes (`$` and a backtick also within double ones) that means something to a shell."""
    quote, at = "", 0
    while at < len(text):
        sign = text[at]
        if quote == "'":
            quote = "" if sign == "'" else quote
        elif sign == "\\":
            at += 1
        elif sign in "$`":
            return sign
        elif quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "#" and (at == 0 or text[at - 1].isspace()):
            at = len(text) if (end := text.find("\n", at)) < 0 else end
        elif sign in ";|&<>()":
            return sign
        at += 1
    return None


def _read(words: list[str], descriptor: Callable[[int], bytes], *, nested: bool) -> tuple[list[Option], list[str]]:
    if len(words) > _MAX_WORDS:
        raise invalid(f"the command line has {len(words)} words; at most {_MAX_WORDS}")
    options: list[Option] = []
    at = 0
    while at < len(words):
        name = words[at]
        if name == "--":
            return options, words[at + 1 :]
        if not name.startswith("-"):
            break
        count = ARGUMENTS.get(name)
        if count is None:
            meant = nearest(name, ARGUMENTS)
            raise invalid(f"bubblewrap has no option {shown(name)}", f"did you mean {meant!r}?" if meant else "")
        taken = tuple(words[at + 1 : at + 1 + count])
        if len(taken) < count:
            raise invalid(f"{name} takes {count} words", "bwrap --help")
        at += 1 + count
        if name != "--args":
            options.append(Option(name, taken))
            continue
        if nested:
            raise invalid("--args stands in what --args reads")
        inner, command = _read(_inner(taken[0], descriptor), descriptor, nested=True)
        options += inner
        if command:
            raise invalid("what --args reads holds a command", "name it on the command line")
    return options, words[at:]


def _inner(number: str, descriptor: Callable[[int], bytes]) -> list[str]:
    raw = read_descriptor(number, descriptor)
    return raw.removesuffix(b"\0").decode("utf-8", "surrogateescape").split("\0") if raw else []


def read_descriptor(number: str, descriptor: Callable[[int], bytes]) -> bytes:
    """What a descriptor holds. Raises Refused `adapter_invalid`."""
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise invalid(f"{shown(number)} is no descriptor")
    try:
        return descriptor(int(number))
    except OSError as error:
        raise invalid(f"descriptor {number} cannot be read: {error.strerror}", f"open it: {number}<FILE") from None
