"""The command line, as a person would call it."""

from __future__ import annotations

import subprocess
import sys

__all__ = ["immure"]


def immure(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What it says, and how it ends."""
    return subprocess.run(
        [sys.executable, "-m", "immured.cli", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
