"""A clerk that is killed at any moment leaves the host as it was, or as it was to be: once the next one has looked."""

from __future__ import annotations

import os
import random

from immured.client.errors import Refusal
from tests.changes.project import Captured, accepting, tree

_FILES = 40
_MOMENTS = 16


def test_killed_at_any_moment(captured: Captured) -> None:
    """In every sixteenth of what it does, by its calls of the kernel's; before, it is left alone twice."""
    chance = random.Random(7)
    refused: set[str] = set()
    calls, undone, done = 0, 0, 0

    def accept() -> None:
        try:
            captured.accept()
        except Refusal as refusal:
            refused.add(refusal.code)
            raise

    def reached(call: int) -> bool:
        return clerk.calls > moment

    for turn in range(_MOMENTS + 2):
        captured.sh(
            f"for i in $(seq {_FILES}); do echo {turn} > f$i; done; rm -rf d{turn - 1}; "
            f"mkdir d{turn}; echo {turn} > d{turn}/x; echo {turn} > a.txt; chmod {700 + turn % 2 * 55} dir"
        )
        before = tree(captured.path)
        with accepting(captured, accept) as clerk:
            if turn < 2:  # to see how many there are, where there were files before
                assert not clerk.goes_on_until(lambda call: False)
                calls = clerk.calls
            else:
                moment = calls * (turn - 2 + chance.random()) / _MOMENTS
                clerk.goes_on_until(reached)
                clerk.kill()
        left = captured.once_free()  # the next clerk
        assert not [one for one in os.listdir(captured.path) if one.startswith(".immured-")]
        if left:
            undone += 1
            assert tree(captured.path) == before
            captured.accept()
        else:
            done += 1
        assert (captured.path / "a.txt").read_text() == f"{turn}\n"
        assert captured.kinds() == {}
    assert refused == {"clerk_lost"}
    assert undone > 2
    assert done > 2
