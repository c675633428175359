"""Whose memory it is that a file in a sandbox takes: the sandbox's, however it came there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from immured import Client
from immured.client.sandbox import Sandbox
from tests.patience import until

PIECE = 1 << 20
SIZE = 96 * PIECE
"""More than is reserved at once. Never whole in this process: it is the sandbox's memory that is looked at."""
ROOMY = {"schema": 1, "name": "roomy", "limits": {"disk": "512M", "memory": "1G"}}


def _passed(sandbox: Sandbox, local: Path) -> None:
    sandbox.files.put(local, "/tmp/large")


def _sent(sandbox: Sandbox, local: Path) -> None:
    with local.open("rb") as file:
        sandbox.files.put(file, "/tmp/large")


@pytest.mark.needs_cgroup2
@pytest.mark.parametrize("way", [_passed, _sent])
def test_what_is_put_counts_as_the_sandboxs(
    client: Client, tmp_path: Path, way: Callable[[Sandbox, Path], None]
) -> None:
    local = tmp_path / "large"
    with local.open("wb") as file:
        for _ in range(SIZE // PIECE):
            file.write(b"x" * PIECE)
    with client.sandbox(manifest=ROOMY) as sandbox:
        before = sandbox.stats().memory_bytes or 0
        way(sandbox, local)
        after = sandbox.stats().memory_bytes or 0
        assert after - before > SIZE - 4 * PIECE  # what the kernel had charged in advance, it may give back meanwhile
        sandbox.files.remove("/tmp/large")
        until(lambda: (sandbox.stats().memory_bytes or 0) < before + SIZE // 2)  # freed when its last user lets go
