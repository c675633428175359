#!/usr/bin/env python3
"""Compiles the native client: every .c file of native/client into one executable. Standard library only.

It is optional: where no compiler or no libsodium is at hand, `immure` is the Python command line alone, and slower to
start. Called by setup.py (wheels, editable installs) and by the Makefile.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import launcher_build as common

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "client"

NOT_AT_HAND = (
    "no C compiler, or no libsodium with its header: `immure` is the Python command line alone, slower to start; "
    "remedy: apt-get install gcc libc6-dev libsodium-dev"
)

PROBE = "#include <sodium.h>\nint main(void) { return sodium_init() < 0; }\n"
# libsodium.a in a static program starts fastest (docs/performance.md); where it is not there, the shared one will do.
SODIUM = (["-l:libsodium.a"], ["-lsodium"])


def version() -> str:
    """The package's version, as pyproject.toml has it."""
    import tomllib

    with (HERE.parent / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def printable_ranges() -> str:
    """What this Python's str.isprintable() says yes to beyond ASCII, as rows of C: a message then looks the same
    whichever half of the command says it."""
    rows: list[list[int]] = []
    for code in range(0x80, sys.maxunicode + 1):
        if not chr(code).isprintable():
            continue
        if rows and rows[-1][1] == code - 1:
            rows[-1][1] = code
        else:
            rows.append([code, code])
    return "".join(f"{{{first:#x}, {last:#x}}},\n" for first, last in rows)


@functools.cache
def linking(compiling: tuple[str, ...], preferred: tuple[str, ...]) -> list[str] | None:
    """The flags that link a program with libsodium here; None where nothing does."""
    with tempfile.TemporaryDirectory() as scratch:
        source, program = Path(scratch, "probe.c"), Path(scratch, "probe")
        source.write_text(PROBE)
        for flags in (list(preferred), common.LINKING):
            for library in SODIUM:
                command = [*common.compiler(), *compiling, str(source), "-o", str(program), *flags, *library]
                try:
                    if subprocess.run(command, capture_output=True, check=False).returncode == 0 and (
                        subprocess.run([program], check=False).returncode == 0
                    ):
                        return [*flags, *library]
                except OSError:
                    return None
    return None


def flags(sanitize: bool) -> tuple[list[str], list[str]] | None:
    """Compiling and linking flags; None where the client cannot be built."""
    try:
        compiling, preferred = common.flags_for(sanitize)
    except OSError:
        return None
    linked = linking(tuple(compiling), tuple(preferred))
    return None if linked is None else (compiling, linked)


def can_build() -> bool:
    """Whether a compiler and libsodium are at hand."""
    return flags(sanitize=False) is not None


def prepare(objects: Path) -> list[str]:
    """Makes what is generated, in `objects`; the flags that the sources need."""
    objects.mkdir(parents=True, exist_ok=True)
    made = objects / "printable.inc"
    text = printable_ranges()
    if not made.exists() or made.read_text() != text:
        made.write_text(text)
    return [f"-I{objects}", f"-I{SOURCES}", f'-DIMMURE_VERSION="{version()}"']


def build(output: Path, scratch: Path, *, sanitize: bool = False) -> None:
    """Compile native/client/*.c into `output`, which is up to date afterwards.

    Raises:
        subprocess.CalledProcessError: the compiler or the linker failed; it has said why.
        RuntimeError: `can_build` says no.
    """
    found = flags(sanitize)
    if found is None:
        raise RuntimeError("no C compiler, or no libsodium with its header")
    compiling, linked = found
    digest = hashlib.sha256("\0".join([*common.compiler(), *compiling, *linked]).encode()).hexdigest()[:16]
    objects = scratch / f"client-{digest}"
    compiling = [*compiling, *prepare(objects)]
    newest_header = max(path.stat().st_mtime for path in [*SOURCES.glob("*.h"), *SOURCES.glob("*.def")])
    newest_header = max(newest_header, (objects / "printable.inc").stat().st_mtime)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = list(
            pool.map(
                lambda source: common.compile_object(source, objects, compiling, newest_header),
                sorted(SOURCES.glob("*.c")),
            )
        )
    link(compiled, output, linked)


def link(compiled: Sequence[Path], output: Path, linked: Sequence[str]) -> None:
    """Objects into an executable, unless it is newer. It appears by rename: a running one is never written."""
    newest = max(path.stat().st_mtime for path in compiled)
    if output.exists() and is_native(output) and output.stat().st_mtime >= newest:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        subprocess.run([*common.compiler(), *map(str, compiled), "-o", str(fresh), *linked], check=True)
        fresh.chmod(0o755)
        fresh.replace(output)
    finally:
        fresh.unlink(missing_ok=True)


def is_native(program: Path) -> bool:
    """Whether a file is an executable of the machine, and no script."""
    with program.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def main() -> int:
    """The command line: `client_build.py OUTPUT [--sanitize]`."""
    parser = argparse.ArgumentParser(description="compile the native client")
    parser.add_argument("output", type=Path)
    parser.add_argument("--sanitize", action="store_true", help="with the address and undefined behaviour sanitizers")
    parser.add_argument("--scratch", type=Path, default=HERE.parent / ".build")
    options = parser.parse_args()
    if flags(options.sanitize) is None:
        print(NOT_AT_HAND)
        return 0
    try:
        build(options.output.resolve(), options.scratch, sanitize=options.sanitize)
    except subprocess.CalledProcessError as failure:
        return int(failure.returncode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
