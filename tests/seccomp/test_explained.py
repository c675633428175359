"""The explained form of a filter differs from the base form in nothing but verdicts turned into notifications."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured import _core
from immured._abi import lib
from immured.isolation import syscalls
from immured.isolation.seccomp import AUDIT_ARCH, compile_profile
from immured.isolation.syscalls import Architecture
from tests.seccomp.model import ALL, ALLOW, LOW, NOTIFY, errno_action, holds
from tests.seccomp.test_libseccomp import argument_tuples

EPERM = errno_action(errno.EPERM)
ARCHITECTURES: list[Architecture] = ["x86_64", "aarch64"]
REQUESTS: dict[str, tuple[str, list[str], list[str]]] = {
    "default": ("default", [], []),
    "compute": ("compute", [], []),
    "more": ("default", ["@debug", "@watching", "@numa", "@legacy"], []),
    "less": ("default", [], ["@sockets", "openat", "memfd_create", "sched_setaffinity"]),
}
FLAGS = [0, os.O_RDONLY | os.O_CLOEXEC, os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_TMPFILE, os.O_PATH]


def both(request: str, arch: Architecture) -> tuple[bytes, bytes]:
    profile, allow, deny = REQUESTS[request]
    return compile_profile(profile, allow, deny, arch), compile_profile(profile, allow, deny, arch, explain=True)


def arguments_of(name: str) -> Iterator[tuple[int, ...]]:
    yield from argument_tuples(name)
    for flags in FLAGS:
        yield (3, flags, flags, 0o644, 0, 0)
        yield (3, flags, flags, 0o4755, 0, 0)
    yield from ((0, 0, 0, 0, address, 16) for address in (0, 1, LOW, 1 << 32, ALL))


def turned(name: str, verdict: int, arguments: tuple[int, ...]) -> int:
    """What the explained form says, by the words of the documents alone."""
    explained = syscalls.explained()
    if verdict == EPERM:
        return EPERM if name in explained.unexplained else NOTIFY
    watched = name in explained.watched and all(holds(one, arguments) for one in explained.watched[name])
    return NOTIFY if verdict == ALLOW and watched else verdict


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("request_", REQUESTS)
def test_only_refusals_and_watched_allowances_turn_into_notifications(request_: str, arch: Architecture) -> None:
    base, explained = both(request_, arch)
    different = [
        (name, arguments)
        for name, number in syscalls.numbers(arch).items()
        for arguments in arguments_of(name)
        if _core.seccomp_evaluate(explained, AUDIT_ARCH[arch], number, arguments)
        != turned(name, _core.seccomp_evaluate(base, AUDIT_ARCH[arch], number, arguments), arguments)
    ]
    assert different == []


@settings(deadline=None, max_examples=500)
@given(
    st.sampled_from(sorted(REQUESTS)),
    st.sampled_from(ARCHITECTURES),
    st.one_of(st.integers(0, 600), st.integers(0, LOW), st.just(LOW)),
    st.tuples(*[st.one_of(st.integers(0, LOW), st.integers(0, ALL), st.just(0))] * 6),
)
def test_any_call_is_the_same_or_notifies(
    request: str, arch: Architecture, number: int, arguments: tuple[int, ...]
) -> None:
    base, explained = (
        _core.seccomp_evaluate(program, AUDIT_ARCH[arch], number, arguments) for program in both(request, arch)
    )
    assert explained == base or (explained == NOTIFY and base in (ALLOW, EPERM))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("request_", REQUESTS)
def test_what_no_table_knows_and_what_is_foreign_stays_as_it_is(request_: str, arch: Architecture) -> None:
    base, explained = both(request_, arch)
    known = set(syscalls.numbers(arch).values())
    strange = [(AUDIT_ARCH[arch], n) for n in (*range(4096), 1 << 30, LOW, *range(1 << 30, (1 << 30) + 600))]
    strange += [(foreign, n) for foreign in (lib.AUDIT_ARCH_I386, lib.AUDIT_ARCH_ARM, 0, LOW) for n in range(500)]
    asked = [(architecture, n) for architecture, n in strange if architecture != AUDIT_ARCH[arch] or n not in known]
    answers = [[_core.seccomp_evaluate(program, *one) for one in asked] for program in (base, explained)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("call", sorted(syscalls.explained().unexplained))
def test_the_widest_doors_are_never_in_a_notifiers_hands(call: str) -> None:
    number = syscalls.numbers("x86_64")[call]
    explained = compile_profile("default", arch="x86_64", explain=True)
    assert _core.seccomp_evaluate(explained, AUDIT_ARCH["x86_64"], number) == EPERM


@pytest.mark.parametrize("call", sorted(syscalls.walls().needed))
def test_what_comes_before_the_notifier_does_not_wait_for_it(call: str) -> None:
    number = syscalls.numbers("x86_64")[call]
    explained = compile_profile("compute", arch="x86_64", explain=True)
    assert _core.seccomp_evaluate(explained, AUDIT_ARCH["x86_64"], number) == ALLOW


@pytest.mark.parametrize(
    ("call", "arguments", "verdict"),
    [
        ("openat", (3, 0, os.O_RDONLY | os.O_CLOEXEC, 0), ALLOW),
        ("openat", (3, 0, os.O_RDONLY | os.O_DIRECTORY, 0), ALLOW),
        ("openat", (3, 0, os.O_WRONLY, 0), NOTIFY),
        ("openat", (3, 0, os.O_RDWR | os.O_TMPFILE, 0o600), NOTIFY),
        ("openat", (3, 0, os.O_RDONLY | os.O_TRUNC, 0), NOTIFY),
        ("mkdir", (0, 0o755), NOTIFY),
        ("connect", (3, 0, 16), NOTIFY),
        ("sendto", (3, 0, 1, 0, 0, 0), ALLOW),
        ("sendto", (3, 0, 1, 0, 1 << 32, 16), NOTIFY),
        ("chmod", (0, 0o4755), NOTIFY),
        ("unshare", (0x10000000,), NOTIFY),
        ("ptrace", (16, 1), NOTIFY),
        ("socket", (socket.AF_ALG, 5, 0), NOTIFY),
        ("socket", (29, 3, 0), errno_action(errno.EAFNOSUPPORT)),
        ("clone3", (), errno_action(errno.ENOSYS)),
        ("mmap", (0, 4096, 3, 0x40022), errno_action(errno.ENOMEM)),
    ],
)
def test_the_default_profile_explained(call: str, arguments: tuple[int, ...], verdict: int) -> None:
    explained = compile_profile("default", arch="x86_64", explain=True)
    number = syscalls.numbers("x86_64")[call]
    assert _core.seccomp_evaluate(explained, AUDIT_ARCH["x86_64"], number, arguments) == verdict


@pytest.mark.parametrize(
    ("text", "value"),
    [("0o20001103", os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY))],
)
def test_a_number_of_what_is_watched_is_the_headers(text: str, value: int) -> None:
    assert int(text, 0) == value
    assert any(value in condition for watched in syscalls.explained().watched.values() for condition in watched)
