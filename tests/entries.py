"""What a ledger's file says while a daemon writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["entries_in", "lines_in"]


def lines_in(content: bytes) -> list[bytes]:
    """Every line of it but one that has no end yet: who reads sees a write that crosses a page in two parts."""
    return content.split(b"\n")[:-1]


def entries_in(state: Path) -> list[dict[str, Any]]:
    """The entries of a state directory's ledger, of which nothing was sealed yet."""
    return [json.loads(line) for line in lines_in((state / "ledger/current.jsonl").read_bytes())]
