"""Credit: who may pass, who waits, and in which order they are let go. Time is a number here."""

from __future__ import annotations

from collections.abc import Callable

from immured.service.turnstile import ALL, ATTEMPT, GLANCE, PER_SECOND, Turnstile


class Clock:
    """Milliseconds, and what is to happen when."""

    def __init__(self) -> None:
        self.now = 0
        self.due: list[tuple[int, Callable[[], None]]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.due.append((self.now + round(1000 * seconds), call))

    def pass_ms(self, ms: int) -> None:
        end = self.now + ms
        while ready := [one for one in self.due if one[0] <= end]:
            first = min(ready, key=lambda one: one[0])
            self.due.remove(first)
            self.now = first[0]
            first[1]()
        self.now = end


def turnstile(burst: int = 4) -> tuple[Turnstile, Clock]:
    clock = Clock()
    return Turnstile(burst, clock=lambda: clock.now, later=clock.later), clock


def spend(gate: Turnstile, uid: int, attempts: int) -> None:
    for _ in range(attempts):
        gate.take(uid, ATTEMPT)


class Knocks:
    """One who tries again whenever he is let go, and never proves anything."""

    def __init__(self, gate: Turnstile, uid: int, *, honest: bool = False) -> None:
        self.let_go = 0
        self._gate, self._uid, self._honest = gate, uid, honest

    def __call__(self) -> None:
        self.let_go += 1
        if not self._honest:
            self._gate.take(self._uid, ATTEMPT)
            self._gate.wait(self._uid, self)


def test_credit_is_a_burst_and_comes_back() -> None:
    gate, clock = turnstile(4)
    assert gate.passes(1)
    spend(gate, 1, 4)
    assert not gate.passes(1)
    assert gate.passes(2)
    clock.pass_ms(1000 // PER_SECOND)
    assert gate.passes(1)


def test_what_was_not_for_nothing_comes_back_at_once() -> None:
    gate, _ = turnstile(4)
    spend(gate, 1, 4)
    gate.take(1, -ATTEMPT)
    assert gate.passes(1)


def test_a_hundred_glances_are_an_attempt() -> None:
    gate, _ = turnstile(1)
    for _ in range(ATTEMPT // GLANCE - 1):
        gate.take(1, GLANCE)
    gate.take(1, -ATTEMPT)
    spend(gate, 1, 1)
    assert not gate.passes(1)


def test_a_flood_is_let_go_at_the_pace_of_the_credit() -> None:
    gate, clock = turnstile(4)
    spend(gate, 1, 4)
    flood = [Knocks(gate, 1) for _ in range(200)]
    for one in flood:
        gate.wait(1, one)
    clock.pass_ms(10_000)
    assert abs(sum(one.let_go for one in flood) - 10 * PER_SECOND) <= 2
    assert max(one.let_go for one in flood) <= 3  # each in its turn


def test_those_who_prove_themselves_do_not_wait_for_each_other() -> None:
    gate, clock = turnstile(4)
    spend(gate, 1, 4)
    honest = [Knocks(gate, 1, honest=True) for _ in range(50)]
    for one in honest:
        gate.wait(1, one)
    clock.pass_ms(100)
    assert all(one.let_go == 1 for one in honest)
    assert len(gate) == 0
    assert clock.due == []  # nothing turns where nobody waits


def test_while_somebody_of_his_waits_a_user_does_not_pass_him() -> None:
    gate, clock = turnstile(4)
    spend(gate, 1, 4)
    gate.wait(1, Knocks(gate, 1, honest=True))
    gate.take(1, -4 * ATTEMPT)
    assert not gate.passes(1)
    clock.pass_ms(50)
    assert gate.passes(1)


def test_users_are_let_go_in_turn_and_all_together_cost_no_more_than_a_few() -> None:
    gate, clock = turnstile(4)
    users = range(100, 160)
    floods = {uid: Knocks(gate, uid) for uid in users}
    for uid, flood in floods.items():
        spend(gate, uid, 4)
        gate.wait(uid, flood)
    clock.pass_ms(10_000)
    let_go = [one.let_go for one in floods.values()]
    assert sum(let_go) <= 10 * ALL * PER_SECOND + 1
    assert min(let_go) >= 10 * ALL * PER_SECOND // len(users) - 2
