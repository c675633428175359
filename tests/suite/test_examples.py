"""How long one of hypothesis's examples takes is no reason to fail, in CI and elsewhere."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.just(0))
@settings(max_examples=1)
def test_an_example_may_take_its_time(number: int) -> None:
    time.sleep(0.3)  # more than hypothesis lets one have by itself
    assert settings().deadline is None
