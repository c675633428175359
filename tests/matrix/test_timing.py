"""How long it takes to say that something is not there does not tell whether it is somebody else's.

What is timed are heaps of requests that are all alike: the disk's share of each is small so, and what the daemon does
for it is not. Heaps about another tenant's and about none follow each other closely, in an order that is tossed, so
that what a busy host does to the one it does to the other; of each pair of heaps the difference is taken, and of those
the median, which a host that stands still for a while does not move. It is judged once it is known well enough.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from immured.wire.keys import PrivateKey
from tests.matrix.raw import WINDOW, Raw, code
from tests.matrix.stage import Stage
from tests.matrix.table import OTHERS
from tests.matrix.things import ABSENT, MANIFEST

pytestmark = pytest.mark.needs_root

BOUND_S: Final = 100e-6
"""The most that the medians of one request may differ, which takes some 500 us of the daemon's time."""
ERROR_S: Final = BOUND_S / 4
"""Known as well as that, no more pairs are asked for."""
HEAP: Final = WINDOW // 2
LEAST: Final = 20
MOST: Final = 60
"""Pairs of heaps."""

MADE: Final[Mapping[str, tuple[str, Mapping[str, object], tuple[str, ...]]]] = {
    "sandbox.show": ("sandbox.create", {"manifest": MANIFEST}, ("sandboxes", "0", "sandbox")),
    "session.show": ("session.open", {}, ("session",)),
    "proposal.show": ("proposal.create", {"cmd": "plan", "args": {}, "reason": "test"}, ("proposal",)),
    "volume.remove": ("volume.create", {"name": "theirs", "bytes": 1 << 24}, ("name",)),
}
"""How there is something to ask for, and where the answer has its id."""
CODES: Final = {"volume.remove": "unknown_volume"}


class Heaps:
    """Asks in heaps, as one key."""

    def __init__(self, raw: Raw, key: PrivateKey, cmd: str, wanted: str) -> None:
        self._raw, self._key, self._cmd, self._wanted = raw, key, cmd, wanted

    def took(self, args: Mapping[str, object], **names: Any) -> float:
        """Seconds that one request takes, in a heap of them."""
        orders = [self._raw.order(self._key, self._cmd, args, **names) for _ in range(HEAP)]
        began = time.perf_counter()
        replies = self._raw.ask(orders)
        took = time.perf_counter() - began
        assert {code(reply) for reply in replies} == {self._wanted}
        return took / HEAP

    def difference(self, theirs: Mapping[str, Any], none: Mapping[str, Any]) -> float:
        """The median of the differences, without what may be chance. Both are arguments of `took`."""
        dice = random.Random(5)
        found: list[float] = []
        for asked in (theirs, none):
            self.took(**asked)
        error = BOUND_S
        while len(found) < MOST and (len(found) < LEAST or error > ERROR_S):
            for _ in range(5):
                order = [theirs, none] if dice.random() < 0.5 else [none, theirs]
                times = [(asked is theirs, self.took(**asked)) for asked in order]
                found.append(sum(took if is_theirs else -took for is_theirs, took in times))
            error = _error(found, dice)
        return max(0.0, abs(statistics.median(found)) - 3 * error)


def _error(values: list[float], dice: random.Random) -> float:
    """The standard error of the median, bootstrapped."""
    return statistics.stdev(statistics.median(dice.choices(values, k=len(values))) for _ in range(50))


@pytest.fixture(scope="module")
def raw(stage: Stage) -> Iterator[Raw]:
    with Raw(stage.daemon.socket) as connection:
        yield connection


def _in(answer: Any, path: tuple[str, ...]) -> str:
    for step in path:
        answer = answer[int(step)] if step.isdigit() else answer[step]
    return str(answer)


@pytest.mark.parametrize("cmd", MADE)
def test_anothers_takes_as_long_as_none(stage: Stage, raw: Raw, cmd: str) -> None:
    mine, theirs = stage.let_in("tenant-admin"), stage.let_in("tenant-admin", OTHERS)
    how, args, path = MADE[cmd]
    thing = _in(stage.must(theirs, how, args), path)
    field = path[-1]
    none = thing[:-4] + "none" if field == "name" else thing[:-4] + ("0000" if thing[-4:] != "0000" else "1111")
    heaps = Heaps(raw, mine, cmd, CODES.get(cmd, "not_found"))
    beyond = heaps.difference({"args": {field: thing}}, {"args": {field: none}})
    assert beyond < BOUND_S, f"{beyond * 1e6:.0f} us"


def test_anothers_key_takes_as_long_as_none(stage: Stage, raw: Raw) -> None:
    mine, theirs = stage.let_in("tenant-admin"), stage.let_in("worker", OTHERS)
    heaps = Heaps(raw, mine, "key.show", "not_found")
    beyond = heaps.difference({"args": {"key": theirs.id}}, {"args": {"key": ABSENT["key"]}})
    assert beyond < BOUND_S, f"{beyond * 1e6:.0f} us"


def test_anothers_tenant_takes_as_long_as_none(stage: Stage, raw: Raw) -> None:
    heaps = Heaps(raw, stage.let_in("tenant-admin"), "status", "denied")
    beyond = heaps.difference({"args": {}, "tenant": OTHERS}, {"args": {}, "tenant": "nowhere"})
    assert beyond < BOUND_S, f"{beyond * 1e6:.0f} us"
