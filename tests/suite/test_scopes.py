"""What is there once for a folder is made by its conftest.py: what a module makes for a package stays to the very end,
and a daemon that stays keeps a range of ids, of which a host has few, from all who come after.
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parents[1]
MADE = re.compile(r"^@pytest\.fixture\(.*scope=.package|^from tests\.daemon import .*\b(client|daemon)\b", re.MULTILINE)


def test_no_module_makes_a_fixture_for_its_package() -> None:
    assert [path for path in HERE.rglob("test_*.py") if MADE.search(path.read_text("utf-8"))] == []
