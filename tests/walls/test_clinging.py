"""A payload that wants its run not to end, or to cost more than it may."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from immured import Client
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root

INLINE = {"schema": 1, "name": "inline", "class": "default"}
BROTHER = """
import ctypes, os, signal, time
clone, parent = 56 if os.uname().machine == "x86_64" else 220, 0x8000
if ctypes.CDLL(None).syscall(clone, parent | signal.SIGCHLD, 0, 0, 0, 0) == 0:
    time.sleep({patience})
"""
TRACED = """
import ctypes, os, time
libc, main = ctypes.CDLL(None), os.getpid()
ready, told = os.pipe()
if os.fork() == 0:
    libc.ptrace(0x4206, main, None, None)  # PTRACE_SEIZE
    os.write(told, b".")
    time.sleep(1000)
os.read(ready, 1)
"""


@pytest.mark.parametrize("patience", [0, 1000])
def test_a_brother_of_the_main_process_does_not_hold_the_reply(client: Client, patience: int) -> None:
    start = time.monotonic()
    result = client.run(
        ["/usr/bin/python3", "-c", BROTHER.format(patience=patience)], manifest={**INLINE, "limits": {"wall": "250s"}}
    )
    assert (result.cause, time.monotonic() - start < PATIENCE_S) == ("exited", True)


def test_a_tracer_that_does_not_reap_does_not_hold_the_reply(client: Client) -> None:
    start = time.monotonic()
    manifest = {**INLINE, "limits": {"wall": "250s"}, "syscalls": {"allow": ["@debug"]}}
    result = client.run(["/usr/bin/python3", "-c", TRACED], manifest=manifest)
    assert (result.cause, result.exit_code, time.monotonic() - start < PATIENCE_S) == ("exited", 0, True)


def test_a_file_larger_than_may_be_collected_does_not_come_back(client: Client) -> None:
    """Sparse, it costs the payload nothing; whoever reads it would not end."""
    result = client.run(["/usr/bin/truncate", "-s", "1T", "/tmp/large"], collect=["/tmp/large"])
    assert (result.exit_code, "/tmp/large" in result.files) == (0, False)


def test_a_file_that_a_caller_made_as_large_does_not_come_back_either(client: Client, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    manifest = {**INLINE, "filesystem": {"read": [str(tmp_path)]}}
    result = client.run(["/bin/true"], manifest=manifest, collect=[str(large)])
    assert (result.exit_code, str(large) in result.files) == (0, False)
