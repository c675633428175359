"""The controls' world: a sandbox of the plainest kind, from which single walls are left out.

    fence.py '{"without": ["ids", "capabilities"], "uid": 1234, "home": DIR, "binds": [], "argv": [...], ...}'

It is what a first attempt at a sandbox looks like: a mount namespace always, and unless left out: `pids`, `network`,
`ipc`, `cgroup` (namespaces), `view` (a root of its own), `ids`, `capabilities`, `new privileges`, `session`,
`descriptors`, `nosuid`, `nodev`, `propagation`. It never has what it stands in for the lack of: a user namespace, a
system call filter, masks over /proc, paths opened as the caller.

Whatever is left out, it changes nothing on the host: with the host's view, every file system but proc and sysfs is
read-only here and /tmp is another. Its ideas only show reach: they open and close, or call with nonsense.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import stat
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2
NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
MOUNT_SETATTR = 442
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 24, 28, 8, 38, 47
KERNELS = {"pts": ("devpts", "ptmxmode=0666,mode=620"), "shm": ("tmpfs", "mode=1777"), "mqueue": ("mqueue", None)}
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)
    return result


def seen_as_no_link(path: str) -> None:
    """The look before the act. What it saw need not be what is acted upon."""
    for _ in range(200):
        if not stat.S_ISLNK(os.lstat(path).st_mode):
            return
        time.sleep(0.001)
    raise SystemExit(f"{path} is a symbolic link")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    check(libc.mount(*words, ctypes.c_ulong(flags), data and data.encode()), target)


class Fence:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.without = set(spec["without"])
        self.home = -1

    def has(self, wall: str) -> bool:
        return wall not in self.without

    def leave_namespaces(self) -> None:
        for source, _, _ in self.spec["binds"]:
            seen_as_no_link(source)
        if cgroup := self.spec.get("cgroup"):
            with open(f"{cgroup}/cgroup.procs", "w") as procs:
                procs.write("0")
        flags = NEWNS | NEWUTS
        for wall, flag in (("network", NEWNET), ("ipc", NEWIPC), ("cgroup", NEWCGROUP)):
            flags |= flag if self.has(wall) else 0
        check(libc.unshare(flags), "unshare")
        self.home = os.open(self.spec["home"], os.O_PATH)  # a mount of this namespace, or it could not be bound
        mount("none", "/", None, MS_REC | (MS_PRIVATE if self.has("propagation") else MS_SLAVE))
        if self.has("pids"):
            check(libc.unshare(NEWPID), "unshare")

    def bind(self, source: str, target: str, *, write: bool) -> None:
        """By path and as root; what it is was looked at a while ago."""
        if stat.S_ISDIR(os.stat(source).st_mode):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        mount(source, target, None, MS_BIND | (0 if self.has("propagation") else MS_REC))
        flags = MS_BIND | MS_REMOUNT | (0 if write else MS_RDONLY)
        flags |= (MS_NOSUID if self.has("nosuid") else 0) | (MS_NODEV if self.has("nodev") else 0)
        mount("none", target, None, flags)

    def make_view(self) -> None:
        """Below the home's parent, which is the test's own."""
        root = os.path.join(self.spec["scratch"], "root")
        os.makedirs(root, exist_ok=True)
        mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr"):
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
            elif os.path.isdir(f"/{name}"):
                self.bind(f"/{name}", f"{root}/{name}", write=False)
        for name in ("proc", "tmp", "dev"):
            os.mkdir(f"{root}/{name}")
        mount("tmpfs", f"{root}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
        mount("tmpfs", f"{root}/dev", "tmpfs", MS_NOSUID, "mode=755")
        for name in DEVICES:
            os.close(os.open(f"{root}/dev/{name}", os.O_CREAT | os.O_WRONLY))
            mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
        for name, (kind, data) in KERNELS.items():
            os.mkdir(f"{root}/dev/{name}")
            mount(kind, f"{root}/dev/{name}", kind, MS_NOSUID, data)
        os.symlink("pts/ptmx", f"{root}/dev/ptmx")
        self.add_binds(root)
        os.chdir(root)
        check(libc.syscall(ctypes.c_long(155 if os.uname().machine == "x86_64" else 41), b".", b"."), "pivot_root")
        check(libc.umount2(b".", MNT_DETACH), "the host's root")
        os.chdir("/")

    def add_binds(self, root: str) -> None:
        os.makedirs(f"{root}/tmp/idea")
        mount(f"/proc/self/fd/{self.home}", f"{root}/tmp/idea", None, MS_BIND)
        for source, target, write in self.spec["binds"]:
            if os.path.lexists(root + target):
                seen_as_no_link(root + target)
                time.sleep(0.0005)
            self.bind(source, root + target, write=write)
        for target in self.spec.get("tmpfs", []):
            seen_as_no_link(root + target)
            time.sleep(0.0005)
            mount("tmpfs", root + target, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")

    def keep_view(self) -> None:
        """The host's tree, read-only here; /proc and /sys as they are."""
        attributes = (ctypes.c_uint64 * 4)(1, 0, 0, 0)
        check(libc.syscall(MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, attributes, 32), "read-only")
        attributes = (ctypes.c_uint64 * 4)(0, 1, 0, 0)
        for place in (b"/proc", b"/sys"):
            libc.syscall(MOUNT_SETATTR, AT_FDCWD, place, AT_RECURSIVE, attributes, 32)
        kept = {source: os.open(source, os.O_PATH) for source, _, _ in self.spec["binds"]}
        mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
        os.mkdir("/tmp/idea")
        mount(f"/proc/self/fd/{self.home}", "/tmp/idea", None, MS_BIND)
        for source, target, write in self.spec["binds"]:
            os.makedirs(target, exist_ok=True)
            mount(f"/proc/self/fd/{kept[source]}", target, None, MS_BIND)
            mount("none", target, None, MS_BIND | MS_REMOUNT | MS_NOSUID | (0 if write else MS_RDONLY))

    def drop(self) -> None:
        uid = self.spec["uid"]
        if not self.has("capabilities") and self.has("ids"):
            libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        if self.has("capabilities") and not self.has("ids"):
            libc.prctl(PR_SET_SECUREBITS, 1, 0, 0, 0)
            for number in range(64):
                libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
            self.set_capabilities(0)
        if self.has("ids"):
            os.setgroups(self.spec.get("groups", []))
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        if not self.has("capabilities") and self.has("ids"):
            self.set_capabilities(~0)
            for number in range(64):
                libc.prctl(PR_CAP_AMBIENT, 2, number, 0, 0)
        if self.has("new privileges"):
            check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")

    @staticmethod
    def set_capabilities(mask: int) -> None:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        data = (ctypes.c_uint32 * 6)()
        if mask:
            check(libc.capget(header, data), "capget")
            data[0], data[3] = data[1], data[4]
            data[2], data[5] = data[1], data[4]
        check(libc.capset(header, data), "capset")

    def payload(self) -> None:
        if self.has("session") and os.getsid(0) != os.getpid():
            os.setsid()
        for number, value in self.spec.get("rlimits", []):
            import resource

            resource.setrlimit(number, (value, value))
        if self.spec.get("cwd"):
            os.chdir(self.spec["cwd"])
        self.drop()
        if number := self.spec.get("stderr"):
            os.dup2(number, 2)
        if self.has("descriptors"):
            os.closerange(3, 1024)
        argv = self.spec["argv"]
        os.execve(
            argv[0], argv, {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", **self.spec.get("env", {})}
        )

    def mount_proc(self) -> None:
        if self.has("pids") or self.has("view"):
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)

    def main(self) -> int:
        if terminal := self.spec.get("terminal"):
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        self.leave_namespaces()
        # PID 1 of the new namespace, where there is one; the payload is its child.
        return in_child(self.first)

    def first(self) -> None:
        if self.has("view"):
            self.make_view()
        else:
            self.keep_view()
        self.mount_proc()
        os._exit(in_child(self.payload))


def in_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            sys.stderr.flush()
            if sys.exc_info()[0]:
                sys.excepthook(*sys.exc_info())
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF


if __name__ == "__main__":
    sys.exit(Fence(json.loads(sys.argv[1])).main())
