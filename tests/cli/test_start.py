"""The command line imports what a subcommand needs, and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.patience import PATIENCE_S

HEAVY = frozenset({
    "immured.service", "immured.ledger", "immured.isolation", "immured.manifest.schema", "immured.manifest.read",
    "immured.host", "asyncio", "psutil",
})  # fmt: skip


def imported_by(module: str) -> set[str]:
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["immured.cli.run", "immured.cli.status", "immured.cli.kill"])
def test_a_client_command_loads_nothing_of_the_daemon(module: str) -> None:
    assert not imported_by(module) & HEAVY


def test_help_loads_no_subcommand() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "immured.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert "immured.cli.run" not in done.stderr
    assert "cryptography" not in done.stderr


def test_help_lists_every_subcommand() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "immured.cli", "--help"], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    for name in ("run", "plan", "status", "kill", "init", "key", "ledger", "doctor"):
        assert f"\n  {name} " in done.stdout
