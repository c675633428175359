"""Runs *inside* the sandbox, with the standard library alone: tries things and prints, as JSON, what it got."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")

libc = ctypes.CDLL(None, use_errno=True)


def attempt(call: Callable[..., object], *arguments: Any, **named: Any) -> str:
    """The name of the errno that a call met, or "ok"."""
    try:
        call(*arguments, **named)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return "ok"


def raw(number: int, *arguments: Any) -> str:
    """A system call by number: the errno's name, or "ok"."""
    ctypes.set_errno(0)
    if (
        libc.syscall(
            ctypes.c_long(number), *[ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
        )
        < 0
    ):
        return errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno()))
    return "ok"


def status() -> dict[str, str]:
    with open("/proc/self/status") as lines:
        return {key: value.strip() for key, value in (line.split(":\t", 1) for line in lines if ":\t" in line)}


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def in_child(work: Callable[[], str]) -> str:
    """What `work()` returns, tried in a child so that success does no harm here."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(work()).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    return os.read(read, 64).decode()


def kernel_memory() -> str:
    """Masked, absent, or a hole."""
    if not os.path.exists("/proc/kcore") or os.path.getsize("/proc/kcore") == 0:
        return "empty"
    return attempt(read, "/proc/kcore")


def setid_bits() -> dict[str, str]:
    """Every way to a setuid or setgid bit, in the private /tmp."""
    os.chdir("/tmp")
    open("plain", "w").close()
    os.mkdir("directory")
    fd = os.open("plain", os.O_RDWR)
    return {
        "chmod": attempt(os.chmod, "plain", 0o4755),
        "chmod setgid": attempt(os.chmod, "plain", 0o2755),
        "chmod directory": attempt(os.chmod, "directory", 0o2777),
        "fchmod": attempt(os.fchmod, fd, 0o4755),
        "fchmodat": attempt(os.chmod, "plain", 0o4755, dir_fd=os.open(".", os.O_RDONLY)),
        "fchmodat2": raw(452, -100, b"plain", 0o4755, 0),
        "open": attempt(os.open, "made1", os.O_CREAT | os.O_WRONLY, 0o4755),
        "creat": raw(85, b"made2", 0o4755),
        "openat tmpfile": attempt(os.open, "/tmp", os.O_TMPFILE | os.O_RDWR, 0o4755),
        "openat2": raw(437, -100, b"made3", (ctypes.c_uint64 * 3)(0o101, 0o4755, 0), 24),
        "mkdir": attempt(os.mkdir, "made4", 0o2755),
        "mknod": attempt(os.mknod, "made5", 0o104755),
        "mkfifo": attempt(os.mkfifo, "made6", 0o4755),
    }


def main() -> None:
    own = status()
    visible = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    facts: dict[str, Any] = {
        "uid": os.getresuid(),
        "gid": os.getresgid(),
        "groups": os.getgroups(),
        "status": {key: own[key] for key in own if key.startswith(("Cap", "NoNew", "Seccomp"))},
        "pid": os.getpid(),
        "session": os.getsid(0),
        "processes": visible,
        "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "hostname": socket.gethostname(),
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES},
        "uid_map": read("/proc/self/uid_map").split(),
        "cgroup": read("/proc/self/cgroup").splitlines(),
        "mounts": [line.split() for line in read("/proc/self/mounts").splitlines()],
        "root": sorted(os.listdir("/")),
        "environment": dict(os.environ),
        "umask": os.umask(0o022),
    }
    facts["paths"] = {
        path: os.path.lexists(path)
        for path in (
            "/root",
            "/home",
            "/var/lib",
            "/var/log",
            "/run/systemd",
            "/etc/shadow",
            "/etc/gshadow",
            "/etc/ssh",
            "/etc/ssl/private",
            "/boot",
            "/sys/kernel",
            "/dev/mem",
            "/dev/kmsg",
            "/dev/vda",
            "/dev/fuse",
            "/dev/kvm",
            "/dev/loop-control",
        )
    }
    facts["attempts"] = {
        "write /usr": attempt(open, "/usr/x", "w"),
        "write /": attempt(open, "/x", "w"),
        "write /etc": attempt(open, "/etc/x", "w"),
        "write /dev": attempt(open, "/dev/x", "w"),
        "write /proc/sys": attempt(open, "/proc/sys/kernel/core_pattern", "w"),
        "write sysrq": attempt(open, "/proc/sysrq-trigger", "w"),
        "write /tmp": attempt(open, "/tmp/x", "w"),
        "write /dev/shm": attempt(open, "/dev/shm/x", "w"),
        "read /proc/kcore": kernel_memory(),
        "read /proc/1/root": attempt(os.listdir, "/proc/1/root"),
        "read /proc/1/environ": attempt(read, "/proc/1/environ"),
        "read /proc/1/mem": attempt(open, "/proc/1/mem", "rb"),
        "kill 1": attempt(os.kill, 1, 9),
        "kill all": in_child(lambda: attempt(os.kill, -1, 0)),
        "chroot": attempt(os.chroot, "/tmp"),
        "mount": raw(165, b"none", b"/tmp", b"tmpfs", 0, 0),
        "umount": raw(166, b"/tmp", 2),
        "fsopen": raw(430, b"tmpfs", 0),
        "open_tree": raw(428, -100, b"/usr", 1),
        "move_mount": raw(429, -1, b"", -1, b"", 0),
        "mount_setattr": raw(442, -100, b"/usr", 0, 0, 0),
        "pivot_root": raw(155, b"/", b"/"),
        "unshare user": in_child(lambda: raw(272, 0x10000000)),
        "unshare net": in_child(lambda: raw(272, 0x40000000)),
        "setns": raw(308, 0, 0),
        "clone user": in_child(lambda: raw(56, 0x10000000 | 17, 0, 0, 0, 0)),
        "clone3": raw(435, (ctypes.c_uint64 * 11)(), 88),
        "ptrace 1": raw(101, 16, 1, 0, 0),
        "process_vm_readv": raw(310, 1, 0, 0, 0, 0, 0),
        "bpf": raw(321, 0, 0, 0),
        "perf_event_open": raw(298, 0, 0, -1, -1, 0),
        "userfaultfd": raw(323, 0),
        "io_uring_setup": raw(425, 1, 0),
        "keyctl": raw(250, 0, -3, 0),
        "add_key": raw(248, b"user", b"x", b"y", 1, -3),
        "init_module": raw(175, 0, 0, b""),
        "kexec_load": raw(246, 0, 0, 0, 0),
        "reboot": raw(169, 0, 0, 0, 0),
        "swapon": raw(167, b"/tmp/x", 0),
        "settimeofday": raw(164, 0, 0),
        "open_by_handle_at": raw(304, -100, 0, 0),
        "AF_PACKET": attempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW),
        "AF_VSOCK": attempt(socket.socket, 40, socket.SOCK_STREAM),
        "AF_ALG": attempt(socket.socket, 38, socket.SOCK_SEQPACKET),
        "raw socket": attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1),
        "netlink audit": attempt(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 9),
        "TIOCSTI": raw(16, 0, 0x5412, b"x"),
        "mknod device": attempt(os.mknod, "/tmp/null", 0o020666, os.makedev(1, 3)),
        "setuid 0": attempt(os.setuid, 0),
        "setgroups": attempt(os.setgroups, [0]),
        "setpriority": attempt(os.setpriority, os.PRIO_PROCESS, 0, -5),
        "oom_score_adj": attempt(lambda: os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1000")),
        "connect outside": attempt(socket.create_connection, ("192.0.2.1", 80), 2),
        "sethostname": attempt(socket.sethostname, "x"),
    }
    facts["setid"] = setid_bits()
    listener = socket.create_server(("127.0.0.1", 0))
    facts["loopback"] = attempt(socket.create_connection, listener.getsockname(), 2)
    if len(sys.argv) > 1:
        abstract = socket.socket(socket.AF_UNIX)
        facts["abstract"] = attempt(abstract.connect, "\0" + sys.argv[1])
    json.dump(facts, sys.stdout)


main()
