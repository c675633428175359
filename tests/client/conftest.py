"""A scripted daemon for each test that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.client.peer import Peer, Served

Serving = Callable[[Callable[[Served], None]], Peer]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """Starts a scripted daemon; it ends with the test."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(Peer(tmp_path, script))
