"""The kernel agrees with the interpreter, and ordinary programs do not notice the default profile."""

from __future__ import annotations

import errno
import itertools
import signal
from pathlib import Path

import pytest

from immured import _core
from immured._abi import lib
from immured.isolation import syscalls
from immured.isolation.seccomp import AUDIT_ARCH, compile_profile, host_architecture
from tests.seccomp.kernel import ALLOWED, ask, build_asker, death_of, run_under
from tests.seccomp.model import ALLOW, KILL, errno_action
from tests.seccomp.programs import ATTEMPT, PRESENT, PROGRAMS, REFUSALS
from tests.seccomp.test_libseccomp import INTERESTING

# Calls that uprobes' own trampolines make: the kernel lets them past every filter and ends whoever else makes them.
PAST_FILTERS = {"uprobe", "uretprobe"}


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_asker(tmp_path_factory.mktemp("ask"))


def expected(program: bytes, number: int, arguments: tuple[int, ...]) -> int:
    action = _core.seccomp_evaluate(program, AUDIT_ARCH[host_architecture()], number, arguments)
    return ALLOWED if action == ALLOW else action & lib.SECCOMP_RET_DATA


@pytest.mark.parametrize("profile", syscalls.profile_names())
def test_the_kernel_answers_every_number_as_the_interpreter_does(profile: str, asker: Path) -> None:
    program = compile_profile(profile)
    past = {syscalls.numbers(host_architecture()).get(name) for name in PAST_FILTERS}
    calls = [(number, (0,) * 6) for number in range(1200) if number not in past]
    answers = ask(asker, program, calls)
    assert answers == [expected(program, number, arguments) for number, arguments in calls]


def test_the_kernel_answers_guarded_calls_as_the_interpreter_does(asker: Path) -> None:
    program = compile_profile("default")
    numbers = syscalls.numbers(host_architecture())
    guarded = [numbers[name] for name in sorted(syscalls.walls().guards) if name in numbers]
    pairs = list(itertools.product(INTERESTING, repeat=2))
    calls = [(number, (one, two, one, two, 0, 0)) for number in guarded for one, two in pairs]
    calls += [(number, (3, one, two, one, 0, 0)) for number in guarded for one, two in pairs]
    answers = ask(asker, program, calls)
    assert answers == [expected(program, number, arguments) for number, arguments in calls]


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
    wanted = {name: syscalls.numbers(host_architecture())[name] for name in ("keyctl", "io_uring_setup", "clone3")}
    return ["python3", "-c", ATTEMPT.format(attempt=code, numbers=wanted)]


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
