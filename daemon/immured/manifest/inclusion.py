"""Whether patterns of arguments admit all that another one admits. Pure.

A pattern is a small automaton over the words' bytes, a NUL before each word; inclusion is a walk over pairs of a state
of the one and a set of states of the others. Exact, but for patterns so large that the walk is given up: then the
answer is no, which says that more is admitted than is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from immured.manifest.words import REST, fits

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Budget", "Patterns", "includes"]

_SEPARATOR: Final = 0
_ANY_RUN, _ANY_WORDS, _OPEN, _END = -1, -2, -3, -4
_OTHER: Final = 256
"""Stands for every byte that no pattern names."""
_MAX_TOKENS: Final = 4096
_MAX_STEPS: Final = 200_000

_Token = int
"""A byte; or any run of bytes of one word, any further words, the inside of those, the end."""


class Budget:
    """How many steps may still be taken, by all comparisons of two manifests together: some 0.2 s of them."""

    def __init__(self, steps: int = _MAX_STEPS) -> None:
        self.steps = steps

    def spend(self, steps: int) -> bool:
        """Whether there were so many left; from then on none are."""
        self.steps -= steps
        return self.steps >= 0


class Patterns:
    """Patterns of which one must be fitted; none: any arguments fit."""

    def __init__(self, patterns: Iterable[tuple[bytes, ...]] = ()) -> None:
        self.all: Final = tuple(dict.fromkeys(patterns))
        self._known = frozenset(self.all)
        self._size = sum(map(_size, self.all))

    def include(self, pattern: tuple[bytes, ...] | None, budget: Budget) -> bool:
        """Whether one of these fits every list of words that `pattern` fits (None: every one)."""
        if not self.all or pattern in self._known:
            return True
        pattern = (REST,) if pattern is None else pattern
        size = _size(pattern)
        if size > _MAX_TOKENS or not budget.spend(size + len(self.all)):
            return False
        narrow = _tokens(pattern)
        if _ANY_RUN not in narrow and _ANY_WORDS not in narrow:
            words = _words(narrow)
            return any(fits(words, one) for one in self.all)
        if size + self._size > _MAX_TOKENS or not budget.spend(self._size):
            return False
        return _walk(narrow, [_tokens(one) for one in self.all], budget)


def includes(wider: Iterable[tuple[bytes, ...]], pattern: tuple[bytes, ...] | None) -> bool:
    """`Patterns.include`, for once."""
    return Patterns(wider).include(pattern, Budget())


def _size(pattern: tuple[bytes, ...]) -> int:
    return sum(len(word) + 2 for word in pattern)


def _walk(narrow: list[_Token], wide: list[list[_Token]], budget: Budget) -> bool:
    named = {token for tokens in (narrow, *wide) for token in tokens if token >= 0}
    alphabet = sorted({*named, _SEPARATOR, _OTHER})
    start = frozenset((index, 0) for index in range(len(wide)))
    todo = [(at, _closed(wide, start)) for at in _skips(narrow, 0)]
    seen = set(todo)
    while todo:
        at, others = todo.pop()
        if _ends(narrow, at) and not any(_ends(wide[index], place) for index, place in others):
            return False
        for symbol in alphabet:
            after = _steps(narrow, at, symbol)
            if not after:
                continue
            if not budget.spend(1 + len(others)):
                return False
            moved = _closed(wide, ((index, to) for index, place in others for to in _steps(wide[index], place, symbol)))
            for pair in ((to, moved) for one in after for to in _skips(narrow, one)):
                if pair not in seen:
                    seen.add(pair)
                    todo.append(pair)
    return True


def _tokens(pattern: tuple[bytes, ...]) -> list[_Token]:
    found: list[_Token] = []
    for number, word in enumerate(pattern):
        if word == REST and number == len(pattern) - 1:
            found += (_ANY_WORDS, _OPEN)
            break
        found.append(_SEPARATOR)
        escaped = False
        for byte in word:
            if escaped or byte not in b"\\*":
                found.append(byte)
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif found[-1] != _ANY_RUN:
                found.append(_ANY_RUN)
    return [*found, _END]


def _words(tokens: list[_Token]) -> list[bytes]:
    """The words of a pattern without asterisks."""
    return [] if len(tokens) == 1 else bytes(tokens[:-1]).split(b"\0")[1:]


def _steps(tokens: list[_Token], at: int, symbol: int) -> tuple[int, ...]:
    token = tokens[at]
    if token == symbol:
        return (at + 1,)
    if token == _OPEN or (token == _ANY_RUN and symbol != _SEPARATOR):
        return (at,)
    return (at + 1,) if token == _ANY_WORDS and symbol == _SEPARATOR else ()


def _skips(tokens: list[_Token], at: int) -> tuple[int, ...]:
    """Where one also is without a further byte."""
    return (at, *_skips(tokens, at + 1)) if tokens[at] == _ANY_RUN else (at,)


def _closed(wide: list[list[_Token]], places: Iterable[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    return frozenset((index, to) for index, place in places for to in _skips(wide[index], place))


def _ends(tokens: list[_Token], at: int) -> bool:
    return tokens[at] in (_ANY_WORDS, _OPEN, _END)
