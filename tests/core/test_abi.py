"""`immured._abi`: the protocol's numbers, and a stub that is what the module is."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from pathlib import Path

from immured import _abi

ROOT = Path(__file__).resolve().parents[2]


def test_the_stub_is_what_the_generator_prints() -> None:
    """After a change of protocol.h: `native/core/abi_build.py --stub > daemon/immured/_abi.pyi`."""
    command = [sys.executable, str(ROOT / "native" / "core" / "abi_build.py"), "--stub"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (ROOT / "daemon" / "immured" / "_abi.pyi").read_text() == printed


def test_the_module_has_what_the_stub_says() -> None:
    stub = (ROOT / "daemon" / "immured" / "_abi.pyi").read_text()
    names = {line.split(":")[0].strip() for line in stub.splitlines() if line.endswith(": Final[int]")}
    assert names == set(dir(_abi.lib))


def test_the_kernels_constants_are_the_kernels() -> None:
    assert (_abi.lib.RLIMIT_NOFILE, _abi.lib.SCM_RIGHTS) == (resource.RLIMIT_NOFILE, socket.SCM_RIGHTS)


def test_structures_have_the_protocols_size() -> None:
    assert _abi.ffi.sizeof("struct imd_header") == 16
