"""What a taken-over broker could do: started as root, becomes the broker exactly as the daemon does, then tries it all.

    python -m tests.takeover.as_broker STATE LAUNCHER_PID WARDEN_PID ABSTRACT_NAME OUTSIDE [--root]

Prints a JSON map: attempt to errno (0: it worked). `--root`: the control, without the drop.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from immured.host.ids import preferred_broker_id
from immured.service import privilege
from immured.service.broker_user import User
from immured.service.ownership import hand_over
from immured.service.state import Paths

NUMBERS = {
    "x86_64": {
        "execve": 59, "execveat": 322, "ptrace": 101, "process_vm_readv": 310, "unshare": 272, "setns": 308,
        "mount": 165, "umount2": 166, "bpf": 321, "io_uring_setup": 425, "keyctl": 250, "perf_event_open": 298,
        "userfaultfd": 323, "clone": 56, "pidfd_open": 434, "pidfd_getfd": 438, "kcmp": 312, "seccomp": 317,
        "name_to_handle_at": 303, "open_by_handle_at": 304, "open_tree": 428, "fsopen": 430, "init_module": 175,
        "chroot": 161, "pivot_root": 155, "prlimit64": 302, "capset": 126,
    },
    "aarch64": {
        "execve": 221, "execveat": 281, "ptrace": 117, "process_vm_readv": 270, "unshare": 97, "setns": 268,
        "mount": 40, "umount2": 39, "bpf": 280, "io_uring_setup": 425, "keyctl": 219, "perf_event_open": 241,
        "userfaultfd": 282, "clone": 220, "pidfd_open": 434, "pidfd_getfd": 438, "kcmp": 272, "seccomp": 277,
        "name_to_handle_at": 264, "open_by_handle_at": 265, "open_tree": 428, "fsopen": 430, "init_module": 105,
        "chroot": 51, "pivot_root": 41, "prlimit64": 261, "capset": 91,
    },
}[platform.machine()]  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

Attempt = Callable[[], object]


def call(name: str, *arguments: object) -> int:
    """A system call by name. Raises OSError."""
    result = _libc.syscall(ctypes.c_long(NUMBERS[name]), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return int(result)


def fork() -> None:
    """A process of one's own, by the call itself."""
    child = call("clone", signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def opened(path: str, flags: int, mode: int = 0o600) -> None:
    os.close(os.open(path, flags | os.O_CLOEXEC, mode))


def setuid_bit(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o4755)
    finally:
        os.close(fd)


def datagram(sock: socket.socket, name: str) -> None:
    sock.sendmsg([b"x"], [], 0, "\0" + name)


def attempts(
    paths: Paths, launcher: int, warden: int, abstract: str, outside: str, held: socket.socket
) -> Iterator[tuple[str, Attempt]]:
    """Every idea: its name, and what raises OSError where a wall stands."""
    # What cannot work even for root gives its own errno there: what matters is that EPERM comes first here.
    nowhere = ctypes.c_char_p(b"/nonexistent")
    yield "exec", lambda: call("execve", nowhere, None, None)
    yield "exec by descriptor", lambda: call("execveat", -1, nowhere, None, None, 0)
    yield "fork", fork
    for name, pid in (("launcher", launcher), ("warden", warden), ("init", 1)):
        yield f"signal {name}", partial(os.kill, pid, 0)
        yield f"pidfd of {name}", partial(os.pidfd_open, pid)
        yield f"memory of {name}", partial(opened, f"/proc/{pid}/mem", os.O_RDONLY)
        yield f"environment of {name}", partial(opened, f"/proc/{pid}/environ", os.O_RDONLY)
        yield f"root of {name}", partial(os.listdir, f"/proc/{pid}/root/")
        yield f"descriptors of {name}", partial(os.listdir, f"/proc/{pid}/fd")
        yield f"limits of {name}", partial(call, "prlimit64", pid, 7, None, (ctypes.c_uint64 * 2)())
        yield f"ptrace {name}", partial(call, "ptrace", 0x4206, pid, 0, 0)  # SEIZE
        yield f"oom score of {name}", partial(opened, f"/proc/{pid}/oom_score_adj", os.O_WRONLY)
    yield "trace me", lambda: call("ptrace", 0, 0, 0, 0)
    yield "read /etc/shadow", lambda: opened("/etc/shadow", os.O_RDONLY)
    yield "read the admin's key", lambda: opened(str(paths.admin_key), os.O_RDONLY)
    yield "list /root", lambda: os.listdir("/root")
    yield "list the host's cgroups", lambda: os.listdir("/sys/fs/cgroup")
    yield "write where all may", lambda: opened(f"{outside}/new", os.O_WRONLY | os.O_CREAT)
    yield "read where all may", lambda: opened(f"{outside}/open", os.O_RDONLY)
    yield "cut a file short where all may", lambda: opened(f"{outside}/open", os.O_WRONLY | os.O_TRUNC)
    yield "write the configuration", lambda: opened(str(paths.config), os.O_WRONLY)
    yield "replace the configuration", lambda: (paths.ledger / "mine").rename(paths.config)
    yield "write the state's directory", lambda: opened(str(paths.root / "new"), os.O_WRONLY | os.O_CREAT)
    yield "unlink what lies beside the socket", (paths.root / "daemon.pub").unlink
    yield "core_pattern", lambda: opened("/proc/sys/kernel/core_pattern", os.O_WRONLY)
    yield "own setuid bit by chmod", lambda: setuid_bit(paths.ledger / "chmod")
    yield "own setuid bit by open", lambda: opened(str(paths.ledger / "open"), os.O_WRONLY | os.O_CREAT, 0o4755)
    yield "own setgid directory", lambda: os.mkdir(paths.ledger / "mkdir", 0o2755)
    yield "a link", lambda: os.link(paths.daemon_key, paths.ledger / "link")
    yield "a symlink", lambda: os.symlink("/etc/shadow", paths.ledger / "symlink")
    yield "a FIFO", lambda: os.mkfifo(paths.ledger / "fifo")
    yield "another's file", lambda: os.chown(paths.daemon_key, 1000, 1000)
    yield "set uid 0", lambda: os.setresuid(0, 0, 0)
    yield "set uid of a payload", lambda: os.setresuid(0x70000000 + 1000, -1, -1)
    yield "set groups", lambda: os.setgroups([0])
    for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, 38, 40):
        yield f"socket of family {int(family)}", partial(socket.socket, family, socket.SOCK_DGRAM)
    yield "socket pair", socket.socketpair
    yield "abstract socket", lambda: datagram(held, abstract)
    yield "user namespace", lambda: call("unshare", 0x10000000)
    yield "mount namespace", lambda: call("unshare", 0x00020000)
    yield "join a namespace", lambda: call("setns", -1, 0)
    yield "mount", lambda: call("mount", nowhere, nowhere, nowhere, 0, None)
    yield "unmount", lambda: call("umount2", nowhere, 0)
    for name in ("bpf", "io_uring_setup", "keyctl", "perf_event_open", "userfaultfd", "process_vm_readv", "pidfd_getfd",
                 "kcmp", "name_to_handle_at", "open_by_handle_at", "open_tree", "fsopen", "init_module", "chroot",
                 "pivot_root", "seccomp", "capset"):  # fmt: skip
        yield name, partial(call, name, -1, 0, 0, 0, 0, 0)


def allowed(paths: Paths) -> Iterator[tuple[str, Attempt]]:
    """What the broker lives by."""
    yield "append to the ledger", lambda: opened(str(paths.ledger / "current.jsonl"), os.O_RDWR)
    yield "a new checkpoint", lambda: opened(str(paths.ledger / "checkpoints" / "x"), os.O_WRONLY | os.O_CREAT)
    yield "read its key", lambda: opened(str(paths.daemon_key), os.O_RDONLY)
    yield "replace the keyring", lambda: opened(str(paths.keys / ".keyring.json.x"), os.O_WRONLY | os.O_CREAT)
    yield "what the kernel says of itself", lambda: opened("/proc/self/status", os.O_RDONLY)


def errno_of(attempt: Attempt) -> int:
    try:
        attempt()
    except OSError as error:
        return error.errno or -1
    return 0


def main() -> None:
    state, launcher, warden, abstract, outside = sys.argv[1:6]
    paths = Paths(Path(state))
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if "--root" not in sys.argv:
        uid = preferred_broker_id(os.fsencode(paths.root))
        user = User(uid, uid)
        hand_over(paths, user)
        privilege.prepare()
        paths = privilege.drop(user, paths)
        found = {name: errno_of(attempt) for name, attempt in allowed(paths)}
    else:
        found = {}
    (paths.ledger / "mine").write_bytes(b"")
    for name, attempt in attempts(paths, int(launcher), int(warden), abstract, outside, held):
        if "--root" in sys.argv and name in ("trace me", "set uid 0", "set uid of a payload", "exec", "capset"):
            continue  # would change this very process
        if "--root" in sys.argv and name.startswith(("ptrace", "unmount", "chroot", "pivot", "limits")):
            continue  # would change the host
        found[name] = errno_of(attempt)
    assert errno.EPERM == 1
    print(json.dumps(found))


if __name__ == "__main__":
    main()
