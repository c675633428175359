"""The compiler and the built-in profiles against libseccomp, the field's reference."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured import _core
from immured.isolation import syscalls
from immured.isolation.profiles import SHIPPED
from immured.isolation.seccomp import compile_profile
from immured.isolation.syscalls import Architecture
from tests.seccomp import libseccomp as ls
from tests.seccomp import model
from tests.seccomp.model import AARCH64, ALL, ALLOW, KILL, KILL_THREAD, LOG, LOW, NOTIFY, TRAP, X86_64, errno_action

REFUSED = errno_action(errno.EPERM)
OPERATORS = {
    _core.COMPARE_LT: ls.LT,
    _core.COMPARE_LE: ls.LE,
    _core.COMPARE_GT: ls.GT,
    _core.COMPARE_GE: ls.GE,
}


def comparison(condition: model.Condition) -> tuple[int, int, int, int] | None:
    """A wide condition as libseccomp says it; None where it has no words for it."""
    argument, compare, value, mask = condition
    kind = compare & ~_core.COMPARE_WIDE
    if kind == _core.COMPARE_EQ:
        return argument, ls.MASKED_EQ, mask, value
    if kind == _core.COMPARE_NE:
        return (argument, ls.NE, value, 0) if mask == ALL else None
    return (argument, OPERATORS[kind], value, 0) if kind in OPERATORS else None


ANSWERS = [ALLOW, KILL, LOG, TRAP, KILL_THREAD, NOTIFY, errno_action(13), errno_action(errno.ENOSYS)]


@st.composite
def one_rule_per_call(draw: st.DrawFn) -> list[model.Rule]:
    """Rules that both can say: one a number, an argument at most once, all 64 bits."""
    numbers = draw(st.lists(st.integers(0, 400), unique=True, max_size=25))
    rules: list[model.Rule] = []
    for number in numbers:
        listed = draw(st.lists(model.conditions(only_wide=True), max_size=3, unique_by=lambda c: c[0]))
        action = draw(st.sampled_from(ANSWERS))
        rules.append((number, action, tuple(c for c in listed if comparison(c) is not None)))
    return rules


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_the_same_rules_give_the_same_verdicts(data: st.DataObject) -> None:
    rules = data.draw(one_rule_per_call())
    ours = _core.seccomp_compile(X86_64, rules, fallback=REFUSED, unknown=REFUSED, foreign=KILL)
    theirs = ls.compiled(
        REFUSED,
        KILL,
        [(n, action, [c for c in map(comparison, conditions) if c is not None]) for n, action, conditions in rules],
    )
    for number in [rule[0] for rule in rules] + [401, 500]:
        arguments = data.draw(model.arguments_near([rule for rule in rules if rule[0] == number]))
        assert _core.seccomp_evaluate(ours, X86_64, number, arguments) == _core.seccomp_evaluate(
            theirs, X86_64, number, arguments
        )


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_our_numbers_are_libseccomps(architecture: Architecture) -> None:
    """Every name that it knows has the same number there; what it does not know is newer than it."""
    different = {
        name: (number, ls.number_of(name, architecture))
        for name, number in syscalls.numbers(architecture).items()
        if number != ls.number_of(name, architecture) and ls.number_of(name, architecture) >= 0
    }
    assert different == {}


# The walls, said a second time in libseccomp's words. Allowed where one of the lines holds; what is not here is allowed
# whole or not at all. (argument, operator, first, second): MASKED_EQ takes the mask first.
NO_SET_ID = 0o6000
CREATES = 0o100 | 0o20000000
Alternatives = list[list[tuple[int, int, int, int]]]


def int_is(argument: int, value: int) -> tuple[int, int, int, int]:
    return argument, ls.MASKED_EQ, LOW, value


def clear(argument: int, mask: int) -> tuple[int, int, int, int]:
    return argument, ls.MASKED_EQ, mask, 0


def kinds_of_file(argument: int) -> Alternatives:
    return [[(argument, ls.MASKED_EQ, 0o176000, kind)] for kind in (0, 0o100000, 0o010000, 0o140000)]


def no_type(*refused: int, where: tuple[tuple[int, int, int, int], ...]) -> Alternatives:
    """SOCK_PACKET is type 10, SOCK_DCCP 6; one bit pattern at a time, since libseccomp has no masked !=."""
    others = [kind for kind in range(16) if kind not in refused]
    return [[*where, (1, ls.MASKED_EQ, 0xF, kind)] for kind in others]


ALTERNATIVES: dict[str, Alternatives] = {
    "chmod": [[clear(1, NO_SET_ID)]],
    "fchmod": [[clear(1, NO_SET_ID)]],
    "creat": [[clear(1, NO_SET_ID)]],
    "mkdir": [[clear(1, NO_SET_ID)]],
    "fchmodat": [[clear(2, NO_SET_ID)]],
    "fchmodat2": [[clear(2, NO_SET_ID)]],
    "mkdirat": [[clear(2, NO_SET_ID)]],
    "open": [[clear(1, CREATES)], [clear(2, NO_SET_ID)]],
    "mq_open": [[clear(1, CREATES)], [clear(2, NO_SET_ID)]],
    "openat": [[clear(2, CREATES)], [clear(3, NO_SET_ID)]],
    "mknod": kinds_of_file(1),
    "mknodat": kinds_of_file(2),
    "renameat2": [[clear(4, 4)]],  # RENAME_WHITEOUT
    "clone": [[clear(0, 0x7E020000)]],
    "personality": [[int_is(0, 0)], [int_is(0, 0x40000)], [int_is(0, LOW)]],
    "socketpair": [[int_is(0, 1)]],
    "mmap": [[clear(3, 0x40000)]],
    "memfd_create": [[clear(1, 4)]],
    "shmget": [[clear(2, 0o4000)]],
    "socket": [
        [int_is(0, 1)],
        *(line for number in (0, 1, 6, 17) for line in no_type(6, 10, where=(int_is(0, 2), int_is(2, number)))),
        *(line for number in (0, 6, 17, 58) for line in no_type(6, where=(int_is(0, 10), int_is(2, number)))),
        *no_type(6, where=(int_is(0, 16), int_is(2, 0))),
    ],
}
TERMINAL = (0x5412, 0x541C, 0x5423, 0x541D)
OTHERS_FILES = (1024, 1026, 1040)  # F_SETLEASE, F_NOTIFY, F_SETDELEG


def independent(profile: str, architecture: Architecture) -> tuple[bytes, bytes, set[str]]:
    """Two of libseccomp's filters, whose stricter answer counts as the kernel's does, and the calls that they know."""
    allowed = SHIPPED[profile].calls
    known = {name for name in syscalls.numbers(architecture) if _resolves(name, architecture)}
    with ls.new_filter(REFUSED, KILL, architecture) as first:
        for name in sorted(allowed & known):
            for line in ALTERNATIVES.get(name, [[]]):
                first.rule(ALLOW, _rule_number(name), *line)
        program = first.export()
    with ls.new_filter(ALLOW, KILL, architecture) as second:
        for request in TERMINAL:
            second.rule(REFUSED, _rule_number("ioctl"), int_is(1, request))
        for command in OTHERS_FILES:
            second.rule(REFUSED, _rule_number("fcntl"), int_is(1, command))
        second.rule(REFUSED, _rule_number("setrlimit"), int_is(0, 4))
        second.rule(REFUSED, _rule_number("prlimit64"), int_is(1, 4), (2, ls.NE, 0, 0))
        if profile == "no-unix":
            second.rule(REFUSED, _rule_number("socket"), int_is(0, 1))
        return program, second.export(), known


def _rule_number(name: str) -> int:
    """libseccomp's rules take this machine's numbers, or its own negative ones for names that this machine lacks."""
    number = ls.number_of(name, "x86_64")
    return number if number != -1 else syscalls.numbers("x86_64")[name]


def _resolves(name: str, architecture: Architecture) -> bool:
    """On its own machine libseccomp takes any number; for another's it must know the name."""
    return architecture == "x86_64" or ls.number_of(name, architecture) >= 0


INTERESTING = sorted(
    {0, 1, 2, 4, 5, 6, 10, 16, 17, 38, 40, 58, 262, *OTHERS_FILES}
    | {0o4000, 0o2000, 0o6755, 0o755, 0o104755, 0o20600, 0o10644, 0o140777}
    | {0o100, 0o101, 0o1101, 0o20200000, 0o20000000, 0o40000, 0x11, 0x10000000, 0x20000, 0x40000, 0x02000000, 0x80}
    | {*TERMINAL, 0x5401, LOW, 1 << 32, (1 << 32) | 0x5412, (1 << 32) | 0o4755, (1 << 32) | 2, ALL}
)


def argument_tuples(name: str) -> Iterator[tuple[int, ...]]:
    """Every pair of interesting values in each place that a guard looks at."""
    guarded = name in syscalls.walls().guards
    yield (0, 0, 0, 0, 0, 0)
    if not guarded:
        yield from ((value,) * 6 for value in INTERESTING[::6])
        return
    for one, two in itertools.product(INTERESTING, repeat=2):
        yield (one, 1, two, 0o644, 0, 0)
        yield (3, one, two, 0, 0, 0)
        yield (LOW - 99, 0x1000, one, two, 0, 0)
    for one, two, three in itertools.product([1, 2, 10, 16, 17], [1, 2, 3, 10, 0x80002], INTERESTING):
        yield (one, two, three, 0, 0, 0)


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
@pytest.mark.parametrize("profile", syscalls.profile_names())
def test_a_profile_allows_what_libseccomps_version_of_it_allows(profile: str, architecture: Architecture) -> None:
    ours = compile_profile(profile, arch=architecture)
    theirs, terminal, known = independent(profile, architecture)
    audit = X86_64 if architecture == "x86_64" else AARCH64
    different: list[tuple[str, tuple[int, ...]]] = []
    for name, number in syscalls.numbers(architecture).items():
        if name not in known:
            continue
        for arguments in argument_tuples(name):
            mine = _core.seccomp_evaluate(ours, audit, number, arguments) == ALLOW
            other = {_core.seccomp_evaluate(program, audit, number, arguments) for program in (theirs, terminal)}
            if mine != (other == {ALLOW}):
                different.append((name, arguments))
    assert different == []


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
@pytest.mark.parametrize("profile", syscalls.profile_names())
def test_no_number_outside_the_table_is_there(profile: str, architecture: Architecture, explain: bool) -> None:
    """Calls newer than the table, too: programs fall back."""
    program = compile_profile(profile, arch=architecture, explain=explain)
    known = set(syscalls.numbers(architecture).values())
    audit = X86_64 if architecture == "x86_64" else AARCH64
    strange = [n for n in (*range(5000), 0x3FFF_FFFF, LOW) if n not in known]
    assert {_core.seccomp_evaluate(program, audit, n) for n in strange} == {errno_action(errno.ENOSYS)}


EDGES = [0, 1, 7, 0x7FFF_FFFF, 0x8000_0000, LOW - 1, LOW, 1 << 32, (1 << 32) + 7, 1 << 63, ALL - 1, ALL]


def common_names() -> list[str]:
    """The calls that both architectures and libseccomp have: it takes this machine's numbers for either."""
    return [
        name
        for name in sorted(syscalls.numbers("x86_64").keys() & syscalls.numbers("aarch64").keys())
        if all(ls.number_of(name, architecture) >= 0 for architecture in ("x86_64", "aarch64"))
    ]


@pytest.mark.parametrize("kind", [*OPERATORS, _core.COMPARE_EQ, _core.COMPARE_NE])
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_every_call_is_decided_by_64_bits_as_libseccomp_does(architecture: Architecture, kind: int) -> None:
    """Each call has an answer, an argument and a value of its own, and is asked beside all of them."""
    numbers, audit = syscalls.numbers(architecture), X86_64 if architecture == "x86_64" else AARCH64
    rules = {
        name: (
            ANSWERS[index % len(ANSWERS)],
            (index % 6, kind | _core.COMPARE_WIDE, (index << 33 | index) if index % 3 else EDGES[index % 12], ALL),
        )
        for index, name in enumerate(common_names())
    }
    ours = _core.seccomp_compile(
        audit,
        [(numbers[name], action, (condition,)) for name, (action, condition) in rules.items()],
        fallback=REFUSED,
        unknown=REFUSED,
        foreign=KILL,
    )
    theirs = ls.compiled(
        REFUSED,
        KILL,
        [
            (ls.number_of(name), action, [said])
            for name, (action, condition) in rules.items()
            if (said := comparison(condition)) is not None
        ],
        architecture,
    )
    different = [
        (name, value)
        for name, (_, condition) in rules.items()
        for value in (*EDGES, condition[2], (condition[2] + 1) & ALL, (condition[2] - 1) & ALL, condition[2] ^ 1 << 32)
        if _core.seccomp_evaluate(ours, audit, numbers[name], (value,) * 6)
        != _core.seccomp_evaluate(theirs, audit, numbers[name], (value,) * 6)
    ]
    assert different == []


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_range_is_what_two_of_libseccomps_filters_leave(data: st.DataObject) -> None:
    """It has no words for both ends of one argument: the stricter of two filters counts, as in the kernel."""
    low, high = sorted((data.draw(model.values(64)), data.draw(model.values(64))))
    inside = (3, _core.COMPARE_IN | _core.COMPARE_WIDE, low, high)
    ours = _core.seccomp_compile(X86_64, [(5, ALLOW, (inside,))], fallback=REFUSED, unknown=REFUSED, foreign=KILL)
    theirs = [ls.compiled(REFUSED, KILL, [(5, ALLOW, [end])]) for end in ((3, ls.GE, low, 0), (3, ls.LE, high, 0))]
    arguments = data.draw(model.arguments_near([(5, ALLOW, (inside,))]))
    allowed = all(_core.seccomp_evaluate(program, X86_64, 5, arguments) == ALLOW for program in theirs)
    assert (_core.seccomp_evaluate(ours, X86_64, 5, arguments) == ALLOW) == allowed
