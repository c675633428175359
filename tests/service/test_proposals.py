"""Dual control: what is proposed, whose approvals count, and that it runs once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from immured.identity.way import Way
from immured.service.context import now_ms
from immured.service.proposed import keep_only
from immured.wire.keys import PrivateKey
from tests.service.harness import Client, Harness, serving
from tests.service.orders import TENANTS, code_of, done, error_of, let_in, started_again, under

HOUR = 3_600_000


def controlled(approvals: int = 1, permission: str = "run") -> str:
    return f"""
[[controls]]
name = "two"
permissions = ["{permission}"]
approvals = {approvals}
approvers = ["secops", "admin"]
window = "8h"
"""


TRUE = {"argv": ["/bin/true"]}
FALSE = {"argv": ["/bin/false"]}
CAT = {"argv": ["/bin/cat"], "stdin": b""}


async def propose(client: Client, args: Any = None, cmd: str = "run", **more: Any) -> Any:
    given = {"cmd": cmd, "args": TRUE if args is None else args, "reason": "the move", **more}
    return await done(client, "proposal.create", given)


def as_approved(proposal: Any) -> dict[str, Any]:
    return {"proposal": proposal["proposal"], "digest": bytes.fromhex(proposal["digest"].removeprefix("sha256:"))}


async def approve(client: Client, proposal: Any) -> Any:
    return await client.ask("proposal.approve", as_approved(proposal))


def test_what_is_approved_runs_once(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, controlled())
        bob, guard = await let_in(harness, "bob", "runner"), await let_in(harness, "guard", "secops")
        refused = error_of(await bob.ask("run", TRUE))
        assert (refused["code"], refused["details"]["control"], refused["details"]["approvals"]) == (
            "approval_required",
            "two",
            0,
        )
        proposal = await propose(bob)
        assert proposal["digest"] == refused["details"]["digest"]
        assert code_of(await bob.ask("run", TRUE)) == "approval_required"
        agreed = await approve(guard, proposal)
        assert agreed.result["controls"][0]["got"] == 1
        assert code_of(await bob.ask("run", FALSE)) == "approval_required"
        assert (await bob.ask("run", TRUE)).ok
        assert code_of(await bob.ask("run", TRUE)) == "approval_required"
        [entry] = harness.of_type("run.accepted")
        assert entry["data"]["proposal"] == proposal["proposal"]

    serving(tmp_path, scenario)


def test_two_at_a_time_do_not_share_a_proposal(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, controlled())
        bob, guard = await let_in(harness, "bob", "runner"), await let_in(harness, "guard", "secops")
        again = harness.connect(key=bob.key)
        await approve(guard, await propose(bob))
        replies = await asyncio.gather(bob.ask("run", TRUE), again.ask("run", TRUE))
        assert sorted(reply.ok for reply in replies) == [False, True]
        assert "approval_required" in [reply.error["code"] for reply in replies if reply.error]

    serving(tmp_path, scenario)


def test_another_key_that_may_sends_what_was_approved(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, controlled())
        bob, guard = await let_in(harness, "bob", "viewer"), await let_in(harness, "guard", "secops")
        carol = await let_in(harness, "carol", "runner")
        await approve(guard, await propose(bob))
        assert code_of(await bob.ask("run", TRUE)) == "denied"
        assert (await carol.ask("run", TRUE)).ok

    serving(tmp_path, scenario)


def test_nobody_approves_his_own(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, controlled())
        admin = harness.connect()
        proposal = await propose(admin)
        assert code_of(await approve(admin, proposal)) == "denied"
        heir = PrivateKey.generate()
        await done(admin, "key.rotate", {"key": "admin", "public": heir.public.raw, "overlap_ms": HOUR})
        assert code_of(await approve(harness.connect(key=heir), proposal)) == "denied"

    serving(tmp_path, scenario)


def test_who_gives_it_is_not_who_approves_it(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, controlled())
        bob, guard = await let_in(harness, "bob", "runner"), await let_in(harness, "guard", "secops")
        boss = await let_in(harness, "boss", "runner", personas=["admin"])
        proposal = await propose(bob)
        agreed = await done(boss, "proposal.approve", as_approved(proposal), persona="admin")
        assert agreed["controls"][0]["got"] == 1
        under_which: tuple[dict[str, Any], ...] = ({}, {"persona": "admin"})
        for names in under_which:
            refused = error_of(await boss.ask("run", TRUE, **names))
            assert (refused["code"], refused["details"]["approvals"]) == ("approval_required", 0)
            assert refused["details"]["proposals"] == [proposal["proposal"]]
            assert "another key" in refused["remedy"]
        assert (await approve(guard, proposal)).result["controls"][0]["got"] == 2
        assert (await boss.ask("run", TRUE)).ok

    serving(tmp_path, scenario)


@pytest.mark.parametrize("overlap", [0, HOUR])
def test_an_approver_gives_it_by_no_key_of_his_line(tmp_path: Path, overlap: int) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, controlled())
        bob, boss = await let_in(harness, "bob", "runner"), await let_in(harness, "boss", "admin")
        proposal = await propose(bob)
        assert (await approve(boss, proposal)).ok
        heir = PrivateKey.generate()
        await done(harness.connect(), "key.rotate", {"key": "boss", "public": heir.public.raw, "overlap_ms": overlap})
        for key in (heir, boss.key)[: 2 if overlap else 1]:
            assert code_of(await harness.connect(key=key).ask("run", TRUE)) == "approval_required"
        assert (await bob.ask("run", TRUE)).ok  # what the one approved who was replaced, his heir approved

    serving(tmp_path, scenario)


def test_what_was_done_when_the_giver_could_approve_stays_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of a daemon that counted the giver's approval: done is done, and what is open is judged as now."""

    async def scenario(harness: Harness) -> None:
        under(harness, controlled())
        bob, admin = await let_in(harness, "bob", "runner"), harness.connect()
        used, waiting = await propose(bob), await propose(bob, FALSE)
        for one in (used, waiting):
            assert (await approve(admin, one)).ok
        with monkeypatch.context() as then:
            then.setattr(Way, "_givers", lambda _: ())
            assert (await admin.ask("run", TRUE)).ok
        assert code_of(await admin.ask("run", FALSE)) == "approval_required"
        authority = started_again(harness)
        [left] = authority.proposals
        assert (left.id, [one.key for one in left.approvals]) == (waiting["proposal"], [admin.key.id])

    serving(tmp_path, scenario)


def test_keys_that_follow_one_another_are_one_voice(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, controlled(2))
        bob, guard = await let_in(harness, "bob", "runner"), await let_in(harness, "guard", "secops")
        proposal = await propose(bob)
        assert (await approve(guard, proposal)).ok
        heir = PrivateKey.generate()
        args = {"key": "guard", "public": heir.public.raw, "overlap_ms": HOUR}
        await done(harness.connect(), "key.rotate", args)
        assert (await approve(harness.connect(key=heir), proposal)).result["controls"][0]["got"] == 1
        assert code_of(await bob.ask("run", TRUE)) == "approval_required"
        assert (await approve(harness.connect(), proposal)).result["controls"][0]["got"] == 2
        assert (await bob.ask("run", TRUE)).ok

    serving(tmp_path, scenario)


@pytest.mark.parametrize("later", ["suspend", "revoke", "demote", "policy", "window"])
def test_who_may_approve_is_asked_when_it_is_used(tmp_path: Path, later: str) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, controlled())
        bob, guard = await let_in(harness, "bob", "runner"), await let_in(harness, "guard", "secops")
        admin = harness.connect()
        proposal = await propose(bob, ttl_ms=24 * HOUR)
        assert (await approve(guard, proposal)).ok
        if later == "policy":
            under(harness, controlled(2))
        elif later == "demote":
            await done(admin, "key.bind", {"key": "guard", "role": "viewer"})
        elif later == "window":
            now = now_ms()
            harness.service.clock = lambda: now + 8 * HOUR
        else:
            await done(admin, f"key.{later}", {"key": "guard"})
        assert code_of(await bob.ask("run", TRUE)) == "approval_required"

    serving(tmp_path, scenario)


@pytest.mark.parametrize("change", ["digest", "role", "own-tenant"])
def test_an_approval_that_is_none(tmp_path: Path, change: str) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS + controlled())
        bob = await let_in(harness, "bob", "runner")
        proposal = await propose(bob)
        if change == "digest":
            proposal["digest"] = "sha256:" + "00" * 32
            assert code_of(await approve(harness.connect(), proposal)) == "bad_argument"
        elif change == "role":
            head = await let_in(harness, "head", "tenant-admin")
            assert code_of(await approve(head, proposal)) == "denied"
        else:
            head = await let_in(harness, "head", "tenant-admin", tenants=["acme"])
            assert code_of(await approve(head, proposal)) == "not_found"

    serving(tmp_path, scenario)


def test_policy_itself_can_be_under_control(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        await let_in(harness, "second", "admin")
        text = harness.service.authority.policy.text + controlled(1, "policy.set").encode()
        admin = harness.connect()
        await done(admin, "policy.set", {"policy": text})
        back = {"policy": text + b"# another\n"}
        assert code_of(await admin.ask("policy.set", back)) == "approval_required"
        proposal = await propose(admin, back, "policy.set")
        guard = await let_in(harness, "guard", "secops")
        shown = await done(guard, "proposal.show", {"proposal": proposal["proposal"]})
        assert shown["args"] == back
        assert (await approve(guard, proposal)).ok
        assert (await admin.ask("policy.set", back)).ok

    serving(tmp_path, scenario)


def test_what_is_proposed_is_shown_to_those_whom_it_concerns(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, TENANTS + controlled())
        head = await let_in(harness, "head", "tenant-admin", tenants=["acme"])
        default = await let_in(harness, "default", "tenant-admin")
        mine = await propose(head)
        hosts = await propose(harness.connect(), {"policy": "schema = 1"}, "policy.set")
        assert [one["proposal"] for one in (await done(head, "proposal.list", {}))["proposals"]] == [mine["proposal"]]
        assert (await done(default, "proposal.list", {}))["proposals"] == []
        assert code_of(await default.ask("proposal.show", {"proposal": hosts["proposal"]})) == "not_found"
        assert (await done(head, "proposal.show", {"proposal": mine["proposal"]}))["args"] == TRUE
        assert len((await done(harness.connect(), "proposal.list", {}))["proposals"]) == 2

    serving(tmp_path, scenario)


def test_its_arguments_are_no_bodys_but_the_files(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        secret = {"argv": ["/bin/true"], "env": {"TOKEN": "hunter2"}}
        admin = harness.connect()
        proposal = await propose(admin, secret, "run")
        assert b"hunter2" not in (harness.state.paths.ledger / "current.jsonl").read_bytes()
        [kept] = harness.state.paths.proposals.iterdir()
        assert (kept.name, kept.stat().st_mode & 0o777) == (proposal["proposal"], 0o600)
        kept.write_bytes(kept.read_bytes().replace(b"hunter2", b"hunter3"))
        assert "args" not in await done(admin, "proposal.show", {"proposal": proposal["proposal"]})
        await done(admin, "proposal.withdraw", {"proposal": proposal["proposal"]})
        assert list(harness.state.paths.proposals.iterdir()) == []
        assert code_of(await approve(harness.connect(), proposal)) == "not_found"

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    "change",
    [
        {"cmd": "proposal.create"},
        {"cmd": "speak"},
        {"cmd": "volume.creat"},
        {"args": {"data": b"x" * (513 * 1024)}},
        {"args": []},
        {"reason": "two\nlines"},
        {"ttl_ms": 0},
        {"ttl_ms": 7 * 24 * HOUR + 1},
        {"tenant": "A B"},
    ],
)
def test_what_is_no_proposal(tmp_path: Path, change: dict[str, object]) -> None:
    async def scenario(harness: Harness) -> None:
        args = {"cmd": "run", "args": TRUE, "reason": "x", **change}
        assert code_of(await harness.connect().ask("proposal.create", args)) == "bad_argument"
        assert list(harness.state.paths.proposals.iterdir()) == []

    serving(tmp_path, scenario)


def test_a_start_knows_what_is_open_and_who_agreed(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        under(harness, controlled())
        bob, guard = await let_in(harness, "bob", "runner"), await let_in(harness, "guard", "secops")
        used, open_, gone = await propose(bob), await propose(bob, FALSE), await propose(bob, CAT)
        for one in (used, open_):
            assert (await approve(guard, one)).ok
        assert (await bob.ask("run", TRUE)).ok
        await done(bob, "proposal.withdraw", {"proposal": gone["proposal"]})
        live = list(harness.service.authority.proposals)
        authority = started_again(harness)
        assert list(authority.proposals) == live
        assert [(one.id, one.approvals[0].key) for one in live] == [(open_["proposal"], guard.key.id)]
        keep_only(harness.state.paths, [one.id for one in authority.proposals])
        assert [path.name for path in harness.state.paths.proposals.iterdir()] == [open_["proposal"]]

    serving(tmp_path, scenario)
