"""A start that reads on from a resume and sees again what it needs knows what one knows that reads everything."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from immured.errors import ConfigurationError
from immured.identity.authority import Authority
from immured.identity.keyring import Keyring
from immured.identity.replay import ReplayRecord
from immured.ledger import Ledger
from immured.ledger.keeping import Keep, Kept, Need
from immured.ledger.saving import Pace
from immured.service import needed
from immured.service.policies import shipped_policy
from immured.service.recovery import Recovery
from immured.wire.messages import SKEW_MS
from tests.ledger.memory import MemoryStorage
from tests.ledger.sample import KEY, created, vkeys
from tests.patience import PATIENCE_S
from tests.service.histories import DAY, START_MS, History

POLICY = shipped_policy()


class Started:
    """A recovery, and what it was made of."""

    def __init__(self, storage: MemoryStorage, now: Callable[[], int]) -> None:
        self.replay = ReplayRecord()
        self.recovery = Recovery(self.replay, Authority(Keyring(()), POLICY), now)
        self.ledger = Ledger.open_in(
            storage,
            KEY,
            vkeys(storage),
            clock=lambda: now() * 1_000_000,
            keeper=self.recovery,
            checkpoint_seconds=1e9,
            checkpoint_entries=1 << 30,
            whole_bytes=0,
            pace=Pace(entries=1, aside=False),
        )

    def knows(self, now_ms: int) -> dict[str, Any]:
        """Everything, as values that can be compared."""
        recovery, authority = self.recovery, self.recovery.authority
        authority.forget(now_ms)
        lived, manifests = recovery.lived, recovery.manifests
        return {
            "nonces": {
                (key, nonce): (one.digest, one.uid, one.exp, one.account, one.intent, one.outcome)
                for key, nonces in self.replay._keys.items()
                for nonce, one in nonces.items()
            },
            "runs": recovery.lost,
            "batches": {
                seq: (one.name, one.runs, one.told, one.claim is not None)
                for seq, one in recovery.batches._open.items()
            },
            **{
                kind: {
                    seq: (one.data, one.number, one.ready, one.claim is not None)
                    for seq, one in getattr(lived, kind).items()
                }
                for kind in ("sandboxes", "execs", "commands")
            },
            "keyring": (authority.keyring.as_of, authority.keyring.to_json()),
            "barred": (authority.barred, authority.barred_under),
            "grants": list(authority.grants),
            "proposals": list(authority.proposals),
            "sessions": list(authority.sessions),
            "consents": {one for one in authority.consents._by.values() if one.holds(now_ms)},
            "wordings": authority.consents.wordings,
            "uses": {
                (root, digest): used
                for root, found in authority.uses.to_map().items()
                for digest, (used, exp) in found.items()
                if now_ms < exp
            },
            "manifests": list(manifests),
            "revoked": manifests._revoked,
            "policies": recovery.policies,
            "daemon_key": recovery.rotation,
            "exports": (recovery.exports.begun, recovery.exports.failed),
            "witnesses": vars(recovery.witnesses),
            "audit": vars(recovery.audit),
        }


def copied(storage: MemoryStorage) -> MemoryStorage:
    """As a crash of the daemon alone leaves it."""
    other = MemoryStorage()
    assert storage.cache is not None
    other.files = dict(storage.files)
    other.cache, other.disk = bytearray(storage.cache), bytearray(storage.cache)
    return other


def history(seed: int) -> tuple[MemoryStorage, History]:
    """A ledger of such a history, through restarts; the last daemon is killed."""
    chance = random.Random(seed)
    storage, made = created(), History(chance)
    started = Started(storage, lambda: made.now_ms)
    for seq in range(1, chance.randint(10, 120)):
        kind, actor, data = made.next(seq)
        pending = started.ledger.entry(kind, actor, data)
        assert pending.wait(PATIENCE_S).seq == seq
        what = chance.random()
        if what < 0.05:
            started.ledger.close()
            started = Started(storage, lambda: made.now_ms)
        elif what < 0.1:
            with started.ledger.turn():
                started.ledger.durable.sign()
    return copied(storage), made


def both(seed: int) -> tuple[Started, Started, int, bool]:
    """Two starts after such a history, a while later: by the resume, and by all entries; when, and whether there was
    one."""
    storage, made = history(seed)
    now = made.now_ms + made.chance.choice([0, 0, 1_000, 120_000, 3_600_000, 2 * DAY])
    by_all = copied(storage)
    resumed = by_all.files.pop("resume", None) is not None
    return Started(storage, lambda: now), Started(by_all, lambda: now), now, resumed


@pytest.mark.parametrize("hundred", range(4))
def test_what_is_needed_is_seen_again(hundred: int) -> None:
    count = 0
    for seed in range(100 * hundred, 100 * hundred + 60):
        swift, whole, now, resumed = both(seed)
        count += resumed
        assert swift.knows(now) == whole.knows(now), f"seed {seed}"
        assert whole.replay._horizon <= swift.replay._horizon
        assert swift.replay._horizon <= now, "nothing that could be given now may be refused as expired"
        swift.ledger.close()
        whole.ledger.close()
    assert count > 40


@pytest.mark.parametrize("kind", sorted(needed._KINDS))
def test_were_one_kind_of_entry_forgotten_it_would_be_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(needed._KINDS, kind)
    for seed in range(1_000, 1_200):
        try:
            swift, whole, now, _ = both(seed)
        except ConfigurationError:
            return  # such as an approval of what nobody proposed
        if swift.knows(now) != whole.knows(now):
            return
    pytest.fail("nothing needs it")


def test_a_ledger_of_runs_needs_those_of_the_last_minutes() -> None:
    storage, now = created(), START_MS
    started = Started(storage, lambda: now)
    for number in range(200):
        now += 10_000
        order = {"cmd": "run", "nonce": f"{number:032x}", "payload": "22" * 32, "iat": now, "exp": now + 30_000}
        actor = {"key": "ed25519:" + "a" * 32, "name": "ci", "uid": 1000}
        intent = started.ledger.entry("run.accepted", actor, {**order, "sandbox": "s"}).wait(PATIENCE_S)
        started.ledger.entry("run.finished", {"daemon": "d"}, {"intent": intent.seq}).wait(PATIENCE_S)
    started.ledger.close()
    seen: list[int] = []
    recovery = Recovery(ReplayRecord(), Authority(Keyring(()), POLICY), lambda: now)
    visit = recovery.visit

    def see(entry: Any, needs: int = Need.ALL) -> None:
        seen.append(entry.seq)
        visit(entry, needs)

    recovery.visit = see  # type: ignore[method-assign]
    Ledger.open_in(storage, KEY, vkeys(storage), clock=lambda: now * 1_000_000, keeper=recovery, whole_bytes=0).close()
    window = 2 * (30_000 + SKEW_MS) // 10_000
    assert 18 <= len(seen) <= window + 12  # by the minute
    assert seen == sorted(seen)


def test_what_is_decided_of_an_entry_is_the_same_when_it_is_read_again() -> None:
    made = History(random.Random(7))
    storage = created()
    started = Started(storage, lambda: made.now_ms)
    asked: list[tuple[str, Any]] = []
    keep = started.ledger._keep
    assert keep is not None

    def ask(type_: str, actor: Any, data: Any) -> Any:
        asked.append((type_, decided := keep(type_, actor, data)))
        return decided

    started.ledger._keep = ask
    for seq in range(1, 400):
        started.ledger.entry(*made.next(seq)).wait(PATIENCE_S)
    read = [(one.type, needed.keep(one.type, one.actor, one.data)) for one in started.ledger.replay()]
    started.ledger.close()
    assert len(asked) == 399
    assert not read[1:]  # what was there when it was opened
    again = Ledger.open_in(storage, KEY, vkeys(storage))
    read = [(one.type, needed.keep(one.type, one.actor, one.data)) for one in again.replay()][1:]
    again.close()
    assert [one for one in read if one[0] != "clock.stepped"] == asked


def test_what_is_decided_is_swift_for_runs() -> None:
    """Not measured but counted: two look-ups, no text is made."""
    order = {"cmd": "run", "exp": START_MS, "sandbox": "s"}
    assert needed.keep("run.accepted", {"key": "k"}, order) == Keep(START_MS + SKEW_MS, True)
    outcome = needed.keep("run.finished", {"daemon": "d"}, {"intent": 4})
    assert outcome is not None
    assert (outcome.tie.name, outcome.intent, outcome.keyed) == ("OUTCOME", 4, ())


def test_every_line_that_is_kept_is_one_of_the_ledger() -> None:
    storage, made = history(11)
    started = Started(storage, lambda: made.now_ms)
    assert started.ledger.keeping is not None
    kept: list[Kept] = started.ledger.keeping.below(1 << 62)
    lines = storage.content()
    started.ledger.close()
    for one in kept:
        assert f'"seq":{one.seq},'.encode() in lines[one.offset :].partition(b"\n")[0]
