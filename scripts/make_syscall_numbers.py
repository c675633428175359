#!/usr/bin/env python3
"""Writes profiles/seccomp/numbers.tsv: every system call's name and its number on x86_64 and aarch64.

A tool for developers: the file is committed, nothing reads headers at run time. The numbers come from the kernel's
headers on this machine (`<asm/unistd_64.h>` of an x86_64 host, `<asm-generic/unistd.h>` as arm64 takes it); what is
newer than Linux 6.1 is listed below, since from 424 up both architectures number alike.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "profiles" / "seccomp" / "numbers.tsv"
NEWER = """
451 cachestat
452 fchmodat2
453 map_shadow_stack
454 futex_wake
455 futex_wait
456 futex_requeue
457 statmount
458 listmount
459 lsm_get_self_attr
460 lsm_set_self_attr
461 lsm_list_modules
462 mseal
463 setxattrat
464 getxattrat
465 listxattrat
466 removexattrat
467 open_tree_attr
468 file_getattr
469 file_setattr
470 listns
471 rseq_slice_yield
"""
# Of x86_64 alone and newer than Linux 6.1.
NEWER_X86_64 = {"uretprobe": 335, "uprobe": 336}
ARM64 = """
#define __ARCH_WANT_RENAMEAT
#define __ARCH_WANT_NEW_STAT
#define __ARCH_WANT_SET_GET_RLIMIT
#define __ARCH_WANT_SYS_CLONE3
#define __ARCH_WANT_MEMFD_SECRET
#define __BITS_PER_LONG 64
#include <asm-generic/unistd.h>
"""


def macros(source: str) -> dict[str, int]:
    """The `__NR_` macros that a C source defines, resolved to numbers."""
    command = ["gcc", "-E", "-dM", "-x", "c", "-"]
    text = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    defined = dict(re.findall(r"^#define (__NR\w*) (\S+)$", text, flags=re.MULTILINE))
    numbers: dict[str, int] = {}
    for macro in defined:
        value = macro
        while value in defined:
            value = defined[value]
        if macro.startswith("__NR_") and value.isdigit():
            numbers[macro.removeprefix("__NR_")] = int(value)
    for bookkeeping in ("syscalls", "arch_specific_syscall"):
        numbers.pop(bookkeeping, None)
    return numbers


def main() -> int:
    """Write the table."""
    newer = {name: int(number) for number, name in (line.split() for line in NEWER.strip().splitlines())}
    x86_64 = {**macros("#include <asm/unistd_64.h>"), **newer, **NEWER_X86_64}
    aarch64 = {**macros(ARM64), **newer}
    names = sorted(x86_64.keys() | aarch64.keys())
    rows = [f"{name}\t{x86_64.get(name, '-')}\t{aarch64.get(name, '-')}" for name in names]
    header = "# System calls to Linux 7.0: name, x86_64, aarch64. Made by scripts/make_syscall_numbers.py.\n"
    TARGET.write_text(header + "\n".join(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
