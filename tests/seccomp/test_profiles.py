"""Profiles, the walls above them, and what a manifest may add or take away."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import termios
from itertools import combinations

import pytest

from immured import _core
from immured._abi import lib
from immured.errors import Refused
from immured.isolation import syscalls
from immured.isolation.seccomp import AUDIT_ARCH, compile_profile
from immured.isolation.syscalls import Architecture
from tests.seccomp.model import ALLOW, errno_action

ARCHITECTURES: list[Architecture] = ["x86_64", "aarch64"]
EPERM, ENOSYS = errno_action(errno.EPERM), errno_action(errno.ENOSYS)


def answer(program: bytes, call: str, *arguments: int, arch: Architecture = "x86_64") -> int:
    return _core.seccomp_evaluate(program, AUDIT_ARCH[arch], syscalls.numbers(arch)[call], arguments)


def names() -> set[str]:
    return set(syscalls.numbers("x86_64")) | set(syscalls.numbers("aarch64"))


def test_every_call_has_exactly_one_place() -> None:
    walls = syscalls.walls()
    places = [*syscalls.groups().values(), walls.never, walls.absent]
    assert all(not one & other for one, other in combinations(places, 2))
    assert frozenset().union(*places) == names()


def test_what_is_guarded_can_be_allowed() -> None:
    assert not syscalls.walls().guards.keys() & (syscalls.walls().never | syscalls.walls().absent)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("profile", syscalls.profile_names())
def test_what_no_profile_gives_is_refused_in_every_profile(profile: str, arch: Architecture) -> None:
    program = compile_profile(profile, allow=["@debug", "@numa", "@legacy", "@sockets", "@ipc"], arch=arch)
    known = syscalls.numbers(arch)
    answers = {call: answer(program, call, arch=arch) for call in syscalls.walls().never if call in known}
    assert set(answers.values()) == {EPERM}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_calls_with_hidden_flags_do_not_exist(arch: Architecture) -> None:
    program = compile_profile("default", arch=arch)
    assert {answer(program, call, arch=arch) for call in ("clone3", "openat2")} == {ENOSYS}


@pytest.mark.parametrize("name", sorted(syscalls.walls().never))
def test_no_manifest_can_allow_what_no_profile_gives(name: str) -> None:
    with pytest.raises(Refused, match=f"no profile can allow {name}") as refusal:
        compile_profile("default", allow=[name])
    assert refusal.value.code == "manifest_invalid"


def test_no_manifest_can_bring_back_clone3() -> None:
    with pytest.raises(Refused, match="no profile can allow clone3"):
        compile_profile("default", allow=["clone3"])


@pytest.mark.parametrize("name", sorted(syscalls.walls().needed))
def test_no_manifest_can_deny_what_every_program_needs(name: str) -> None:
    with pytest.raises(Refused, match=f"no program runs without {name}"):
        compile_profile("default", deny=[name])


def test_a_manifest_may_allow_what_the_profile_only_leaves_out() -> None:
    assert answer(compile_profile("default", allow=["ptrace"]), "ptrace") == ALLOW


def test_a_group_is_allowed_whole() -> None:
    program = compile_profile("default", allow=["@debug"])
    assert {answer(program, call) for call in syscalls.groups()["debug"]} == {ALLOW}


@pytest.mark.parametrize("call", sorted(syscalls.walls().guards.keys() & syscalls.numbers("x86_64").keys()))
def test_allowing_a_guarded_call_changes_nothing(call: str) -> None:
    assert compile_profile("default", allow=[call]) == compile_profile("default")


def test_a_denial_wins_over_an_allowance() -> None:
    assert answer(compile_profile("default", allow=["ptrace"], deny=["ptrace"]), "ptrace") == EPERM


def test_a_guarded_call_can_be_denied_whole() -> None:
    assert answer(compile_profile("default", deny=["socket"]), "socket", socket.AF_UNIX) == EPERM


def test_a_group_can_be_denied() -> None:
    program = compile_profile("default", deny=["@scheduling"])
    assert {answer(program, call) for call in syscalls.groups()["scheduling"]} == {EPERM}


@pytest.mark.parametrize(
    ("allow", "deny", "said", "remedy"),
    [
        (["ptrase"], [], "'ptrase' is not a system call", "did you mean ptrace?"),
        ([], ["@schedulin"], "'@schedulin' is not a group", "did you mean @scheduling?"),
        (["@"], [], "'@' is not a group", "use one of @attributes"),
        ([""], [], "'' is not a system call", "use a name of syscalls"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(allow: list[str], deny: list[str], said: str, remedy: str) -> None:
    with pytest.raises(Refused, match=said) as refusal:
        compile_profile("default", allow, deny)
    assert refusal.value.remedy.startswith(remedy)


@pytest.mark.parametrize("name", ["defualt", "groups", "walls", "../seccomp/default", ""])
def test_an_unknown_profile_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="is not a profile"):
        compile_profile(name)


def test_the_same_request_is_compiled_once() -> None:
    first = compile_profile("default", allow=["ptrace", "kcmp"])
    assert compile_profile("default", allow=["kcmp", "ptrace", "kcmp"]) is first


def test_a_profile_fits_well_into_what_the_kernel_takes() -> None:
    assert len(compile_profile("default", arch="x86_64")) // 8 < lib.BPF_MAXINSNS // 8


@pytest.mark.parametrize("mode", [bits | 0o755 for bits in (0o4000, 0o2000, 0o6000)])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_call_sets_a_set_id_bit(arch: Architecture, mode: int) -> None:
    program = compile_profile("default", allow=["@debug", "@numa", "@legacy"], arch=arch)
    attempts: dict[str, tuple[int, ...]] = {
        "chmod": (0, mode),
        "fchmod": (3, mode),
        "fchmodat": (3, 0, mode),
        "fchmodat2": (3, 0, mode, 0),
        "creat": (0, mode),
        "mkdir": (0, mode),
        "mkdirat": (3, 0, mode),
        "open": (0, os.O_CREAT | os.O_WRONLY, mode),
        "openat": (3, 0, os.O_TMPFILE | os.O_RDWR, mode),
        "mknod": (0, stat.S_IFREG | mode),
        "mknodat": (3, 0, stat.S_IFIFO | mode),
        "mq_open": (0, os.O_CREAT, mode),
    }
    known = syscalls.numbers(arch)
    answers = {call: answer(program, call, *args, arch=arch) for call, args in attempts.items() if call in known}
    assert set(answers.values()) == {EPERM}


def test_a_mode_is_not_looked_at_where_nothing_is_made() -> None:
    assert answer(compile_profile("default"), "openat", 3, 0, os.O_RDONLY, 0o6777) == ALLOW


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0x5412", termios.TIOCSTI),
        ("0x5423", termios.TIOCSETD),
        ("0x541d", termios.TIOCCONS),
        ("0o20000100", os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)),
        ("0o6000", stat.S_ISUID | stat.S_ISGID),
        (
            "0x7e020000",
            lib.CLONE_NEWNS
            | lib.CLONE_NEWCGROUP
            | lib.CLONE_NEWUTS
            | lib.CLONE_NEWIPC
            | lib.CLONE_NEWUSER
            | lib.CLONE_NEWPID
            | lib.CLONE_NEWNET,
        ),
    ],
)
def test_a_number_of_the_walls_is_the_headers(text: str, value: int) -> None:
    assert int(text, 0) == value
    assert any(
        value in condition for rules in syscalls.walls().guards.values() for r in rules for condition in r.conditions
    )


@pytest.mark.parametrize(
    "text",
    ["arg6 == 0", "arg0 = 0", "arg0 & 1 < 2", "arg0 in 1", "arg0 == -1", "arg0 == 0 or arg1 == 0", "", "arg0:32 == 0"],
)
def test_a_condition_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"condition|mask"):
        syscalls.parse_condition(text)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("arg0 == 1", (0, _core.COMPARE_EQ, 1, 0xFFFFFFFF)),
        ("arg1 & 0o6000 != 0", (1, _core.COMPARE_NE, 0, 0o6000)),
        ("arg2:64 >= 0x10", (2, _core.COMPARE_GE | _core.COMPARE_WIDE, 16, 0xFFFFFFFFFFFFFFFF)),
        ("arg3 in 1..5", (3, _core.COMPARE_IN, 1, 5)),
    ],
)
def test_a_condition_is_read(text: str, condition: tuple[int, int, int, int]) -> None:
    assert syscalls.parse_condition(text) == condition


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("allow", lib.SECCOMP_RET_ALLOW),
        ("kill", lib.SECCOMP_RET_KILL_PROCESS),
        ("kill_thread", lib.SECCOMP_RET_KILL_THREAD),
        ("trap", lib.SECCOMP_RET_TRAP),
        ("log", lib.SECCOMP_RET_LOG),
        ("notify", lib.SECCOMP_RET_USER_NOTIF),
        ("errno:EACCES", errno_action(errno.EACCES)),
        ("errno:0", errno_action(0)),
    ],
)
def test_an_action_is_read_and_said(text: str, action: int) -> None:
    assert syscalls.parse_action(text) == action
    assert syscalls.action_text(action) == text


@pytest.mark.parametrize("text", ["deny", "errno:", "errno:EWHAT", "errno:13", "trace"])
def test_an_unknown_action_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an action"):
        syscalls.parse_action(text)


# What glibc, interpreters and runtimes use without asking whether it is there; a refusal would surprise somebody.
WANTED = """
rseq set_robust_list prlimit64 getrandom memfd_create statx faccessat2 close_range pidfd_open pidfd_send_signal
sched_getaffinity sched_setaffinity sched_yield futex futex_waitv epoll_create1 epoll_pwait2 inotify_init1 eventfd2
timerfd_create signalfd4 membarrier mlock madvise msgget semget shmget copy_file_range splice seccomp
landlock_create_ruleset landlock_add_rule landlock_restrict_self prctl arch_prctl execve execveat wait4 waitid
clock_nanosleep sigaltstack mremap fallocate renameat2 preadv2 process_madvise mseal map_shadow_stack
""".split()


@pytest.mark.parametrize("call", WANTED)
def test_the_default_profile_allows_what_runtimes_rely_on(call: str) -> None:
    assert answer(compile_profile("default", arch="x86_64"), call) == ALLOW


def test_a_thread_can_be_made() -> None:
    pthread_create = 0x3D0F00
    assert answer(compile_profile("default"), "clone", pthread_create) == ALLOW


@pytest.mark.parametrize("request_", [termios.TIOCGWINSZ, termios.TCGETS, termios.FIONREAD, fcntl.F_GETFD])
def test_ordinary_terminal_requests_pass(request_: int) -> None:
    assert answer(compile_profile("default"), "ioctl", 0, request_) == ALLOW


def test_the_compute_profile_has_no_sockets() -> None:
    program = compile_profile("compute", arch="x86_64")
    calls = ("socket", "socketpair", "connect", "bind", "sendto")
    assert {answer(program, call, socket.AF_UNIX) for call in calls} == {EPERM}
