"""What one run can take from the rest of the host, or learn of it: what the kernel counts or tells past namespaces."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from immured import Client, RunResult
from immured.client.throwaway import ThrowawayDaemon
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root

LIBC = ctypes.CDLL(None, use_errno=True)
PREFACE = "import ctypes, os, sys, time\nlibc = ctypes.CDLL(None, use_errno=True)\n"
HOLD = "\nprint(flush=True)\nsys.stdin.read()\n"


def inside(client: Client, code: str) -> RunResult:
    return client.run(["/usr/bin/python3", "-c", PREFACE + code])


@contextmanager
def holding(daemon: ThrowawayDaemon, code: str) -> Iterator[None]:
    """While the body runs, a sandbox has done `code` and lives on."""
    read, write = os.pipe()
    done = threading.Event()

    def run() -> None:
        with daemon.client() as other:
            other.run(
                ["/usr/bin/python3", "-c", PREFACE + code + HOLD],
                stream=True,
                on_stdout=lambda _: done.set(),
                fds={0: read},
            )

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert done.wait(PATIENCE_S)
        yield
    finally:
        os.close(write)
        thread.join(PATIENCE_S)
        os.close(read)


def test_roots_inotify_instances_are_not_the_payloads_to_use_up(daemon: ThrowawayDaemon) -> None:
    with holding(daemon, "while libc.inotify_init() >= 0: pass"):
        fd = LIBC.inotify_init()
        assert fd >= 0, os.strerror(ctypes.get_errno())
        os.close(fd)


def test_roots_message_queues_are_not_the_payloads_to_use_up(daemon: ThrowawayDaemon) -> None:
    grab = "number = 0\nwhile libc.mq_open(b'/q%d' % number, os.O_CREAT | os.O_RDWR, 0o600, None) >= 0: number += 1"
    name = b"/immured-test-%d" % os.getpid()
    with holding(daemon, grab):
        queue = LIBC.mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, None)
        assert queue >= 0, os.strerror(ctypes.get_errno())
        LIBC.mq_unlink(name)
        os.close(queue)


def test_the_hosts_contexts_of_asynchronous_input_are_out_of_reach(client: Client) -> None:
    made = inside(
        client, "print(libc.syscall(206 if os.uname().machine == 'x86_64' else 0, 1, ctypes.byref(ctypes.c_ulong())))"
    )
    assert made.stdout == b"-1\n"


def test_huge_pages_which_no_limit_counts_are_out_of_reach(client: Client) -> None:
    made = inside(client, "print(libc.memfd_create(b'x', 4))")
    assert made.stdout == b"-1\n"


def test_programs_that_others_start_are_not_told(client: Client) -> None:
    watched = inside(client, "print(libc.inotify_add_watch(libc.inotify_init(), b'/usr/bin', 0xfff))")
    assert watched.stdout == b"-1\n"


def test_signals_do_not_tell_of_the_hosts_directories_either(client: Client) -> None:
    watched = inside(client, "print(libc.fcntl(os.open('/usr/bin', os.O_RDONLY), 1026, 1))")
    assert watched.stdout == b"-1\n"


def test_no_module_is_loaded_for_a_protocol_that_only_a_type_names(client: Client) -> None:
    sock_dccp = 6
    made = inside(client, f"import errno\nlibc.socket(2, {sock_dccp}, 0)\nprint(errno.errorcode[ctypes.get_errno()])")
    assert made.stdout == b"ESOCKTNOSUPPORT\n"


CRASH = """
import resource
try:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (OSError, ValueError):
    pass
os.abort()
"""


@pytest.mark.needs_cgroup2  # only in a machine of its own: the pattern is the whole host's
def test_a_crash_does_not_start_the_hosts_handler_of_core_dumps(client: Client, tmp_path: Path) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern")
    handler, trace = tmp_path / "handler", tmp_path / "trace"
    handler.write_text(f"#!/bin/sh\n/bin/cat >/dev/null\necho started >{trace}\n")
    handler.chmod(0o755)
    tmp_path.chmod(0o755)
    before = pattern.read_text()
    pattern.write_text(f"|{handler}")
    try:
        result = inside(client, CRASH)
    finally:
        pattern.write_text(before)
    # The kernel waits for a handler that it started before the process is gone.
    assert (result.cause, trace.exists()) == ("signaled", False)
