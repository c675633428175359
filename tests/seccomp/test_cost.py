"""How large the shipped filters are, and what a call pays for passing one."""

from __future__ import annotations

import pytest

from immured import _core
from immured.isolation import syscalls
from immured.isolation.profiles import SHIPPED
from immured.isolation.seccomp import AUDIT_ARCH, compile_profile
from immured.isolation.syscalls import Architecture
from tests.seccomp.constants import is_constantly_allowed
from tests.seccomp.model import ALLOW

ARCHITECTURES: list[Architecture] = ["x86_64", "aarch64"]
# The most instructions that each may have, base and explained: a handful above what they have. A rule more is two or
# three more; a number that jumps is a fault of the compiler's.
SIZES: dict[tuple[str, Architecture], tuple[int, int]] = {
    ("default", "x86_64"): (229, 229),
    ("default", "aarch64"): (212, 209),
    ("compute", "x86_64"): (168, 152),
    ("compute", "aarch64"): (139, 127),
    ("no-unix", "x86_64"): (248, 248),
    ("no-unix", "aarch64"): (228, 225),
}
HOT = ["read", "write", "futex", "close", "lseek", "pread64", "epoll_wait", "epoll_pwait", "clock_gettime", "munmap"]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("profile", syscalls.profile_names())
def test_a_filter_does_not_grow_unseen(profile: str, arch: Architecture) -> None:
    forms = [compile_profile(profile, arch=arch, explain=explain) for explain in (False, True)]
    sizes = [len(program) // 8 for program in forms]
    assert all(size <= most for size, most in zip(sizes, SIZES[profile, arch], strict=True)), sizes


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("profile", syscalls.profile_names())
def test_what_is_always_allowed_never_runs_the_filter(profile: str, arch: Architecture, explain: bool) -> None:
    """The kernel sees by architecture and number alone that every call without a guard is allowed."""
    program = compile_profile(profile, arch=arch, explain=explain)
    allowed = SHIPPED[profile].calls - syscalls.walls().guards.keys()
    if explain:
        allowed -= syscalls.explained().watched.keys()
    expected = {number for call, number in syscalls.numbers(arch).items() if call in allowed}
    assert {n for n in range(1024) if is_constantly_allowed(program, AUDIT_ARCH[arch], n)} == expected


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("call", HOT)
def test_a_frequent_call_passes_in_few_instructions(call: str, explain: bool) -> None:
    """Where the kernel does not know that it is constant (before 5.11, or under a second filter)."""
    program = compile_profile("default", arch="x86_64", explain=explain)
    action, steps = _core.seccomp_trace(program, AUDIT_ARCH["x86_64"], syscalls.numbers("x86_64")[call])
    assert action == ALLOW
    assert steps <= 16


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_call_takes_long_to_decide(arch: Architecture) -> None:
    program = compile_profile("default", arch=arch, explain=True)
    steps = [_core.seccomp_trace(program, AUDIT_ARCH[arch], number)[1] for number in range(600)]
    assert max(steps) <= 40
