"""One real daemon for the folder, and a sandbox for each test that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from immured import Client
from immured.client.sandbox import Sandbox
from immured.client.throwaway import ThrowawayDaemon
from tests.daemon import client, daemon
from tests.entries import entries_in
from tests.patience import UNHURRIED

__all__ = ["client", "daemon", "entries", "sandbox"]


@pytest.fixture
def sandbox(client: Client) -> Iterator[Sandbox]:
    with client.sandbox(manifest=UNHURRIED) as made:
        yield made


@pytest.fixture
def entries(daemon: ThrowawayDaemon) -> Callable[..., list[dict[str, Any]]]:
    """The ledger's entries of one type, about one sandbox."""

    def of(kind: str, sandbox: str | None = None) -> list[dict[str, Any]]:
        found = [one for one in entries_in(daemon.state) if one["type"] == kind]
        return [one for one in found if sandbox is None or one["data"].get("sandbox") == sandbox]

    return of
