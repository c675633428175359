"""A question that takes an index, where what reads one cannot be loaded any more: Python was replaced meanwhile."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from immured.errors import Refused
from immured.ledger import query, sqlite
from immured.ledger.ledger import create
from immured.ledger.selection import Selection
from immured.service.commands import ledger_query
from immured.service.queries import Queries
from tests.ledger.sample import ticking


def test_is_refused_and_the_remedy_is_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(tmp_path, "ed25519:" + "d" * 32, clock=ticking())
    monkeypatch.setattr(query, "WORTH_IT", 0)
    for name in [name for name in vars(sqlite) if not name.startswith("__")]:
        monkeypatch.delattr(sqlite, name)  # what was asked for before stays known
    monkeypatch.setitem(sys.modules, "sqlite3", cast("Any", None))
    service = cast("Any", SimpleNamespace(queries=Queries(tmp_path / "ledger")))
    with pytest.raises(Refused) as refused:
        asyncio.run(ledger_query._some(service, Selection(types=("run.*",)), 1, 1))
    assert (refused.value.code, refused.value.remedy) == ("query_unavailable", "have the operator restart the daemon")
    assert "sqlite3" in refused.value.message
