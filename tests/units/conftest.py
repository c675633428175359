"""The system with immured installed, and what asks it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.units.system import System

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.needs_throwaway_host)
            item.add_marker(pytest.mark.timeout(580))  # some install, which takes its time


def make(*words: str) -> None:
    """scripts/install.py as the Makefile calls it."""
    done = subprocess.run(
        ["/usr/bin/python3", ROOT / "scripts/install.py", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.stdout.write(done.stdout)


@pytest.fixture(scope="package")
def system() -> Iterator[System]:
    """Installed, and not yet started; purged at the end."""
    make("install")
    yield System(make)
    make("uninstall", "--purge")
