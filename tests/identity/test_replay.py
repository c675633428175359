"""A nonce acts once: what a repeated command gets, what is forgotten when, and what never."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from immured.errors import Refused
from immured.identity.replay import AlreadyDone, Claim, Held, InProgress, ReplayRecord
from immured.wire.messages import SKEW_MS, Receipt

KEY, NONCE, DIGEST = "ed25519:a", b"n" * 16, b"d" * 32
NOW, EXP = 1_000_000_000, 1_000_060_000
RECEIPT = Receipt(3, b"l" * 32)


def take(record: ReplayRecord, nonce: bytes = NONCE, *, key: str = KEY, exp: int = EXP, now: int = NOW) -> Claim:
    verdict = record.claim(key, nonce, DIGEST, 1000, exp, now)
    assert isinstance(verdict, Claim)
    return verdict


def again(record: ReplayRecord, *, digest: bytes = DIGEST, uid: int = 1000, now: int = NOW) -> object:
    return record.claim(KEY, NONCE, digest, uid, EXP, now)


def code(call: object) -> str:
    assert callable(call)
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.code


def test_while_it_runs_the_same_command_is_in_progress() -> None:
    record = ReplayRecord()
    take(record).intent = RECEIPT
    assert again(record) == InProgress(RECEIPT)


def test_afterwards_it_gets_the_held_reply() -> None:
    record = ReplayRecord()
    record.finish(take(record), b"reply", RECEIPT)
    assert again(record) == Held(b"reply")


def test_other_bytes_under_the_same_nonce_are_a_replay() -> None:
    record = ReplayRecord()
    take(record)
    assert code(lambda: again(record, digest=b"x" * 32)) == "replayed"


def test_another_user_with_the_same_bytes_is_a_replay() -> None:
    record = ReplayRecord()
    record.finish(take(record), b"reply", RECEIPT)
    assert code(lambda: again(record, uid=1001)) == "replayed"


def test_another_key_may_use_the_same_nonce() -> None:
    record = ReplayRecord()
    take(record)
    take(record, key="ed25519:b")


def test_a_released_nonce_is_new_again() -> None:
    record = ReplayRecord()
    record.release(take(record))
    take(record)


def test_released_nonces_leave_nothing_behind() -> None:
    record = ReplayRecord(per_key=2)
    for number in range(100):
        record.release(take(record, number.to_bytes(16, "big")))
    assert len(record) == 0


def test_a_full_key_is_refused_and_no_other() -> None:
    record = ReplayRecord(per_key=2)
    take(record, b"1" * 16)
    take(record, b"2" * 16)
    assert code(lambda: take(record, b"3" * 16)) == "busy"
    take(record, b"3" * 16, key="ed25519:b")


def test_a_full_key_still_answers_what_it_knows() -> None:
    record = ReplayRecord(per_key=1)
    record.finish(take(record), b"reply", RECEIPT)
    assert again(record) == Held(b"reply")


def test_nothing_is_forgotten_while_its_window_is_open() -> None:
    record = ReplayRecord()
    record.finish(take(record), b"reply", RECEIPT)
    record.forget(EXP + SKEW_MS - 1)
    assert again(record, now=EXP + SKEW_MS - 1) == Held(b"reply")


def test_what_no_window_lets_in_is_forgotten() -> None:
    record = ReplayRecord()
    record.finish(take(record), b"reply", RECEIPT)
    record.forget(EXP + SKEW_MS + 1000)
    assert (len(record), record.held_bytes) == (0, 0)


def test_a_clock_that_is_set_back_brings_no_replay() -> None:
    record = ReplayRecord()
    record.finish(take(record), b"reply", RECEIPT)
    record.forget(EXP + SKEW_MS + 5000)
    assert code(lambda: again(record, now=NOW)) == "expired"


def test_a_run_that_outlives_its_window_holds_no_reply() -> None:
    record = ReplayRecord()
    claim = take(record)
    record.forget(EXP + SKEW_MS + 1000)
    record.finish(claim, b"reply", RECEIPT)
    assert record.held_bytes == 0


def test_held_replies_go_first_come_first_gone() -> None:
    record = ReplayRecord(held_bytes=10)
    first = take(record)
    record.finish(first, b"123456", RECEIPT)
    record.finish(take(record, b"m" * 16), b"654321", None)
    assert again(record) == AlreadyDone(None, RECEIPT)
    assert record.held_bytes == 6


def test_a_reply_beyond_the_bound_is_not_held() -> None:
    record = ReplayRecord(held_bytes=4)
    record.finish(take(record), b"12345", RECEIPT)
    assert again(record) == AlreadyDone(None, RECEIPT)


def test_what_the_ledger_held_is_already_done() -> None:
    record = ReplayRecord()
    record.restore(KEY, NONCE, DIGEST, 1000, EXP, intent=RECEIPT, now=NOW)
    assert again(record) == AlreadyDone(RECEIPT, None)


def test_what_the_ledger_held_is_no_other_users() -> None:
    record = ReplayRecord()
    record.restore(KEY, NONCE, DIGEST, 1000, EXP, intent=RECEIPT, now=NOW)
    assert code(lambda: again(record, uid=0)) == "replayed"


def test_what_expired_before_the_start_is_not_restored() -> None:
    record = ReplayRecord()
    assert record.restore(KEY, NONCE, DIGEST, 1000, EXP, intent=RECEIPT, now=EXP + SKEW_MS) is None


def test_what_was_not_restored_cannot_act_after_the_clock_is_set_back() -> None:
    record = ReplayRecord()
    record.restore(KEY, NONCE, DIGEST, 1000, EXP, intent=RECEIPT, now=EXP + SKEW_MS)
    assert code(lambda: again(record, now=NOW)) == "expired"


def test_a_step_forward_and_back_makes_nobody_forget_and_nobody_wait() -> None:
    record, hour = ReplayRecord(), 3_600_000
    record.finish(take(record), b"reply", RECEIPT)
    record.forget(NOW + hour, 5000)  # five seconds later, by the clock that nobody sets
    assert again(record, now=NOW + 6000) == Held(b"reply")
    take(record, b"m" * 16, exp=NOW + 7000, now=NOW + 6000)  # a short life is long enough


def test_after_a_step_back_what_was_signed_before_it_is_kept_for_as_long_as_it_is_good() -> None:
    record, hour = ReplayRecord(), 3_600_000
    record.claim(KEY, NONCE, DIGEST, 1000, EXP, NOW, steady=0)
    back = NOW - hour
    for steady in range(0, hour + 180_000, 10_000):
        record.forget(back + steady, steady)
        if back + steady < EXP + SKEW_MS:
            assert isinstance(record.claim(KEY, NONCE, DIGEST, 1000, EXP, back + steady, steady=steady), InProgress)
    assert len(record) == 0


def test_keys_by_certificate_share_the_bound_of_whose_they_are() -> None:
    record = ReplayRecord(per_key=3)
    for number in range(3):
        record.claim(f"ed25519:{number}", NONCE, DIGEST, 1, EXP, NOW, account=KEY)
    assert code(lambda: record.claim("ed25519:4", NONCE, DIGEST, 1, EXP, NOW, account=KEY)) == "busy"
    assert code(lambda: take(record)) == "busy"
    take(record, key="ed25519:another")


def test_nobody_has_more_than_what_stays_free_after_him() -> None:
    record = ReplayRecord(per_key=100, total=100)

    def fill(key: str) -> int:
        for number in range(101):
            try:
                take(record, number.to_bytes(16, "big"), key=key)
            except Refused as error:
                assert error.code == "busy"  # noqa: PT017 - it is what ends the loop
                return number
        raise AssertionError("no bound")

    assert [fill("a"), fill("b"), fill("c")] == [50, 25, 13]


def test_how_full_it_is_is_told() -> None:
    record = ReplayRecord(per_key=2, total=10, held_bytes=100)
    record.finish(take(record), b"reply", RECEIPT)
    take(record, b"2" * 16)
    take(record, key="ed25519:b")
    assert code(lambda: take(record, b"3" * 16)) == "busy"
    told = {"nonces": 3, "nonces_max": 10, "keys": 2, "fullest": 2, "per_key": 2, "refused": 1}
    assert record.measure() == told | {"held_bytes": 5, "held_bytes_max": 100}


def test_a_start_with_the_clock_far_behind_holds_no_more_than_the_bound() -> None:
    """The newest stay; what went is as good as expired."""
    record = ReplayRecord(per_key=10)
    for number in range(1000):
        exp = EXP + number * 1000
        record.restore(KEY, number.to_bytes(16, "big"), DIGEST, 1000, exp, intent=RECEIPT, now=0)
        assert len(record) <= 10
    newest, older = (999).to_bytes(16, "big"), (500).to_bytes(16, "big")
    assert record.claim(KEY, newest, DIGEST, 1000, EXP + 999_000, NOW) == AlreadyDone(RECEIPT, None)
    assert code(lambda: record.claim(KEY, older, DIGEST, 1000, EXP + 500_000, NOW)) == "expired"


class Replays(RuleBasedStateMachine):
    """Whatever happens in whatever order: a nonce is given out at most once while its window is open."""

    def __init__(self) -> None:
        super().__init__()
        self.record = ReplayRecord(per_key=8, held_bytes=20)
        self.now = NOW
        self.steady = 0
        self.open: list[Claim] = []
        self.acted: dict[tuple[int, int], int] = {}

    @rule(key=st.integers(0, 1), nonce=st.integers(0, 5), life=st.integers(0, 300_000))
    def order(self, key: int, nonce: int, life: int) -> None:
        known = self.acted.get((key, nonce))
        exp = self.now + life if known is None else known
        if not self.now < exp + SKEW_MS:
            return
        try:
            verdict = self.record.claim(f"k{key}", bytes([nonce]) * 16, DIGEST, 0, exp, self.now, steady=self.steady)
        except Refused:
            return  # full, or a time that was forgotten
        if isinstance(verdict, Claim):
            assert known is None, "acted twice"
            self.acted[key, nonce] = exp
            self.open.append(verdict)

    @precondition(lambda self: self.open)
    @rule(size=st.integers(0, 25))
    def answer(self, size: int) -> None:
        self.record.finish(self.open.pop(), b"r" * size, RECEIPT)

    @precondition(lambda self: self.open)
    @rule()
    def give_back(self) -> None:
        claim = self.open.pop()
        self.record.release(claim)
        del self.acted[int(claim.key_id[1:]), claim.nonce[0]]

    @rule(step=st.integers(-600_000, 600_000))
    def clock_is_set(self, step: int) -> None:
        self.now = max(NOW, self.now + step)

    @rule(passes=st.integers(0, 400_000))
    def time_passes(self, passes: int) -> None:
        self.now += passes
        self.steady += passes

    @invariant()
    def bounded(self) -> None:
        assert 0 <= self.record.held_bytes <= 20
        assert len(self.record) <= 16


Replays.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestReplays = Replays.TestCase
