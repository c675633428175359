"""The launcher's own check of a plan, as a function: its C compiled for the folder's tests."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).resolve().parents[2] / "native" / "launcher"


class _Error(ctypes.Structure):
    _fields_ = (
        ("stage", ctypes.c_uint32),
        ("step", ctypes.c_uint32),
        ("error", ctypes.c_int),
        ("text", ctypes.c_char * 256),
    )


@pytest.fixture(scope="session")
def launchers_verdict(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], str]:
    """What native/launcher/plan.c says to a packed plan: why it is refused, or nothing."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or "cc"
    library = tmp_path_factory.mktemp("plan") / "plan.so"
    sources = [LAUNCHER / "plan.c", LAUNCHER / "error.c"]
    subprocess.run([compiler, "-std=gnu11", "-shared", "-fPIC", "-o", library, *sources], check=True)
    check = ctypes.CDLL(str(library)).imd_plan_check

    def verdict(packed: bytes) -> str:
        error = _Error()
        aligned = (ctypes.c_uint64 * (len(packed) // 8 + 1))()
        ctypes.memmove(aligned, packed, len(packed))
        refused = check(aligned, ctypes.c_size_t(len(packed)), ctypes.byref(error))
        return f"step {error.step}: {error.text.decode()}" if refused else ""

    return verdict
