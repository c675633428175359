"""The native parts of the package; everything else is in pyproject.toml."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
SCRATCH = ROOT / ".build"
LINKING = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]

spec = importlib.util.spec_from_file_location("launcher_build", ROOT / "native" / "launcher_build.py")
if spec is None or spec.loader is None:
    sys.exit("native/launcher_build.py is missing")
launcher_build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launcher_build)

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


core = Extension(
    "immured._core",
    [
        "native/core/_core.pyx",
        "native/core/seccomp_compile.c",
        "native/core/seccomp_shorten.c",
        "native/core/seccomp_evaluate.c",
    ],
    include_dirs=["native/core", "native/launcher"],
    depends=["native/core/seccomp.h", "native/launcher/protocol.h"],
    extra_compile_args=["-std=gnu11", "-Wall", "-Wextra", *WERROR, *HARDENING],
    extra_link_args=LINKING,
)

setup(
    ext_modules=cythonize([core], build_dir=SCRATCH.name),
    cffi_modules=["native/core/abi_build.py:ffi"],
    cmdclass={"build_ext": BuildNative},
)
