"""The kernel agrees with the interpreter, and ordinary programs do not notice the default profile."""

from __future__ import annotations

import errno
import itertools
import random
import signal
from pathlib import Path

import pytest

from immured import _core
from immured._abi import lib
from immured.isolation import syscalls
from immured.isolation.seccomp import AUDIT_ARCH, compile_profile, host_architecture
from tests.seccomp.kernel import ALLOWED, INSTRUCTION, SAID_DONE, ask, build_asker, death_of, run_under, taken
from tests.seccomp.model import ALL, ALLOW, KILL, KILL_THREAD, LOG, LOW, NOTIFY, TRAP, errno_action
from tests.seccomp.programs import ATTEMPT, PRESENT, PROGRAMS, REFUSALS
from tests.seccomp.test_libseccomp import INTERESTING

# Calls that uprobes' own trampolines make: the kernel lets them past every filter and ends whoever else makes them.
PAST_FILTERS = {"uprobe", "uretprobe"}


LISTENERLESS = errno.ENOSYS
"""What the kernel answers in a notifier's place where there is none."""


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_asker(tmp_path_factory.mktemp("ask"))


def expected(program: bytes, number: int, arguments: tuple[int, ...]) -> int:
    action = _core.seccomp_evaluate(program, AUDIT_ARCH[host_architecture()], number, arguments)
    if action == NOTIFY:
        return LISTENERLESS
    return ALLOWED if action == ALLOW else action & lib.SECCOMP_RET_DATA or SAID_DONE


CODES = [
    0x20, 0x20, 0x80, 0x81, 0x00, 0x01, 0x60, 0x61, 0x02, 0x03, 0x06, 0x16, 0x05, 0x15, 0x1D, 0x25, 0x2D, 0x35, 0x45,
    0x04, 0x0C, 0x14, 0x24, 0x34, 0x3C, 0x44, 0x54, 0x5C, 0x64, 0x6C, 0x74, 0x84, 0x94, 0x9C, 0xA4, 0x07, 0x87,
    0x28, 0x30, 0x40, 0xB1, 0x0E, 0x55, 0xFFFF,
]  # fmt: skip
"""Every instruction of classic BPF, and a few that are none."""
WORDS = [0, 0, 0, 1, 2, 3, 4, 8, 12, 15, 16, 31, 32, 60, 61, 63, 64, LOW]


def some_program(chance: random.Random) -> bytes:
    """Now and then one that the kernel takes."""
    count = chance.randint(1, 9)
    rows = [
        (chance.choice(CODES), chance.choice((0, 0, 0, 1, 3)), chance.choice((0, 0, 0, 1, 3)), chance.choice(WORDS))
        for _ in range(count)
    ]
    return b"".join(
        INSTRUCTION.pack(*row) for row in [*rows, (0x06, 0, 0, ALLOW)][: count + chance.choice((0, 1, 1, 1))]
    )


def the_interpreter_takes(program: bytes) -> bool:
    try:
        _core.seccomp_evaluate(program, AUDIT_ARCH[host_architecture()], 0)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("seed", range(4))
def test_the_interpreter_takes_what_the_kernel_takes(seed: int) -> None:
    chance = random.Random(seed)
    programs = [some_program(chance) for _ in range(3000)]
    answers = taken(programs)
    assert 100 < sum(answers) < 2900
    assert [the_interpreter_takes(program) for program in programs] == answers


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("profile", syscalls.profile_names())
def test_the_kernel_answers_every_number_as_the_interpreter_does(profile: str, explain: bool, asker: Path) -> None:
    program = compile_profile(profile, explain=explain)
    past = {syscalls.numbers(host_architecture()).get(name) for name in PAST_FILTERS}
    calls = [(number, (0,) * 6) for number in range(1200) if number not in past]
    answers = ask(asker, program, calls)
    assert answers == [expected(program, number, arguments) for number, arguments in calls]


@pytest.mark.parametrize("explain", [False, True])
def test_the_kernel_answers_guarded_calls_as_the_interpreter_does(explain: bool, asker: Path) -> None:
    program = compile_profile("default", explain=explain)
    numbers = syscalls.numbers(host_architecture())
    looked_at = syscalls.walls().guards.keys() | syscalls.explained().watched.keys()
    guarded = [numbers[name] for name in sorted(looked_at) if name in numbers]
    pairs = list(itertools.product(INTERESTING, repeat=2))
    calls = [(number, (one, two, one, two, 0, 0)) for number in guarded for one, two in pairs]
    calls += [(number, (3, one, two, one, 0, 0)) for number in guarded for one, two in pairs]
    calls += [(number, (3, one, two, 0, two, 0)) for number in guarded for one, two in pairs[::7]]
    answers = ask(asker, program, calls)
    assert answers == [expected(program, number, arguments) for number, arguments in calls]


def test_the_kernel_compares_as_the_interpreter_does(asker: Path) -> None:
    """Every comparison, in 32 and in 64 bits, beside the values where carries and signs go wrong."""
    edges = [0, 1, 7, 0x7FFF_FFFF, 0x8000_0000, LOW, 1 << 32, 7 << 32 | 7, 1 << 63, ALL]
    getpid = syscalls.numbers(host_architecture())["getpid"]
    for kind, wide, value in itertools.product(range(_core.COMPARE_EQ, _core.COMPARE_IN + 1), (False, True), edges):
        whole = ALL if wide else LOW
        if value > whole:
            continue
        compare = kind | (_core.COMPARE_WIDE if wide else 0)
        program = _core.seccomp_compile(
            AUDIT_ARCH[host_architecture()],
            [(getpid, errno_action(7), ((4, compare, value, whole),))],
            fallback=errno_action(9),
            unknown=errno_action(9),
            foreign=KILL,
        )
        calls = [(getpid, (0, 0, 0, 0, one, 0)) for one in (*edges, (value + 1) & ALL, (value - 1) & ALL)]
        assert ask(asker, program, calls) == [expected(program, *call) for call in calls], (kind, wide, value)


@pytest.mark.parametrize(("action", "signal_"), [(TRAP, signal.SIGSYS), (KILL_THREAD, signal.SIGSYS), (LOG, None)])
def test_the_kernel_acts_as_a_rule_says(action: int, signal_: signal.Signals | None, asker: Path) -> None:
    """One call with this action; a call that is only logged is done, and the asker then ends itself."""
    getpid = syscalls.numbers(host_architecture())["getpid"]
    rules = [(n, action if n == getpid else ALLOW, ()) for n in syscalls.numbers(host_architecture()).values()]
    program = _core.seccomp_compile(
        AUDIT_ARCH[host_architecture()], rules, fallback=KILL, unknown=errno_action(errno.ENOSYS), foreign=KILL
    )
    death = death_of(asker, program, getpid)
    assert death == signal_ if signal_ else death in (signal.SIGILL, signal.SIGTRAP)


def test_the_kernel_kills_where_a_rule_says_so(asker: Path) -> None:
    number = syscalls.numbers(host_architecture())["getpid"]
    rules = [(n, KILL if n == number else ALLOW, ()) for n in syscalls.numbers(host_architecture()).values()]
    program = _core.seccomp_compile(
        AUDIT_ARCH[host_architecture()], rules, fallback=KILL, unknown=errno_action(errno.ENOSYS), foreign=KILL
    )
    assert death_of(asker, program, number) == signal.SIGSYS


def test_the_kernel_takes_the_x32_bit_as_the_interpreter_does(asker: Path) -> None:
    """Another ABI on x86_64; on aarch64 a number that is empty."""
    program = compile_profile("default")
    number = 0x4000_0000 | 39
    action = _core.seccomp_evaluate(program, AUDIT_ARCH[host_architecture()], number)
    assert (death_of(asker, program, number) == signal.SIGSYS) == (action == KILL)


@pytest.mark.parametrize("name", PRESENT)
def test_an_ordinary_program_does_not_notice_the_default_profile(name: str, tmp_path: Path) -> None:
    done = run_under(compile_profile("default"), PROGRAMS[name], tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["ok"]), done.stderr


def attempting(code: str) -> list[str]:
    numbers = dict(syscalls.numbers(host_architecture()))
    return ["python3", "-c", ATTEMPT.format(attempt=code, numbers=numbers)]


@pytest.mark.parametrize("attempt", REFUSALS)
def test_the_kernel_refuses_under_the_default_profile(attempt: str, tmp_path: Path) -> None:
    code, number = REFUSALS[attempt]
    done = run_under(compile_profile("default"), attempting(code), tmp_path)
    assert done.stdout.strip() == str(number), done.stderr


def test_a_denied_call_is_refused_by_the_kernel(tmp_path: Path) -> None:
    program = compile_profile("default", deny=["sched_setaffinity"])
    done = run_under(program, attempting("os.sched_setaffinity(0, {0})"), tmp_path)
    assert done.stdout.strip() == str(errno.EPERM), done.stderr


def test_what_is_refused_keeps_its_word_when_allowed_by_name(tmp_path: Path) -> None:
    """`allow` of a guarded call leaves its guard standing."""
    program = compile_profile("compute", allow=["@sockets", "chmod"])
    number = syscalls.numbers(host_architecture())["fchmodat"]
    action = _core.seccomp_evaluate(program, AUDIT_ARCH[host_architecture()], number, (0, 0, 0o4755))
    assert action == errno_action(errno.EPERM)
