#!/usr/bin/env python3
"""Compiles the launcher: every .c file of native/launcher, and the filters' interpreter, into one executable.

Called by setup.py (wheels, editable installs) and by the Makefile (sanitizer builds). Objects are kept and made again
only when a source, a header or the command changes; the executable appears by rename: a running one is never written.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "launcher"
SHARED = [HERE / "core" / "seccomp_evaluate.c"]  # PID 1 asks the base program what a call would have got

WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wpointer-arith", "-Wvla", "-Wformat-security"]
DIALECT = ["-std=gnu11", "-D_GNU_SOURCE=", "-fno-common", "-fno-strict-aliasing"]
HARDENING = ["-O2", "-fstack-protector-strong", "-fPIE"]
SANITIZERS = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-fPIE"]
LINKING = ["-pie", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]
# Taken where compiler and machine know them; the first of each row that works.
OPTIONAL: list[list[list[str]]] = [
    [["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"], ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]],
    [["-fstack-clash-protection"]],
    [["-fcf-protection"], ["-mbranch-protection=standard"]],
    [["-ftrivial-auto-var-init=zero"]],
]
PROBE = '#include <stdio.h>\nint main(void) { char b[8]; return snprintf(b, sizeof b, "x") != 1; }\n'


def wants_werror() -> bool:
    """Whether warnings are errors: in CI, or when IMMURED_WERROR=1 asks for it."""
    return os.environ.get("CI") == "true" or os.environ.get("IMMURED_WERROR") == "1"


def compiler() -> list[str]:
    """The C compiler, as CC names it."""
    return shlex.split(os.environ.get("CC", "gcc"))


def works(flags: Sequence[str], linking: Sequence[str] = ()) -> bool:
    """Whether a small program compiles, links and runs with these flags and nothing is warned about."""
    with tempfile.TemporaryDirectory() as scratch:
        source, program = Path(scratch, "probe.c"), Path(scratch, "probe")
        source.write_text(PROBE)
        command = [*compiler(), "-Werror", "-O2", *flags, str(source), "-o", str(program), *linking]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return False
        return subprocess.run([program], capture_output=True, check=False).returncode == 0


def hardening(base: Sequence[str]) -> list[str]:
    """`base` and what else this compiler and machine know to make an exploit harder."""
    flags = list(base)
    for row in OPTIONAL:
        flags += next((choice for choice in row if works([*base, *choice])), [])
    return flags


def flags_for(sanitize: bool) -> tuple[list[str], list[str]]:
    """Compiling and linking flags for this machine."""
    compiling = [*DIALECT, *WARNINGS, *(["-Werror"] if wants_werror() else [])]
    if sanitize:
        return [*compiling, *SANITIZERS], [*SANITIZERS, *LINKING]
    compiling += hardening(HARDENING)
    # Static where libc.a is there: no loader and no relocation of libraries in any child. --fatal-warnings turns
    # the linker's "needs the shared libraries at runtime" (name service look-ups) into a failed build.
    static = ["-static-pie", *LINKING[1:]]
    linking = [*static, "-Wl,--fatal-warnings"] if works(compiling, static) else LINKING
    return compiling, list(linking)


def compile_object(source: Path, objects: Path, flags: Sequence[str], newest_header: float) -> Path:
    """Compile one source when it, a header or the flags changed; its object's path."""
    target = objects / f"{source.stem}.o"
    inputs = max(source.stat().st_mtime, newest_header)
    if not target.exists() or target.stat().st_mtime < inputs:
        subprocess.run([*compiler(), *flags, "-c", str(source), "-o", str(target)], check=True)
    return target


def build(output: Path, scratch: Path, *, sanitize: bool = False) -> None:
    """Compile native/launcher/*.c into `output`, which is up to date afterwards.

    Raises:
        subprocess.CalledProcessError: the compiler or the linker failed; it has said why.
    """
    compiling, linking = flags_for(sanitize)
    digest = hashlib.sha256("\0".join([*compiler(), *compiling, *linking]).encode()).hexdigest()[:16]
    objects = scratch / f"launcher-{digest}"
    objects.mkdir(parents=True, exist_ok=True)
    sources = [*sorted(SOURCES.glob("*.c")), *SHARED]
    headers = [*SOURCES.glob("*.h"), *(HERE / "core").glob("*.h")]
    newest_header = max(path.stat().st_mtime for path in headers)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = list(pool.map(lambda s: compile_object(s, objects, compiling, newest_header), sources))
    newest = max(path.stat().st_mtime for path in compiled)
    stamp = objects / "linked"
    listing = f"{output}\n" + "\n".join(map(str, compiled))
    linked = stamp.read_text() if stamp.exists() else ""
    if output.exists() and output.stat().st_mtime >= newest and linked == listing:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        subprocess.run([*compiler(), *map(str, compiled), "-o", str(fresh), *linking], check=True)
        fresh.chmod(0o755)
        fresh.replace(output)
    finally:
        fresh.unlink(missing_ok=True)
    stamp.write_text(listing)


def main() -> int:
    """The command line: `launcher_build.py OUTPUT [--sanitize]`."""
    parser = argparse.ArgumentParser(description="compile the launcher")
    parser.add_argument("output", type=Path)
    parser.add_argument("--sanitize", action="store_true", help="with the address and undefined behaviour sanitizers")
    parser.add_argument("--scratch", type=Path, default=HERE.parent / ".build")
    options = parser.parse_args()
    try:
        build(options.output.resolve(), options.scratch, sanitize=options.sanitize)
    except subprocess.CalledProcessError as failure:
        return int(failure.returncode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
