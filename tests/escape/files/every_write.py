"""Change a directory that is bound read-only, by every call that changes one.

Wall: read-only mounts
Meets: EROFS EACCES EPERM
Scene: note_of_the_callers
Control: scene
Reference: mount(2), MS_RDONLY
"""

import fcntl
import os
import sys

from tests.escape.inside import system, tries

NOTE = sys.argv[1]
HERE = os.path.dirname(NOTE)
AT_FDCWD = -100
here, note = os.open(HERE, os.O_RDONLY), os.open(NOTE, os.O_RDONLY)
tries(
    {
        "open": lambda: os.open(NOTE, os.O_WRONLY),
        "truncating": lambda: os.open(NOTE, os.O_RDONLY | os.O_TRUNC),
        "create": lambda: os.open(f"{HERE}/new", os.O_CREAT | os.O_WRONLY),
        "tmpfile": lambda: os.open(HERE, os.O_TMPFILE | os.O_RDWR),
        "mkdir": lambda: os.mkdir(f"{HERE}/new"),
        "mknod": lambda: os.mknod(f"{HERE}/new"),
        "mkfifo": lambda: os.mkfifo("new", dir_fd=here),
        "symlink": lambda: os.symlink("x", f"{HERE}/new"),
        "link": lambda: os.link(NOTE, f"{HERE}/new"),
        "truncate": lambda: os.truncate(NOTE, 0),
        "chmod": lambda: os.chmod(NOTE, 0o600),
        "fchmod": lambda: os.fchmod(note, 0o600),
        "chown": lambda: os.chown(NOTE, 1000, 1000),
        "utimes": lambda: os.utime(NOTE),
        "futimens": lambda: system("utimensat", note, 0, 0, 0),
        "setxattr": lambda: os.setxattr(NOTE, "user.x", b"x"),
        "removexattr": lambda: os.removexattr(note, "user.x"),
        "flags": lambda: fcntl.ioctl(note, 0x40086602, b"\0" * 8),
        "rename": lambda: os.rename(NOTE, f"{HERE}/new"),
        "unlink": lambda: os.unlink(NOTE),
        "rmdir": lambda: os.rmdir(f"{HERE}/empty"),
    }
)
