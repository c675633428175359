"""A tenant's quota and its rates, through the service: what takes of them, what gives back, what a refusal leaves."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from immured.identity.policy.parse import parse_policy
from immured.identity.policy.schema import Policy
from immured.service import dispatch
from immured.wire.messages import Reply
from tests.service.harness import Client, Harness, serving, until
from tests.service.test_reconcile import Found, found_again
from tests.service.test_runs import code_of, result_of

SLEEP = {"argv": ["/bin/sleep", "60"]}
TRUE = {"argv": ["/bin/true"]}


def policy(text: str) -> Policy:
    shipped = files("immured.identity.policy").joinpath("default.toml").read_bytes()
    return parse_policy(shipped + b"\n" + text.encode())


def quota(**shares: object) -> Policy:
    lines = [f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}" for name, value in shares.items()]
    return policy("[tenants.default.quota]\n" + "\n".join(lines))


def over(reply: Reply | None) -> dict[str, Any]:
    assert reply is not None
    assert reply.error is not None, reply.result
    assert reply.error["code"] == "over_quota"
    details = reply.error["details"]
    assert isinstance(details, dict)
    return details


def used(harness: Harness) -> dict[str, int]:
    return {name: value for name, value in harness.service.shares.used("default").items() if value}


async def begin(harness: Harness, *, of: int = 1) -> list[Client]:
    """Runs that live."""
    clients = []
    for _ in range(of):
        client = harness.connect()
        await client.send(client.envelope("run", SLEEP))
        clients.append(client)
    await until(lambda: len(harness.of_type("run.accepted")) >= of)
    return clients


def test_a_run_takes_its_share_and_gives_it_back(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        clients = await begin(harness, of=2)
        assert used(harness) == {
            "sandboxes": 2,
            "cpus": 4000,  # without a bound of its own, both processors
            "memory": 1 << 30,
            "pids": 256,
            "disk": 1 << 30,
            "runs_per_minute": 2,
        }
        details = over(await harness.connect().ask("run", TRUE))
        assert (details["quota"], details["limit"], details["used"], details["asked"]) == ("sandboxes", 2, 2, 1)
        assert 0 < details["retry_ms"] <= 60_000
        for run in harness.service.registry:
            run.kill()
        for client in clients:
            assert (await client.reply()) is not None
        assert used(harness) == {"runs_per_minute": 2}
        assert (await harness.connect().ask("run", TRUE)).ok

    serving(tmp_path, scenario, policy=quota(sandboxes=2))


def test_what_is_refused_leaves_nothing_and_the_nonce_free(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        clients = await begin(harness)
        before = used(harness), len(harness.entries())
        client = harness.connect()
        asked = client.envelope("run", TRUE)
        for _ in range(2):
            await client.send(asked)
            over(await client.reply())
        assert (used(harness), len(harness.entries())) == before
        for run in harness.service.registry:
            run.kill()
        await clients[0].reply()
        await client.send(asked)
        reply = await client.reply()
        assert reply is not None
        assert reply.ok

    serving(tmp_path, scenario, policy=quota(sandboxes=1))


def test_a_run_that_the_ledger_does_not_take_gives_its_share_back(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        harness.ledger.close()
        assert code_of(await harness.connect().ask("run", TRUE)) == "ledger_unavailable"
        assert code_of(await harness.connect().ask("sandbox.create", {})) == "ledger_unavailable"
        assert code_of(await harness.connect().ask("run.batch", {"runs": [TRUE]})) == "ledger_unavailable"
        assert set(used(harness)) == {"runs_per_minute"}

    serving(tmp_path, scenario, policy=quota(sandboxes=1))


def test_runs_and_execs_are_counted_by_the_minute(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        [row] = result_of(await client.ask("sandbox.create", {}))["sandboxes"]
        assert (await client.ask("run", TRUE)).ok
        assert (await client.ask("sandbox.exec", {"sandbox": row["sandbox"], **TRUE})).ok
        for asked in (("run", TRUE), ("sandbox.exec", {"sandbox": row["sandbox"], **TRUE})):
            details = over(await client.ask(*asked))
            assert (details["quota"], details["used"]) == ("runs_per_minute", 2)
            assert 0 < details["retry_ms"] <= 61_000

    serving(tmp_path, scenario, policy=quota(runs_per_minute=2))


def test_a_batch_is_its_runs_and_those_that_live_at_a_time(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        details = over(await client.ask("run.batch", {"runs": [TRUE] * 11}))
        assert (details["quota"], details["asked"]) == ("runs_per_minute", 11)
        assert "retry_ms" not in details
        details = over(await client.ask("run.batch", {"runs": [TRUE] * 4, "concurrency": 3}))
        assert (details["quota"], details["asked"]) == ("sandboxes", 3)
        assert (await client.ask("run.batch", {"runs": [TRUE] * 4})).ok  # nobody said how many at a time
        assert used(harness) == {"runs_per_minute": 4}

    serving(tmp_path, scenario, policy=quota(sandboxes=2, runs_per_minute=10))


def test_a_sandbox_holds_its_share_while_it_lives(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        rows = result_of(await client.ask("sandbox.create", {"count": 2}))["sandboxes"]
        assert used(harness)["sandboxes"] == 2
        over(await client.ask("sandbox.create", {"count": 2}))
        assert used(harness)["sandboxes"] == 2  # none of the two that were asked for
        result_of(await client.ask("sandbox.kill", {"sandbox": rows[0]["sandbox"]}))
        assert used(harness)["sandboxes"] == 1
        result_of(await client.ask("sandbox.create", {"count": 2}))

    serving(tmp_path, scenario, policy=quota(sandboxes=3))


@pytest.mark.parametrize(
    ("shares", "live", "used_up", "asked", "message"),
    [
        ({"sandboxes": 2}, 0, 0, 3, "may have 2 of `sandboxes`: 3 asked for"),
        ({"sandboxes": 3}, 2, 2, 2, "may have 3 of `sandboxes`: 2 taken and 2 asked for"),
        ({"memory": "1G"}, 0, 0, 3 << 29, "may have 1G of `memory`: 1536M asked for"),
    ],
)
def test_who_asks_for_several_is_not_told_of_his_own_as_taken(
    tmp_path: Path, shares: dict[str, object], live: int, used_up: int, asked: int, message: str
) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        if live:
            result_of(await client.ask("sandbox.create", {"count": live}))
        before = used(harness)
        reply = await client.ask("sandbox.create", {"count": 2 if live else 3})
        details = over(reply)
        assert (details["used"], details["asked"]) == (used_up, asked)
        assert reply is not None
        assert reply.error is not None
        assert reply.error["message"] == f"the tenant 'default' {message}"
        assert used(harness) == before

    serving(tmp_path, scenario, policy=quota(**shares))


def test_the_longest_life_is_the_tenants(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        assert over(await client.ask("run", TRUE))["quota"] == "wall"  # the default class has 60 s
        assert (await client.ask("run", {**TRUE, "limits": {"wall": "30s"}})).ok
        assert over(await client.ask("sandbox.create", {"ttl_ms": 30_001}))["quota"] == "wall"
        [row] = result_of(await client.ask("sandbox.create", {"ttl_ms": 30_000}))["sandboxes"]
        longer = {"sandbox": row["sandbox"], "ttl_ms": 30_001}
        assert over(await client.ask("sandbox.extend", longer))["quota"] == "wall"
        assert harness.launcher.extended == []
        assert over(await client.ask("sandbox.exec", {"sandbox": row["sandbox"], **TRUE}))["quota"] == "wall"

    serving(tmp_path, scenario, policy=quota(wall="30s"))


def test_an_extended_life_moves_the_moment_to_retry(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        [row] = result_of(await client.ask("sandbox.create", {"ttl_ms": 10_000}))["sandboxes"]
        assert over(await client.ask("run", TRUE))["retry_ms"] <= 10_000
        result_of(await client.ask("sandbox.extend", {"sandbox": row["sandbox"], "ttl_ms": 3_600_000}))
        assert over(await client.ask("run", TRUE))["retry_ms"] > 3_000_000

    serving(tmp_path, scenario, policy=quota(sandboxes=1))


def test_another_tenants_share_is_another(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        await begin(harness)
        client = harness.connect()
        over(await client.ask("run", TRUE))
        assert (await client.ask("run", TRUE, tenant="acme")).ok

    serving(tmp_path, scenario, policy=policy("[tenants.default.quota]\nsandboxes = 1\n[tenants.acme]\n"))


def test_what_lives_on_without_a_daemon_is_counted_by_the_next(tmp_path: Path) -> None:
    from immured.service.sandboxes.reconcile import reconcile

    async def scenario(harness: Harness, found: Found) -> None:
        harness.launcher.keep(found.number, found.record, frozen=False)
        await reconcile(harness.service, found.opened())
        assert used(harness)["sandboxes"] == 1
        client = harness.connect()
        result_of(await client.ask("sandbox.kill", {"sandbox": found.id}))
        assert used(harness) == {}

    found_again(tmp_path, scenario)


def test_what_lies_on_the_disk_takes_of_the_disk(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        harness.service.storage.volumes._means = "for the test"
        client = harness.connect()
        size = 32 << 20
        assert (await client.ask("volume.create", {"name": "a", "bytes": size})).ok
        details = over(await client.ask("volume.create", {"name": "b", "bytes": 2 * size}))
        assert (details["quota"], details["used"], details["asked"]) == ("disk", size, 2 * size)
        # A name that is taken takes nothing.
        assert code_of(await client.ask("volume.create", {"name": "a", "bytes": 16 << 20})) == "volume_exists"
        assert used(harness) == {"disk": size}
        assert (await client.ask("volume.remove", {"name": "a"})).ok
        assert used(harness) == {}
        assert (await client.ask("volume.create", {"name": "b", "bytes": 2 * size})).ok
        found = list(harness.service.storage.volumes.everything())
        assert found == [("default", "b", 2 * size)]

    serving(tmp_path, scenario, policy=quota(disk="80M"))


def test_who_is_too_fast_is_told_when_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000
    monkeypatch.setattr(dispatch, "monotonic_ms", lambda: now)

    async def scenario(harness: Harness) -> None:
        nonlocal now
        client = harness.connect()
        for _ in range(3):
            assert (await client.ask("status", {})).ok
        asked = client.envelope("status", {})
        await client.send(asked)
        reply = await client.reply()
        assert reply is not None
        assert reply.error is not None
        assert reply.error["code"] == "rate_limited"
        details = reply.error["details"]
        assert isinstance(details, dict)
        assert (details["of"], details["per_second"], details["burst"]) == ("key", 5, 3)
        now += int(details["retry_ms"])
        await client.send(asked)  # its nonce was not used up
        reply = await client.reply()
        assert reply is not None
        assert reply.ok
        assert harness.of_type("command.denied") == []

    serving(tmp_path, scenario, policy=policy("[rates]\nkey = {per_second = 5, burst = 3}"))


def test_a_changed_policy_counts_from_then_on(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        await begin(harness, of=2)
        harness.service.authority.set_policy(quota(sandboxes=1))
        assert over(await harness.connect().ask("run", TRUE))["used"] == 2
        assert len(harness.service.registry) == 2  # nothing is ended by it
        harness.service.authority.set_policy(quota(sandboxes=3))
        assert (await harness.connect().ask("run", TRUE)).ok

    serving(tmp_path, scenario)
