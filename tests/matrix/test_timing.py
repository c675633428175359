"""How long it takes to say that something is not there does not tell whether it is somebody else's.

What is timed are heaps of requests that are all alike, in pairs: one about another tenant's, one about none, and a
toss says which comes first. What a busy host does to the first of a pair or to the second it so does to either kind as
often, whatever it does: where another's takes longer by a fifth at most, it takes longer by more than that in half of
the pairs at most, in each by a toss of its own. As many as are too many come by less than CHANCE.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pytest

from immured.wire.keys import PrivateKey
from tests.matrix.raw import Raw, code
from tests.matrix.stage import Stage
from tests.matrix.table import OTHERS
from tests.matrix.things import ABSENT, MANIFEST

pytestmark = pytest.mark.needs_root

BOUND: Final = 1.2
"""So many times as long as the other one of them may take, which is some 500 us of the daemon's time."""
HEAP: Final = 16
PAIRS: Final = 200
CHANCE: Final = 1e-9
"""Of a test's failing where nothing is wrong, at most, whatever the host is at."""


def too_many(pairs: int, chance: float) -> int:
    """As many heads of so many tosses come with less than `chance`."""
    ways, least = 0, pairs + 1
    while (ways + math.comb(pairs, least - 1)) / 2**pairs < chance:
        least -= 1
        ways += math.comb(pairs, least)
    return least


TOO_MANY: Final = too_many(PAIRS, CHANCE / 2)
"""Pairs in which the same one takes longer; either may."""


def differ(theirs: Callable[[], float], none: Callable[[], float], toss: Callable[[], bool]) -> str:
    """Which of the two takes longer than BOUND allows, in words; empty: neither. Asks as often as it takes to know."""
    slow = {"another's": 0, "none's": 0}
    for left in reversed(range(PAIRS)):
        if toss():
            one = theirs()
            other = none()
        else:
            other = none()
            one = theirs()
        slow["another's"] += one > BOUND * other
        slow["none's"] += other > BOUND * one
        for whose, count in slow.items():
            if count >= TOO_MANY:
                return f"{whose} took longer in {count} of {PAIRS - left} pairs"
        if left + max(slow.values()) < TOO_MANY:
            break
    return ""


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
        """Seconds that a heap of requests takes."""
        orders = [self._raw.order(self._key, self._cmd, args, **names) for _ in range(HEAP)]
        began = time.perf_counter()
        replies = self._raw.ask(orders)
        took = time.perf_counter() - began
        assert {code(reply) for reply in replies} == {self._wanted}
        return took

    def differ(self, theirs: Mapping[str, Any], none: Mapping[str, Any]) -> str:
        """As `differ` says. Both are arguments of `took`."""
        dice = random.SystemRandom()
        return differ(lambda: self.took(**theirs), lambda: self.took(**none), lambda: dice.random() < 0.5)


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
    assert not heaps.differ({"args": {field: thing}}, {"args": {field: none}})


def test_anothers_key_takes_as_long_as_none(stage: Stage, raw: Raw) -> None:
    mine, theirs = stage.let_in("tenant-admin"), stage.let_in("worker", OTHERS)
    heaps = Heaps(raw, mine, "key.show", "not_found")
    assert not heaps.differ({"args": {"key": theirs.id}}, {"args": {"key": ABSENT["key"]}})


def test_anothers_tenant_takes_as_long_as_none(stage: Stage, raw: Raw) -> None:
    heaps = Heaps(raw, stage.let_in("tenant-admin"), "status", "denied")
    assert not heaps.differ({"args": {}, "tenant": OTHERS}, {"args": {}, "tenant": "nowhere"})


@pytest.mark.parametrize(
    ("slower", "noise", "found"),
    [
        *((1.0, noise, False) for noise in (0.0, 0.1, 0.3, 3.0)),
        *((slower, noise, True) for noise in (0.0, 0.1) for slower in (0.7, 1.4)),
        *((slower, 0.3, True) for slower in (0.5, 2.0)),
    ],
)
def test_a_difference_is_found_and_none_is_not(slower: float, noise: float, found: bool) -> None:
    """Of a host on which each heap takes longer by chance, and the first of a pair always does."""
    dice = random.Random(11)
    turn = iter(range(10**6))

    def takes(seconds: float) -> Callable[[], float]:
        return lambda: seconds * (1 + next(turn) % 2 / 20) * math.exp(dice.gauss(0, noise))

    said = differ(takes(slower), takes(1.0), lambda: dice.random() < 0.5)
    assert bool(said) == found
    assert ("another's" in said) == (slower > 1)


def test_as_many_heads_are_as_rare_as_is_said() -> None:
    assert too_many(3, 0.2) == 3  # one way of eight
    assert too_many(3, 0.1) == 4
    assert PAIRS / 2 < TOO_MANY < 0.75 * PAIRS
