"""One real daemon for the folder, and the command line with its admin's key."""

from __future__ import annotations

from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.daemon import client, daemon
from tests.signed.line import Line

__all__ = ["client", "daemon", "immure"]


@pytest.fixture
def immure(daemon: ThrowawayDaemon, tmp_path: Path) -> Line:
    return Line(daemon, tmp_path)
