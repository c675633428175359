"""Sessions: whose they are, when they are over, and that what carries one is attributed to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from immured.service.context import now_ms
from immured.wire.keys import PrivateKey
from tests.service.harness import Harness, serving
from tests.service.orders import TENANTS, code_of, done, error_of, let_in, started_again, under

MINUTE = 60_000


def test_what_carries_a_session_is_attributed_to_it(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "runner")
        opened = await done(bob, "session.open", {"note": "ticket 7"})
        assert (await bob.ask("run", {"argv": ["/bin/true"]}, session=opened["session"])).ok
        [entry] = harness.of_type("run.accepted")
        assert entry["actor"]["session"] == opened["session"]

    serving(tmp_path, scenario)


def test_a_session_that_nobody_uses_is_over(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        begin = now_ms()
        opened = await done(bob, "session.open", {"idle_ms": 10 * MINUTE, "ttl_ms": 30 * MINUTE})
        for at, code in ((9, None), (18, None), (29, "session_expired")):
            harness.service.clock = lambda at=at: begin + at * MINUTE  # type: ignore[misc]
            reply = await bob.ask("status", {}, session=opened["session"])
            assert reply.ok if code is None else code_of(reply) == code

    serving(tmp_path, scenario)


def test_a_session_ends_at_its_time_however_much_it_is_used(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        opened = await done(bob, "session.open", {"ttl_ms": MINUTE})
        end = opened["expires_ms"]
        assert (await bob.ask("status", {}, session=opened["session"])).ok
        harness.service.clock = lambda: end
        refused = error_of(await bob.ask("status", {}, session=opened["session"]))
        assert (refused["code"], refused["details"]["over_ms"]) == ("session_expired", end)

    serving(tmp_path, scenario)


def test_a_session_that_was_closed_is_over(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        opened = await done(bob, "session.open", {})
        await done(bob, "session.close", {"session": opened["session"]})
        assert code_of(await bob.ask("status", {}, session=opened["session"])) == "session_expired"
        assert code_of(await bob.ask("session.close", {"session": opened["session"]})) == "wrong_state"
        assert (await done(bob, "session.show", {"session": opened["session"]}))["open"] is False
        assert (await done(bob, "session.list", {}))["sessions"] == []

    serving(tmp_path, scenario)


@pytest.mark.parametrize("whose", ["another-key", "another-tenant", "nobody"])
def test_one_that_is_not_ones_own_is_unknown_in_the_same_words(tmp_path: Path, whose: str) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS)
        bob = await let_in(harness, "bob", "viewer", tenants=["acme", "beta"])
        carol = await let_in(harness, "carol", "viewer", tenants=["acme"])
        if whose == "another-key":
            session = (await done(carol, "session.open", {}))["session"]
        elif whose == "another-tenant":
            session = (await done(bob, "session.open", {}, tenant="beta"))["session"]
        else:
            session = "session-0123456789abcdef"
        refused = error_of(await bob.ask("status", {}, tenant="acme", session=session))
        assert refused["message"] == f"no session of this key and tenant is called {session!r}"
        assert refused["code"] == "session_unknown"

    serving(tmp_path, scenario)


def test_a_successor_goes_on_with_the_sessions(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        opened = await done(bob, "session.open", {})
        heir = PrivateKey.generate()
        await done(harness.connect(), "key.rotate", {"key": "bob", "public": heir.public.raw})
        assert (await harness.connect(key=heir).ask("status", {}, session=opened["session"])).ok

    serving(tmp_path, scenario)


def test_sessions_are_seen_as_far_as_policy_says(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS)
        bob = await let_in(harness, "bob", "viewer", tenants=["acme"])
        carol = await let_in(harness, "carol", "viewer", tenants=["acme"])
        head = await let_in(harness, "head", "tenant-admin", tenants=["acme"])
        other = await let_in(harness, "other", "tenant-admin", tenants=["beta"])
        session = (await done(bob, "session.open", {}))["session"]
        assert [len((await done(one, "session.list", {}))["sessions"]) for one in (bob, carol, head, other)] == [
            1,
            0,
            1,
            0,
        ]
        assert code_of(await carol.ask("session.show", {"session": session})) == "not_found"
        assert code_of(await other.ask("session.close", {"session": session})) == "not_found"
        assert (await head.ask("session.close", {"session": session})).ok

    serving(tmp_path, scenario)


def test_the_list_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "viewer")
        opened = [(await done(bob, "session.open", {}))["session"] for _ in range(4)]
        first = await done(bob, "session.list", {"limit": 3})
        await done(bob, "session.close", {"session": first["next"]})
        rest = await done(bob, "session.list", {"limit": 3, "after": first["next"]})
        assert [one["session"] for one in (*first["sessions"], *rest["sessions"])] == opened
        assert code_of(await bob.ask("session.list", {"after": "session-none"})) == "bad_argument"

    serving(tmp_path, scenario)


def test_a_start_knows_the_sessions_and_when_they_were_used(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        bob = await let_in(harness, "bob", "runner")
        opened, closed = await done(bob, "session.open", {"note": "n"}), await done(bob, "session.open", {})
        await done(bob, "session.close", {"session": closed["session"]})
        while now_ms() < opened["used_ms"] + 20:
            await done(bob, "status", {})
        assert (await bob.ask("run", {"argv": ["/bin/true"]}, session=opened["session"])).ok
        later = now_ms()
        authority = started_again(harness)
        found = authority.sessions.get(opened["session"])
        assert found is not None
        assert opened["used_ms"] + 20 <= found.used_ms <= later
        assert found.note == "n"
        assert [one.id for one in authority.sessions.open_ones(now_ms())] == [opened["session"]]

    serving(tmp_path, scenario)
