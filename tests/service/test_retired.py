"""A start whose ledger let go of everything that it could knows what one knows that reads all of it."""

from __future__ import annotations

import itertools

import pytest

from immured.identity.authority import Authority
from immured.identity.keyring import Keyring
from immured.identity.replay import ReplayRecord
from immured.ledger import Ledger
from immured.ledger.rotation import Limits
from immured.service.recovery import Recovery
from tests.ledger.memory import MemoryStorage
from tests.ledger.sample import KEY, created, vkeys
from tests.patience import until
from tests.service.histories import DAY
from tests.service.test_needed import POLICY, Started, copied, history


def let_go(storage: MemoryStorage, now_ms: int) -> None:
    """Seal what there is, and remove it: but not what that itself adds."""
    clock = itertools.count(now_ms * 1_000_000).__next__
    ledger = Ledger.open_in(
        storage,
        KEY,
        vkeys(storage),
        clock=clock,
        keeper=Recovery(ReplayRecord(), Authority(Keyring(()), POLICY), lambda: now_ms),
        limits=Limits(size=1),
    )
    until(lambda: storage.sealed)
    assert ledger.retire(clock())
    ledger.close()


@pytest.mark.parametrize("resumed", [True, False])
@pytest.mark.parametrize("ten", range(5))
def test_what_is_let_go_of_is_known(ten: int, resumed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = vkeys(created())  # the first line, which they are named after, is one of those that go
    monkeypatch.setattr("tests.service.test_needed.vkeys", lambda _: keys)
    for seed in range(10 * ten, 10 * ten + 10):
        storage, made = history(seed)
        now = made.now_ms + made.chance.choice([0, 1_000, 120_000, 3_600_000, 2 * DAY])
        everything = copied(storage)
        everything.files.pop("resume", None)
        let_go(storage, made.now_ms)
        assert b"ledger.created" not in storage.content()
        if not resumed:
            storage.files.pop("resume", None)
        storage.locked = False
        less, whole = Started(storage, lambda now=now: now), Started(everything, lambda now=now: now)  # type: ignore[misc]
        assert less.knows(now) == whole.knows(now), f"seed {seed}"
        assert less.replay._horizon <= now
        less.ledger.close()
        whole.ledger.close()
