"""Which system calls [syscalls] grant, held against what the compiled filter says to each."""

from __future__ import annotations

import pytest

from immured import _core
from immured.isolation import syscalls
from immured.isolation.granted import granted
from immured.isolation.profiles import Profiles, parse_profile, permits
from immured.isolation.seccomp import AUDIT_ARCH, compile_profile
from immured.manifest.schema import Syscalls

PROFILE = """\
schema = 1
groups = ["process", "files", "memory", "futexes", "signals", "time", "random"]
default = "errno:EPERM"
[[rules]]
calls = ["sched_setaffinity"]
when = ["arg0 == 0"]
then = "allow"
[[rules]]
calls = ["getitimer"]
then = "errno:EIO"
"""
PROFILES = Profiles({"own": parse_profile("own", PROFILE)})
GIVEN = [
    Syscalls("default", (), ()),
    Syscalls("compute", (), ()),
    Syscalls("compute", ("@sockets", "ptrace"), ("listen",)),
    Syscalls("default", ("@debug",), ("@debug", "@ipc")),
    Syscalls("own", (), ()),
    Syscalls("own", ("getitimer", "sched_setaffinity"), ()),
]


def allows(program: bytes, call: str, *arguments: int) -> bool:
    number = syscalls.numbers("x86_64")[call]
    given = (*arguments, *(0 for _ in range(6 - len(arguments))))
    return permits(_core.seccomp_evaluate(program, AUDIT_ARCH["x86_64"], number, given))


@pytest.mark.parametrize("given", GIVEN, ids=repr)
def test_what_is_granted_is_what_the_filter_allows(given: Syscalls) -> None:
    found = granted(PROFILES)(given)
    assert found is not None
    program = compile_profile(given.profile, given.allow, given.deny, "x86_64", profiles=PROFILES)
    guarded = syscalls.walls().guards
    for call in syscalls.numbers("x86_64"):
        if call in guarded:  # by its arguments, whoever grants it
            continue
        if found.get(call):
            assert {allows(program, call, 0), allows(program, call, 1)} == {True, False}, call
        else:
            assert allows(program, call) is (call in found), call


def test_a_name_that_is_not_known_here_is_nobodys_to_judge() -> None:
    for given in (Syscalls("elsewhere", (), ()), Syscalls("default", ("@nope",), ()), Syscalls("default", (), ("x",))):
        assert granted()(given) is None
