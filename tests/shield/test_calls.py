"""The tables agree: what the filter hands over, the notifier knows what to do with."""

from __future__ import annotations

import re
from pathlib import Path

from immured.isolation import syscalls

TABLE = Path(__file__).parents[2] / "native" / "launcher" / "explain_calls.c"


def test_every_watched_call_has_a_shape() -> None:
    shapes = re.findall(r"^    CALL\((\w+),", TABLE.read_text(), flags=re.MULTILINE)
    assert len(shapes) == len(set(shapes))
    assert set(syscalls.explained().watched) | syscalls.explained().learned <= set(shapes)
