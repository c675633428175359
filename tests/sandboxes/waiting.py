"""Waiting for what comes to pass, and what a refusal was called."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from immured.errors import ImmuredError
from tests.patience import until

__all__ = ["code", "has_the_terminal", "runs", "until"]


def runs(words: bytes) -> bool:
    """Whether a process with this command line, as /proc has it, lives on the host."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == words:
                return True
    return False


def has_the_terminal(words: bytes) -> bool:
    """Whether one with this command line is in its terminal's foreground, where a key's signal reaches it."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == words:
                # As proc(5) has it: state, parent, group, session, terminal, and which group is in its foreground.
                _, _, group, _, _, foreground = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:6]
                if group == foreground:
                    return True
    return False


def code(error: pytest.ExceptionInfo[ImmuredError]) -> str:
    return error.value.code
