"""Runs inside: tries one way to write, named by argv[1], in the directory argv[2]. Prints the errno, 0 for none."""

import ctypes
import errno
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

way, place = sys.argv[1], sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_REMOVEDIR = 0x200
AT_EMPTY_PATH = 0x1000
X86 = os.uname().machine == "x86_64"
# Numbers of system calls that Python does not make itself, or not this way. x86_64 and, where it has them, aarch64.
NUMBERS: dict[str, tuple[int, int | None]] = {
    "open": (2, None), "creat": (85, None), "openat": (257, 56), "mkdir": (83, None), "mkdirat": (258, 34),
    "mknod": (133, None), "mknodat": (259, 33), "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36), "truncate": (76, 45), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "openat2": (437, 437),
}  # fmt: skip


def call(name: str, *arguments: str | bytes | int | None) -> int:
    """The errno of a system call, 0 where it succeeds."""
    number = NUMBERS[name][0 if X86 else 1]
    assert number is not None
    given = [one.encode() if isinstance(one, str) else one for one in arguments]
    result = libc.syscall(
        ctypes.c_long(number), *[ctypes.c_long(one) if isinstance(one, int) else one for one in given]
    )
    return ctypes.get_errno() if result < 0 else 0


def at(name: str = "") -> str:
    return f"{place}/{name}" if name else place


def readable(name: str = "file") -> int:
    return os.open(at(name), os.O_RDONLY)


def directory() -> int:
    return os.open(place, os.O_PATH)


def inside(name: str) -> str:
    """Relative to the directory, as the working directory."""
    os.chdir(place)
    return name


def inside_of(name: str) -> str:
    """Below what is the working directory already."""
    os.chdir(name)
    return name


def linked(target: str) -> str:
    """By way of a symbolic link elsewhere."""
    os.symlink(target, "/tmp/by-way-of")
    return "/tmp/by-way-of"


def in_thread(act: Callable[[], int]) -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(act()))
    thread.start()
    thread.join()
    return found[0]


def undumpable(act: Callable[[], int]) -> int:
    libc.prctl(4, 0, 0, 0, 0)
    return act()


def by_child(act: Callable[[], int], fork: Callable[[], int]) -> int:
    read, write = os.pipe()
    if fork() == 0:
        os.write(write, act().to_bytes(2, "big"))
        os._exit(0)
    return int.from_bytes(os.read(read, 2), "big")


ME = os.getuid()
NOW = None
XATTR = (b"user.shield", b"x", 1, 0)
WAYS: dict[str, Callable[[], int]] = {
    "open-write": lambda: call("open", at("file"), os.O_WRONLY, 0),
    "open-new": lambda: call("open", at("new"), os.O_WRONLY | os.O_CREAT, 0o600),
    "openat-write": lambda: call("openat", AT_FDCWD, at("file"), os.O_WRONLY, 0),
    "openat-read-write": lambda: call("openat", AT_FDCWD, at("file"), os.O_RDWR, 0),
    "openat-truncate": lambda: call("openat", AT_FDCWD, at("file"), os.O_RDONLY | os.O_TRUNC, 0),
    "openat-append": lambda: call("openat", AT_FDCWD, at("file"), os.O_WRONLY | os.O_APPEND, 0),
    "openat-new": lambda: call("openat", AT_FDCWD, at("new"), os.O_WRONLY | os.O_CREAT, 0o600),
    "openat-new-to-read": lambda: call("openat", AT_FDCWD, at("new"), os.O_RDONLY | os.O_CREAT, 0o600),
    "openat-exclusive": lambda: call("openat", AT_FDCWD, at("new"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
    "openat-unnamed": lambda: call("openat", AT_FDCWD, at("directory"), os.O_WRONLY | os.O_TMPFILE, 0o600),
    "openat-link": lambda: call("openat", AT_FDCWD, at("link"), os.O_WRONLY, 0),
    "openat-relative": lambda: call("openat", AT_FDCWD, inside("file"), os.O_WRONLY, 0),
    "openat-dotted": lambda: call("openat", AT_FDCWD, inside("directory/../file"), os.O_WRONLY, 0),
    "openat-descriptor": lambda: call("openat", directory(), "file", os.O_WRONLY, 0),
    "openat-through-link": lambda: call("openat", AT_FDCWD, linked(at("file")), os.O_WRONLY, 0),
    "openat-through-dangling-link": lambda: call(
        "openat", AT_FDCWD, linked(at("new")), os.O_WRONLY | os.O_CREAT, 0o600
    ),
    "openat-again": lambda: call("openat", AT_FDCWD, f"/proc/self/fd/{readable()}", os.O_WRONLY, 0),
    "openat-again-through-link": lambda: call(
        "openat", AT_FDCWD, linked(f"/proc/self/fd/{readable()}"), os.O_WRONLY, 0
    ),
    "openat-through-cwd": lambda: (inside(""), call("openat", AT_FDCWD, "/proc/self/cwd/file", os.O_WRONLY, 0))[1],
    "openat-through-linked-cwd": lambda: (
        inside(""),
        call("openat", AT_FDCWD, linked("/proc/self/cwd") + "/file", os.O_WRONLY, 0),
    )[1],
    "openat-above-linked-cwd": lambda: (
        inside("directory"),
        inside_of("directory"),
        call("openat", AT_FDCWD, linked("/proc/self/cwd/..") + "/new", os.O_WRONLY | os.O_CREAT, 0o600),
    )[2],
    "openat-long-path": lambda: call("openat", AT_FDCWD, place + "/." * 1500 + "/file", os.O_WRONLY, 0),
    "openat-in-a-thread": lambda: in_thread(lambda: call("openat", AT_FDCWD, at("file"), os.O_WRONLY, 0)),
    "openat-in-a-threads-directory": lambda: in_thread(lambda: call("openat", directory(), "file", os.O_WRONLY, 0)),
    "openat-after-fork": lambda: by_child(lambda: call("openat", AT_FDCWD, at("file"), os.O_WRONLY, 0), os.fork),
    "openat-not-dumpable": lambda: undumpable(lambda: call("openat", AT_FDCWD, at("file"), os.O_WRONLY, 0)),
    "openat-not-dumpable-descriptor": lambda: undumpable(lambda: call("openat", directory(), "file", os.O_WRONLY, 0)),
    "creat": lambda: call("creat", at("new"), 0o600),
    "mkdir": lambda: call("mkdir", at("new"), 0o700),
    "mkdir-slash": lambda: call("mkdir", at("new/"), 0o700),
    "mkdirat": lambda: call("mkdirat", directory(), "new", 0o700),
    "mknod-fifo": lambda: call("mknod", at("new"), 0o010600, 0),
    "mknodat-socket": lambda: call("mknodat", AT_FDCWD, at("new"), 0o140600, 0),
    "mknodat-file": lambda: call("mknodat", AT_FDCWD, at("new"), 0o100600, 0),
    "unlink": lambda: call("unlink", at("file")),
    "unlink-link": lambda: call("unlink", at("link")),
    "unlinkat": lambda: call("unlinkat", directory(), "file", 0),
    "unlinkat-directory": lambda: call("unlinkat", AT_FDCWD, at("empty"), AT_REMOVEDIR),
    "rmdir": lambda: call("rmdir", at("empty")),
    "rename": lambda: call("rename", at("file"), at("other")),
    "renameat": lambda: call("renameat", directory(), "file", directory(), "other"),
    "renameat2": lambda: call("renameat2", AT_FDCWD, at("file"), AT_FDCWD, at("other"), 1),
    "rename-over": lambda: call("rename", at("link"), at("file")),
    "link": lambda: call("link", at("file"), at("other")),
    "linkat": lambda: call("linkat", directory(), "file", directory(), "other", 0),
    "symlink": lambda: call("symlink", "anything", at("new")),
    "symlinkat": lambda: call("symlinkat", "anything", directory(), "new"),
    "truncate": lambda: call("truncate", at("file"), 0),
    "chmod": lambda: call("chmod", at("file"), 0o600),
    "fchmod": lambda: call("fchmod", readable(), 0o600),
    "fchmodat": lambda: call("fchmodat", directory(), "file", 0o600),
    "fchmodat2": lambda: call("fchmodat2", AT_FDCWD, at("file"), 0o600, 0),
    "fchmodat2-descriptor": lambda: call("fchmodat2", readable(), "", 0o600, AT_EMPTY_PATH),
    "chown": lambda: call("chown", at("file"), ME, -1),
    "fchown": lambda: call("fchown", readable(), ME, -1),
    "lchown": lambda: call("lchown", at("link"), ME, -1),
    "fchownat": lambda: call("fchownat", AT_FDCWD, at("file"), ME, -1, 0),
    "fchownat-link": lambda: call("fchownat", AT_FDCWD, at("link"), ME, -1, AT_SYMLINK_NOFOLLOW),
    "fchownat-descriptor": lambda: call("fchownat", readable(), "", ME, -1, AT_EMPTY_PATH),
    "utime": lambda: call("utime", at("file"), NOW),
    "utimes": lambda: call("utimes", at("file"), NOW),
    "futimesat": lambda: call("futimesat", AT_FDCWD, at("file"), NOW),
    "utimensat": lambda: call("utimensat", AT_FDCWD, at("file"), NOW, 0),
    "utimensat-descriptor": lambda: call("utimensat", readable(), NOW, NOW, 0),
    "setxattr": lambda: call("setxattr", at("file"), *XATTR),
    "lsetxattr": lambda: call("lsetxattr", at("file"), *XATTR),
    "fsetxattr": lambda: call("fsetxattr", readable(), *XATTR),
    "removexattr": lambda: call("removexattr", at("file"), b"user.shield"),
    "lremovexattr": lambda: call("lremovexattr", at("file"), b"user.shield"),
    "fremovexattr": lambda: call("fremovexattr", readable(), b"user.shield"),
}
if not X86:
    WAYS = {name: act for name, act in WAYS.items() if NUMBERS[name.split("-", maxsplit=1)[0]][1] is not None}

if place == "list":
    print("\n".join(WAYS))
    sys.exit()
if way == "--prepare":
    Path(place).mkdir()
    way = sys.argv[3]
    Path(place, "file").write_text("kept")
    for name in ("directory", "empty"):
        Path(place, name).mkdir()
    Path(place, "link").symlink_to("file")
    if "removexattr" in way:
        os.setxattr(f"{place}/file", "user.shield", b"x")
result = WAYS[way]()
print(errno.errorcode.get(result, result))
