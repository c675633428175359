"""What one [command] lets be ordered that another does not. Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from immured.manifest.change import Found, Severity, shown_word
from immured.manifest.inclusion import Budget, Patterns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from immured.manifest.schema import Command, Program

__all__ = ["command_grown"]

_Pattern = tuple[bytes, ...]

_LEADING: Final = (
    *(b"PATH", b"BASH_ENV", b"ENV", b"IFS", b"PYTHONPATH", b"PYTHONSTARTUP", b"PYTHONHOME", b"PERL5LIB", b"PERL5OPT"),
    *(b"RUBYLIB", b"RUBYOPT", b"NODE_OPTIONS", b"NODE_PATH", b"JAVA_TOOL_OPTIONS", b"GCONV_PATH", b"EDITOR", b"PAGER"),
)
"""Variables that lead a program to other code; and those that begin with one of these:"""
_LEADING_FAMILIES: Final = (b"LD_", b"GIT_", b"DYLD_", b"CARGO_", b"NPM_CONFIG_", b"PIP_", b"MAKE")
_MAX_WORDS: Final = 8
_MAX_PATTERNS: Final = 8


def command_grown(less: Command, more: Command, budget: Budget) -> Iterator[Found]:
    """What `more` admits beyond `less`."""
    yield from _allow_grown(less, more, budget)
    if less.pin and not more.pin:
        yield Found(
            "command.pin",
            Severity.HIGH,
            "runs files that nobody opened and digested before, which were pinned",
            "runs files that nobody opened and digested before no more",
        )
    yield from _env_grown(less, more)
    for pattern in more.pass_env:
        if not any(_covers(one, pattern) for one in less.pass_env):
            does = "lets a run set any variable" if pattern == "*" else f"lets a run set {pattern}"
            yield Found.of("command.pass_env", Severity.MEDIUM, does)
    if less.cwd != more.cwd:
        before, after = shown_word(less.cwd), shown_word(more.cwd)
        yield Found(
            "command.cwd",
            Severity.LOW,
            f"starts in {after} instead of {before}",
            f"starts in {before} instead of {after}",
        )


def _allow_grown(less: Command, more: Command, budget: Budget) -> Iterator[Found]:
    if not less.allow:
        return
    if not more.allow:
        yield Found.of("command.allow", Severity.CRITICAL, "allows any command")
        return
    before = _by_name(less.allow)
    for name, programs in _by_name(more.allow).items():
        for sha256, patterns in programs.items():
            yield from _program_grown(shown_word(name), before.get(name), sha256, patterns, budget)


_ByDigest = dict[str | None, "dict[_Pattern, None]"]
"""Of one program: the patterns of its arguments by the digest that its file must have; without a pattern any fit."""


def _by_name(allow: tuple[Program, ...]) -> dict[bytes, _ByDigest]:
    found: dict[bytes, _ByDigest] = {}
    for one in allow:
        known = found.setdefault(one.name, {}).setdefault(one.sha256, dict.fromkeys(one.arguments))
        if known and one.arguments:
            known.update(dict.fromkeys(one.arguments))
        else:
            known.clear()
    return found


def _program_grown(
    name: str, before: _ByDigest | None, sha256: str | None, patterns: dict[_Pattern, None], budget: Budget
) -> Iterator[Found]:
    if before is None:
        yield Found.of("command.allow", Severity.HIGH, f"allows the program {name}{_with(list(patterns))}")
        return
    same = [before[one] for one in dict.fromkeys((None, sha256)) if one in before]
    if not same:
        what = "whatever its bytes are" if sha256 is None else f"of the digest {sha256[:16]}…"
        yield Found.of("command.allow", Severity.HIGH, f"allows {name} {what}")
        same = list(before.values())
    if not all(same):
        return
    if not patterns:
        yield Found.of("command.allow", Severity.HIGH, f"allows {name} with any arguments")
        return
    if not budget.spend(sum(map(len, same))):
        same = same[-1:]
    wider = Patterns(itertools.chain.from_iterable(same))
    new = [pattern for pattern in patterns if not wider.include(pattern, budget)]
    for pattern in new[:_MAX_PATTERNS]:
        yield Found.of("command.allow", Severity.HIGH, f"allows {name}{_arguments(pattern)}")
    if len(new) > _MAX_PATTERNS:
        more = len(new) - _MAX_PATTERNS
        yield Found.of("command.allow", Severity.HIGH, f"allows {name} with arguments of {more} more patterns")


def _with(patterns: list[_Pattern]) -> str:
    if not patterns:
        return ""
    return _arguments(patterns[0]) if len(patterns) == 1 else f" with arguments of {len(patterns)} patterns"


def _arguments(pattern: _Pattern) -> str:
    if not pattern:
        return " without arguments"
    words = " ".join(shown_word(word) for word in pattern[:_MAX_WORDS])
    return f" with the arguments {words}{' …' if len(pattern) > _MAX_WORDS else ''}"


def _env_grown(less: Command, more: Command) -> Iterator[Found]:
    """Variables that are set to what they were not. Values are not told: a word of the ledger is there for good."""
    before = dict(less.env)
    for name, value in more.env:
        was = before.get(name)
        if was == value:
            continue
        free = less.may_set(name) and not (less.allow and name == b"PATH")
        leads = name in _LEADING or name.startswith(_LEADING_FAMILIES)
        severity = Severity.HIGH if leads and not free else Severity.LOW
        shown = shown_word(name)
        if was is None:
            yield Found.of("command.env", severity, f"sets the variable {shown}")
        else:
            words = f"sets the variable {shown} to another value"
            yield Found("command.env", severity, words, words)


def _covers(wider: str, pattern: str) -> bool:
    """Whether every name that `pattern` lets be set, `wider` does."""
    if wider == pattern:
        return True
    return wider.endswith("*") and pattern.removesuffix("*").startswith(wider[:-1])
