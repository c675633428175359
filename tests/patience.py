"""How long a test waits for what has to come: only one that fails waits that long, so a busy host costs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

__all__ = ["PATIENCE_S", "UNHURRIED", "until"]

PATIENCE_S: Final = 120.0
"""Seconds. Far more than a guest of User-Mode Linux on a busy host takes, and less than a test may take at all."""

UNHURRIED: Final[dict[str, Any]] = {"schema": 1, "limits": {"wall": "10m"}}
"""A manifest, for what is to run for as long as a test looks at it: the default one's minute is less than patience."""


def until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Until it is so; AssertionError when it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.02)
