"""The native parts of the package; everything else is in pyproject.toml."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# Setuptools brings distutils along, and has no build_scripts of its own to inherit from.
from distutils.command.build_scripts import build_scripts  # isort: skip

ROOT = Path(__file__).resolve().parent
SCRATCH = ROOT / ".build"
LINKING = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]


def load(name: str) -> ModuleType:
    """A module of native/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "native" / f"{name}.py")
    if spec is None or spec.loader is None:
        sys.exit(f"native/{name}.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


launcher_build = load("launcher_build")
client_build = load("client_build")

WERROR = ["-Werror"] if launcher_build.wants_werror() else []
HARDENING = launcher_build.hardening(["-O2", "-fstack-protector-strong"])


class BuildNative(build_ext):
    """Builds the extension modules, then the launcher beside them."""

    def run(self) -> None:
        super().run()
        in_place = self.inplace or getattr(self, "editable_mode", False)
        package = ROOT / "daemon" / "immured" if in_place else Path(self.build_lib).resolve() / "immured"
        try:
            launcher_build.build(package / "_native" / "immured-launcher", SCRATCH)
        except subprocess.CalledProcessError as failure:
            raise CompileError(f"the launcher does not compile: {failure.cmd[0]} has said why") from None

    def get_outputs(self) -> list[str]:
        launcher = Path(self.build_lib) / "immured" / "_native" / "immured-launcher"
        return [*super().get_outputs(), str(launcher)]


class BuildScripts(build_scripts):
    """The environment's `immure` is a program of the machine, not a script with a line that names an interpreter."""

    def run(self) -> None:
        try:
            client_build.build(Path(self.build_dir).resolve() / "immure", SCRATCH)
        except subprocess.CalledProcessError as failure:
            raise CompileError(f"the client does not compile: {failure.cmd[0]} has said why") from None

    def get_source_files(self) -> list[str]:
        return []  # they are among those of native/


core = Extension(
    "immured._core",
    [
        "native/core/_core.pyx",
        "native/core/seccomp_compile.c",
        "native/core/seccomp_simplify.c",
        "native/core/seccomp_shorten.c",
        "native/core/seccomp_evaluate.c",
    ],
    include_dirs=["native/core", "native/launcher"],
    depends=["native/core/seccomp.h", "native/launcher/protocol.h"],
    extra_compile_args=["-std=gnu11", "-Wall", "-Wextra", *WERROR, *HARDENING],
    extra_link_args=LINKING,
)

sodium = Extension(
    "immured._sodium",
    ["native/core/_sodium.pyx"],
    libraries=["sodium"],
    extra_compile_args=["-std=gnu11", "-Wall", "-Wextra", *WERROR, *HARDENING],
    extra_link_args=LINKING,
)

ledger_read = Extension(
    "immured._ledger_read",
    [
        "native/core/_ledger_read.pyx",
        "native/core/ledger_line.c",
        "native/core/ledger_scan.c",
        "native/core/ledger_tree.c",
        "native/launcher/sha256.c",
        "native/launcher/sha256_x86.c",
    ],
    include_dirs=["native/core", "native/launcher"],
    depends=["native/core/ledger_scan.h", "native/core/ledger_tree.h", "native/launcher/sha256.h"],
    extra_compile_args=["-std=gnu11", "-Wall", "-Wextra", *WERROR, *HARDENING],
    extra_link_args=LINKING,
)

ledger_write = Extension(
    "immured._ledger_write",
    [
        "native/core/_ledger_write.pyx",
        "native/core/ledger_entry.c",
        "native/core/ledger_tree.c",
        "native/core/ledger_awaited.c",
        "native/core/ledger_writer.c",
        "native/launcher/sha256.c",
        "native/launcher/sha256_x86.c",
    ],
    include_dirs=["native/core", "native/launcher"],
    depends=[
        "native/core/ledger_commit.pxi",
        "native/core/ledger_keeping.pxi",
        "native/core/ledger_entry.h",
        "native/core/ledger_tree.h",
        "native/core/ledger_awaited.h",
        "native/core/ledger_writer.h",
        "native/launcher/sha256.h",
    ],
    extra_compile_args=["-std=gnu11", "-D_GNU_SOURCE", "-pthread", "-Wall", "-Wextra", *WERROR, *HARDENING],
    extra_link_args=[*LINKING, "-pthread"],
)

CLI = "immured.cli:main"
NATIVE_CLIENT = client_build.can_build()
if not NATIVE_CLIENT:
    print(f"immured: {client_build.NOT_AT_HAND}")

setup(
    ext_modules=cythonize(
        [core, ledger_read, ledger_write, *([sodium] if NATIVE_CLIENT else [])], build_dir=SCRATCH.name
    ),
    cffi_modules=["native/core/abi_build.py:ffi"],
    cmdclass={"build_ext": BuildNative, "build_scripts": BuildScripts},
    # With the native `immure`, what it leaves to Python stands beside it under a name of its own.
    scripts=["immure"] if NATIVE_CLIENT else [],
    entry_points={
        "console_scripts": [
            f"immure-python = {CLI}" if NATIVE_CLIENT else f"immure = {CLI}",
            "immured = immured.service.main:main",
        ]
    },
)
