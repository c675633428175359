"""The stage, once for the folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.matrix.stage import Stage, staged


@pytest.fixture(scope="package")
def stage() -> Iterator[Stage]:
    with staged() as set_up:
        yield set_up
