"""Bytes in and out: a large file put into a sandbox and got out of it, and a command's output streamed to a client."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

from bench.bars import Shown
from bench.ground import Ground, Part
from immured import Client

__all__ = ["measure_files", "measure_stream"]

MIB: Final = 1 << 20
ROUNDS: Final = 5
ROOMY: Final = {"schema": 1, "name": "roomy", "limits": {"disk": "3G", "memory": "4G", "wall": "10m"}}
WRITER: Final = "import os, sys\nblock = os.urandom(65536)\nfor _ in range(int(sys.argv[1]) * 16): os.write(1, block)"


def measure_files(ground: Ground) -> Part:
    """The bars `put` and `get`: the same bytes, from memory to memory, by `cp` and through the daemon.

    What is measured is the copy: a disk that writes back what an earlier round left slows whoever comes next.
    """
    size = ground.effort.transfer_mib * MIB
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as memory,
        ground.daemon.client() as client,
        client.sandbox(manifest=ROOMY) as sandbox,
    ):
        source, back, plain = Path(memory, "source"), Path(memory, "back"), Path(memory, "plain")
        _fill(source, size)
        walls: dict[str, list[int]] = {"cp in": [], "put": [], "cp out": [], "get": []}
        acts: dict[str, Callable[[], object]] = {
            "cp in": lambda: _copy(source, plain),
            "put": lambda: sandbox.files.put(source, "/tmp/file"),
            "cp out": lambda: _copy(plain, back),
            "get": lambda: sandbox.files.get("/tmp/file", back),
        }
        for _ in range(ROUNDS):
            for name, act in acts.items():
                for target in {"cp in": [plain], "cp out": [back], "get": [back]}.get(name, []):
                    target.unlink(missing_ok=True)
                if name == "put":
                    sandbox.files.remove("/tmp/file", missing_ok=True)
                start = time.perf_counter_ns()
                act()
                walls[name].append(time.perf_counter_ns() - start)
        if back.stat().st_size != size:
            raise RuntimeError(f"{back.stat().st_size} bytes came back of {size}")
    rates = {name: size / median(taken) for name, taken in walls.items()}  # bytes a nanosecond: GB/s
    shown = [
        Shown(
            name, rates[name] / rates[other], f"{rates[name]:.2f} GB/s against `cp`'s {rates[other]:.2f}", dict(walls)
        )
        for name, other in (("put", "cp in"), ("get", "cp out"))
    ]
    return Part(f"Files of {ground.effort.transfer_mib} MiB", shown)


def measure_stream(ground: Ground) -> Part:
    """The bar `stream`: a program's output, read from a pipe by Python, and streamed through the daemon to the SDK."""
    mib = ground.effort.transfer_mib
    plain, streamed = [], []
    with ground.daemon.client() as client:
        for _ in range(ROUNDS):
            plain.append(_through_a_pipe(mib))
            streamed.append(_through_the_daemon(client, mib))
    value = median(plain) / median(streamed)
    rates = [mib * MIB / median(one) for one in (streamed, plain)]
    how = f"{rates[0]:.2f} GB/s against a pipe's {rates[1]:.2f}"
    return Part("Output, streamed", [Shown("stream", value, how, {"pipe": plain, "daemon": streamed})])


def _fill(path: Path, size: int) -> None:
    block = bytes(range(256)) * 4096
    with path.open("wb") as file:
        for _ in range(size // len(block)):
            file.write(block)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--reflink=never", source, target], check=True)


def _through_a_pipe(mib: int) -> int:
    start = time.perf_counter_ns()
    got = 0
    with subprocess.Popen([sys.executable, "-c", WRITER, str(mib)], stdout=subprocess.PIPE, bufsize=0) as writer:
        assert writer.stdout is not None
        while block := writer.stdout.read(65536):
            got += len(block)
    return _whole(got, mib, start)


def _through_the_daemon(client: Client, mib: int) -> int:
    start = time.perf_counter_ns()
    got = 0
    with client.start(["/usr/bin/python3", "-c", WRITER, str(mib)], manifest=ROOMY) as run:
        for _, block in run:
            got += len(block)
    return _whole(got, mib, start)


def _whole(got: int, mib: int, start: int) -> int:
    wall = time.perf_counter_ns() - start
    if got != mib * MIB:
        raise RuntimeError(f"{got} bytes came of {mib} MiB")
    return wall
