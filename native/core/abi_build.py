#!/usr/bin/env python3
"""Builds `immured._abi`: the launcher's protocol and the kernel's constants, as the C compiler knows them.

Declarations are drawn from native/launcher/protocol.h mechanically and every value is left to the compiler (`...`), so
nothing is typed twice. `abi_build.py --stub` prints the type stub, daemon/immured/_abi.pyi.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "native" / "launcher"
PROTOCOL = LAUNCHER / "protocol.h"
# Numbers and structures alone: protocol.h, and the words of the clerks.
WORDS = (PROTOCOL, *(LAUNCHER / f"clerk_{clerk}_words.h" for clerk in ("files", "snapshot", "changes")))

HEADERS = """
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#undef si_code     /* siginfo_t accessors that are also field names of the protocol */
#undef si_status
#include "protocol.h"
#include "clerk_files_words.h"
#include "clerk_snapshot_words.h"
#include "clerk_changes_words.h"
"""

# Newer than the oldest headers that we build with (Linux 6.1); the numbers are the kernel's own and for good.
FALLBACKS = {
    "SO_PEERPIDFD": 77,
    "SCM_PIDFD": 4,
    "LANDLOCK_ACCESS_FS_TRUNCATE": 1 << 14,
    "LANDLOCK_ACCESS_FS_IOCTL_DEV": 1 << 15,
    "LANDLOCK_ACCESS_NET_BIND_TCP": 1,
    "LANDLOCK_ACCESS_NET_CONNECT_TCP": 2,
    "LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET": 1,
    "LANDLOCK_SCOPE_SIGNAL": 2,
}

CONSTANTS = """
    SO_PEERCRED SO_PEERGROUPS SCM_RIGHTS MSG_CTRUNC MSG_CMSG_CLOEXEC MSG_NOSIGNAL
    CLD_EXITED CLD_KILLED CLD_DUMPED CLD_TRAPPED CLD_STOPPED CLD_CONTINUED
    RLIMIT_AS RLIMIT_CORE RLIMIT_CPU RLIMIT_DATA RLIMIT_FSIZE RLIMIT_LOCKS RLIMIT_MEMLOCK RLIMIT_MSGQUEUE RLIMIT_NICE
    RLIMIT_NOFILE RLIMIT_NPROC RLIMIT_RSS RLIMIT_RTPRIO RLIMIT_RTTIME RLIMIT_SIGPENDING RLIMIT_STACK
    O_PATH O_NOFOLLOW O_CLOEXEC O_DIRECTORY O_TMPFILE O_CREAT O_WRONLY O_RDWR O_RDONLY O_EXCL O_NONBLOCK
    RESOLVE_BENEATH RESOLVE_NO_MAGICLINKS RESOLVE_NO_SYMLINKS RESOLVE_NO_XDEV RESOLVE_IN_ROOT
    AT_EMPTY_PATH AT_SYMLINK_NOFOLLOW AT_FDCWD
    F_ADD_SEALS F_GET_SEALS F_SEAL_SEAL F_SEAL_SHRINK F_SEAL_GROW F_SEAL_WRITE MFD_CLOEXEC MFD_ALLOW_SEALING
    CLONE_NEWNS CLONE_NEWCGROUP CLONE_NEWUTS CLONE_NEWIPC CLONE_NEWUSER CLONE_NEWPID CLONE_NEWNET CLONE_NEWTIME
    SECCOMP_RET_KILL_PROCESS SECCOMP_RET_KILL_THREAD SECCOMP_RET_TRAP SECCOMP_RET_ERRNO SECCOMP_RET_USER_NOTIF
    SECCOMP_RET_TRACE SECCOMP_RET_LOG SECCOMP_RET_ALLOW SECCOMP_RET_ACTION_FULL SECCOMP_RET_DATA
    SECCOMP_SET_MODE_FILTER SECCOMP_GET_ACTION_AVAIL BPF_MAXINSNS
    AUDIT_ARCH_X86_64 AUDIT_ARCH_AARCH64 AUDIT_ARCH_I386 AUDIT_ARCH_ARM
    CGROUP2_SUPER_MAGIC CGROUP_SUPER_MAGIC TMPFS_MAGIC PROC_SUPER_MAGIC OVERLAYFS_SUPER_MAGIC NFS_SUPER_MAGIC
    LANDLOCK_CREATE_RULESET_VERSION LANDLOCK_ACCESS_FS_EXECUTE LANDLOCK_ACCESS_FS_WRITE_FILE
    LANDLOCK_ACCESS_FS_READ_FILE LANDLOCK_ACCESS_FS_READ_DIR LANDLOCK_ACCESS_FS_REMOVE_DIR
    LANDLOCK_ACCESS_FS_REMOVE_FILE LANDLOCK_ACCESS_FS_MAKE_CHAR LANDLOCK_ACCESS_FS_MAKE_DIR
    LANDLOCK_ACCESS_FS_MAKE_REG LANDLOCK_ACCESS_FS_MAKE_SOCK LANDLOCK_ACCESS_FS_MAKE_FIFO
    LANDLOCK_ACCESS_FS_MAKE_BLOCK LANDLOCK_ACCESS_FS_MAKE_SYM LANDLOCK_ACCESS_FS_REFER
""".split()


def protocol_declarations(text: str) -> str:
    """The header's enums, structs and numeric macros as cffi declarations whose values the compiler fills in."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    macros = re.findall(r"^#define[ \t]+(IMD_\w+)[ \t]+\S", text, flags=re.MULTILINE)
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)

    def open_enum(match: re.Match[str]) -> str:
        names = [entry.split("=")[0].strip() for entry in match[2].split(",")]
        return f"{match[1]} {{ {', '.join(f'{name} = ...' for name in names if name)} }};"

    text = re.sub(r"(enum\s*\w*)\s*\{([^}]*)\}\s*;", open_enum, text)
    text = re.sub(r"\[IMD_\w+\]", "[...]", text)  # how long, the compiler knows
    text = re.sub(r"(struct\s+\w+)\s*\{([^}]*)\}\s*;", r"\1 {\2 ...; };", text)
    return text + "".join(f"#define {name} ...\n" for name in macros)


def declarations() -> str:
    """What cffi is told of all of them."""
    return "".join(protocol_declarations(path.read_text()) for path in WORDS)


def constant_names() -> list[str]:
    """Every integer constant of the module, protocol first."""
    declared = declarations()
    protocol = re.findall(r"\b(IMD_\w+) = \.\.\.", declared) + re.findall(r"#define (IMD_\w+)", declared)
    return [*protocol, *CONSTANTS, *FALLBACKS]


def stub() -> str:
    """The type stub of the module."""
    return "\n".join(
        [
            '"""Constants and structures that the C compiler knows; made by native/core/abi_build.py, not by hand."""',
            "",
            "from typing import Final",
            "",
            "from cffi import FFI",
            "",
            "ffi: Final[FFI]",
            "",
            "class _Lib:",
            *(f"    {name}: Final[int]" for name in constant_names()),
            "",
            "lib: Final[_Lib]",
            "",
        ]
    )


ffi = FFI()
ffi.cdef(declarations())
ffi.cdef("".join(f"#define {name} ...\n" for name in [*CONSTANTS, *FALLBACKS]))
ffi.set_source(
    "immured._abi",
    HEADERS + "".join(f"#ifndef {name}\n#define {name} {value}\n#endif\n" for name, value in FALLBACKS.items()),
    include_dirs=[str(PROTOCOL.parent.relative_to(ROOT))],
    depends=[str(path.relative_to(ROOT)) for path in WORDS],
    extra_compile_args=["-std=gnu11", "-O2", "-fstack-protector-strong", "-Werror=incompatible-pointer-types"],
    extra_link_args=["-Wl,-z,relro", "-Wl,-z,now"],
)

if __name__ == "__main__":
    sys.stdout.write(stub())
