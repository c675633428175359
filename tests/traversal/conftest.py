"""A clerk alone in a directory, and a daemon whose sandboxes' files are asked for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import client, daemon
from tests.traversal.alone import OWNER, Alone
from tests.warden.conftest import FLAGS, SANITIZE

__all__ = ["client", "daemon"]

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "native" / "launcher"
PARTS = [f"clerk_files_{part}" for part in "archive copy extract filter look path remove serve".split()]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An executable that is one clerk, under its filter but where the sanitizers would be ended by it."""
    program = tmp_path_factory.mktemp("native") / "files"
    sources = [SOURCES / f"{part}.c" for part in (*PARTS, "clerk_rights", "error", "message", "util")]
    sanitized = set(SANITIZE) <= set(FLAGS)
    flags = [*FLAGS, *(["-DUNFILTERED"] if sanitized else [])]
    subprocess.run(["gcc", *flags, *sources, HERE / "alone.c", "-o", program], check=True)
    return program


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What the clerk takes for its root: its owner's, with what lies outside beside it."""
    path = tmp_path / "root"
    path.mkdir()
    os.chown(path, OWNER, OWNER)
    return path


@pytest.fixture
def clerk(program: Path, root: Path) -> Iterator[Alone]:
    with Alone(program, root) as one:
        yield one
