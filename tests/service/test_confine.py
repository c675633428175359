"""The broker's own filter, asked of the interpreter, on every architecture; and its domain on every rung."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import get_args

import pytest

from immured import _core
from immured._abi import lib
from immured.host import syscalls as host
from immured.host.landlock import LADDER
from immured.isolation import syscalls
from immured.isolation.seccomp import AUDIT_ARCH
from immured.isolation.syscalls import Architecture
from immured.service.confine import broker_filter
from immured.service.state import init_state
from tests.patience import PATIENCE_S

ARCHITECTURES = get_args(Architecture)
ALLOW = lib.SECCOMP_RET_ALLOW
EPERM = lib.SECCOMP_RET_ERRNO | 1
ENOSYS = lib.SECCOMP_RET_ERRNO | 38
THREAD = 0x3D0F00  # what the C library's pthread_create asks for


def verdict(arch: Architecture, call: str, *arguments: int) -> int:
    number = syscalls.numbers(arch)[call]
    return int(_core.seccomp_evaluate(broker_filter(arch), AUDIT_ARCH[arch], number, arguments))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    "call",
    [
        *("execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "kill", "tkill", "tgkill"),
        *("pidfd_open", "pidfd_send_signal", "pidfd_getfd", "socket", "socketpair", "connect", "bind", "listen"),
        *("accept", "accept4", "unshare", "setns", "mount", "umount2", "move_mount", "open_tree", "pivot_root"),
        *("chroot", "setresuid", "setresgid", "setgroups", "capset", "linkat", "symlinkat", "mknodat", "fchownat"),
        *("fchown", "bpf", "io_uring_setup", "keyctl", "add_key", "perf_event_open", "userfaultfd", "seccomp"),
        *("init_module", "kexec_load", "reboot", "sched_setaffinity", "setpriority", "inotify_init1", "shmget"),
    ],
)
def test_what_a_broker_has_no_use_for_is_refused(arch: Architecture, call: str) -> None:
    assert verdict(arch, call, 0, 0, 0, 0, 0, 0) == EPERM


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_thread_is_made_and_a_process_is_not(arch: Architecture) -> None:
    assert verdict(arch, "clone", THREAD) == ALLOW
    assert verdict(arch, "clone", signal.SIGCHLD) == EPERM
    assert verdict(arch, "clone", 0x4100 | signal.SIGCHLD) == EPERM  # vfork's: its memory, but another process
    assert verdict(arch, "clone", THREAD | 0x10000000) == EPERM
    assert verdict(arch, "clone3", 0, 0) == ENOSYS


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_bit_that_lends_ones_id_can_be_set(arch: Architecture) -> None:
    for mode, expected in ((0o600, ALLOW), (0o4700, EPERM), (0o2700, EPERM)):
        assert verdict(arch, "fchmod", 3, mode) == expected
        assert verdict(arch, "openat", 3, 0, 0o101, mode) == expected
        assert verdict(arch, "openat", 3, 0, 0o20200000, mode) == expected
        assert verdict(arch, "mkdirat", 3, 0, mode) == expected
    assert verdict(arch, "openat", 3, 0, 0, 0o4700) == ALLOW  # without O_CREAT it says nothing


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_of_pairs_only_those_that_know_no_address(arch: Architecture) -> None:
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    assert verdict(arch, "socketpair", socket.AF_UNIX, socket.SOCK_SEQPACKET | flags, 0, 0) == ALLOW
    assert verdict(arch, "socketpair", socket.AF_UNIX, socket.SOCK_DGRAM, 0, 0) == EPERM
    assert verdict(arch, "socketpair", socket.AF_UNIX, socket.SOCK_STREAM, 0, 0) == EPERM
    assert verdict(arch, "socketpair", socket.AF_INET, socket.SOCK_SEQPACKET, 0, 0) == EPERM


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_what_is_sent_goes_to_who_is_connected(arch: Architecture) -> None:
    assert verdict(arch, "sendto", 3, 0, 0, 0, 0, 0) == ALLOW
    assert verdict(arch, "sendto", 3, 0, 0, 0, 1 << 40, 0) == EPERM


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_its_own_limits_alone_and_only_asked(arch: Architecture) -> None:
    assert verdict(arch, "prlimit64", 0, 7, 0, 1) == ALLOW
    assert verdict(arch, "prlimit64", 0, 7, 1, 0) == EPERM
    assert verdict(arch, "prlimit64", 1, 7, 0, 1) == EPERM


@pytest.mark.parametrize("call", ["read", "pwrite64", "fdatasync", "epoll_wait", "recvmsg", "sendmsg", "futex"])
def test_what_every_run_needs_has_no_condition(call: str) -> None:
    """So that the kernel keeps it in its bitmap of calls that are always allowed, and runs no filter for them."""
    ones = (1 << 64) - 1
    for values in ((0,) * 6, (ones,) * 6, (0x1234,) * 6):
        assert verdict("x86_64", call, *values) == ALLOW


DOMAIN = """
import json, os, sys
from pathlib import Path
from immured.service import confine, harden
from immured.service.state import Paths
paths, outside, abi = Paths(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
def errno_of(path, flags):
    try: os.close(os.open(path, flags)); return 0
    except OSError as error: return error.errno
domain = confine.make_domain(paths, abi)
before = [errno_of(outside, os.O_RDWR), errno_of(paths.keyring, os.O_RDWR)]
harden.become(int(sys.argv[4]), int(sys.argv[4]))
domain.enter()
print(json.dumps([domain.abi, before, errno_of(outside, os.O_RDWR), errno_of(outside, os.O_RDONLY),
    errno_of('/dev/null', os.O_RDWR), errno_of('/proc/self/mountinfo', os.O_RDONLY), errno_of('/proc/1/status', 0)]))
"""


@pytest.mark.needs_root
@pytest.mark.parametrize("abi", range(1, len(LADDER) + 1))
def test_every_rung_of_the_domain_keeps_what_lies_outside_out(abi: int) -> None:
    have = host.landlock_abi()
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o711)
        init_state(Path(made, "state"))
        outside = Path(made, "open")
        outside.touch()
        outside.chmod(0o666)
        arguments = [str(Path(made, "state")), str(outside), str(abi), "2147000000"]
        done = subprocess.run(
            [sys.executable, "-c", DOMAIN, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    assert done.returncode == 0, done.stderr
    wall = 13 if have else 0
    assert json.loads(done.stdout) == [min(abi, have), [0, 0], wall, wall, 0, 0, wall]


# --- what speaks to another machine


def outward(arch: Architecture, call: str, *arguments: int) -> int:
    number = syscalls.numbers(arch)[call]
    return int(_core.seccomp_evaluate(broker_filter(arch, outward=True), AUDIT_ARCH[arch], number, arguments))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_what_speaks_outward_connects_by_tcp_and_asks_for_names(arch: Architecture) -> None:
    stream, datagram = socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    for family in (socket.AF_INET, socket.AF_INET6):
        assert outward(arch, "socket", family, stream, 0) == ALLOW
        assert outward(arch, "socket", family, stream, socket.IPPROTO_TCP) == ALLOW
        assert outward(arch, "socket", family, datagram, 0) == ALLOW
        assert outward(arch, "socket", family, socket.SOCK_RAW, 0) == EPERM
        assert outward(arch, "socket", family, stream, 262) == EPERM  # MPTCP
    assert outward(arch, "connect", 3, 0, 16) == ALLOW


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_what_speaks_outward_listens_nowhere_and_does_nothing_else(arch: Architecture) -> None:
    for family in (socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET, 38, 40):  # and AF_ALG, AF_VSOCK
        assert outward(arch, "socket", family, socket.SOCK_STREAM, 0) == EPERM
    for call in ("bind", "listen", "accept", "accept4", "execve", "kill", "ptrace", "setresuid", "io_uring_setup"):
        assert outward(arch, call, 0, 0, 0, 0, 0, 0) == EPERM
    assert outward(arch, "clone", signal.SIGCHLD) == EPERM
    assert outward(arch, "sendto", 3, 0, 0, 0, 1, 16) == EPERM  # to an address


def test_the_brokers_own_filter_is_as_it_was() -> None:
    assert broker_filter() != broker_filter(outward=True)
    assert verdict("x86_64", "socket", socket.AF_INET, socket.SOCK_STREAM, 0) == EPERM
