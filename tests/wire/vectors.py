"""The vectors under tests/vectors/wire, as test parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[1] / "vectors" / "wire"


def load(name: str) -> dict[str, Any]:
    """A vector file's content."""
    content: dict[str, Any] = json.loads((HERE / name).read_text(encoding="utf-8"))
    return content


def cases(name: str, where: str = "cases") -> pytest.MarkDecorator:
    """Parametrises `case` by the cases of a file, each under its name."""
    found = load(name)[where]
    return pytest.mark.parametrize(
        "case", found, ids=[case.get("name", str(number)) for number, case in enumerate(found)]
    )
