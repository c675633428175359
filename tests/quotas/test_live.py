"""Quotas and rates of a real daemon: by its policy, through its death, and with what lies on its disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured import Client
from immured.client.errors import Refusal
from immured.client.snapshots import Snapshots
from immured.client.throwaway import ThrowawayDaemon
from immured.client.volumes import Volumes
from tests.patience import until
from tests.policies import declare

MIB = 1 << 20
MINE = """
[tenants.acme]
[tenants.acme.quota]
sandboxes = 2
disk = "200M"
wall = "10m"

[rates]
key = {per_second = 2000, burst = 4000}
"""
LIMITS = {"disk": "20M"}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    modes = {place: place.stat().st_mode for place in tmp_path.parents if place.stat().st_mode & 0o011 != 0o011}
    ThrowawayDaemon.immure("init", "--state", str(tmp_path / "state"))
    yield tmp_path / "state"
    for place, mode in modes.items():
        place.chmod(mode)


def acme(daemon: ThrowawayDaemon) -> Client:
    return Client(
        socket=str(daemon.socket), key=str(daemon.admin_key), daemon_key=str(daemon.daemon_key), tenant="acme"
    )


def over(ask: Callable[[], object]) -> dict[str, object]:
    with pytest.raises(Refusal) as refused:
        ask()
    assert refused.value.code == "over_quota", refused.value
    return refused.value.details


def used(client: Client, name: str) -> object:
    quota = client.status()["quota"]
    assert isinstance(quota, dict)
    row = quota.get(name, {})
    assert isinstance(row, dict)
    return row.get("used", 0)


def test_what_lives_and_what_lies_there_is_counted_through_a_death(state: Path) -> None:
    with ThrowawayDaemon(state=state) as daemon:
        with daemon.client() as admin:
            declare(admin, MINE)
        with acme(daemon) as client:
            Volumes(client).create("data", bytes=64 * MIB)
            sandbox = client.sandbox(limits=LIMITS, restart="adopt", ttl="5m")
            sandbox.exec(["/bin/sh", "-c", "head -c 3000000 /dev/urandom > /tmp/x"])
            sandbox.snapshot("saved")
            [saved] = Snapshots(client).list()
            lies = 64 * MIB + saved.bytes
            assert used(client, "disk") == lies + 20 * MIB
        daemon.kill()
    with ThrowawayDaemon(state=state) as daemon, acme(daemon) as client:
        assert (used(client, "disk"), used(client, "sandboxes")) == (lies + 20 * MIB, 1)  # it lived on
        for one in client.sandboxes():
            one.remove()
        assert used(client, "sandboxes") == 0
        assert over(lambda: Volumes(client).create("more", bytes=150 * MIB))["used"] == lies
        Snapshots(client).remove("saved")
        Volumes(client).remove("data")
        assert used(client, "disk") == 0
        Volumes(client).create("more", bytes=150 * MIB)


def test_a_quota_of_sandboxes_is_of_the_tenant_and_its_moment_comes(state: Path) -> None:
    with ThrowawayDaemon(state=state) as daemon, acme(daemon) as client, daemon.client() as admin:
        declare(admin, MINE)
        first = client.sandbox(limits=LIMITS, ttl="8m")
        second = client.sandbox(limits=LIMITS, ttl="4m")
        details = over(lambda: client.run(["/bin/true"], limits=LIMITS))
        assert (details["quota"], details["limit"], details["used"]) == ("sandboxes", 2, 2)
        retry = details["retry_ms"]
        assert isinstance(retry, int)
        assert 0 < retry <= 240_000
        assert admin.run(["/bin/true"]).exit_code == 0
        second.extend("1s")
        until(lambda: used(client, "sandboxes") == 1)  # it ends by itself, and its place is free
        assert client.run(["/bin/true"], limits=LIMITS).exit_code == 0
        assert over(lambda: first.extend("601s"))["quota"] == "wall"
        assert over(lambda: client.sandbox(limits=LIMITS, ttl="601s"))["quota"] == "wall"


def test_a_key_that_is_too_fast_costs_little_and_is_served_again(state: Path) -> None:
    """Its refusals are read on credit too: who heeds `retry_ms` is never slowed."""
    with ThrowawayDaemon(state=state) as daemon, daemon.client() as admin:
        declare(admin, "[rates]\nkey = {per_second = 1, burst = 4}\n")
        with daemon.client() as client:

            def refused() -> bool:
                try:
                    client.status()
                except Refusal as error:
                    assert error.code == "rate_limited", error  # noqa: PT017 - it is one of them
                    wait = error.details["retry_ms"]
                    assert isinstance(wait, int)
                    time.sleep(wait / 1000)
                    return True
                return False

            for _ in range(3):
                until(refused)  # nobody is so slow that a second is gone with every command
                assert not refused()
        with daemon.client() as patient:  # with retries nobody has to know
            for _ in range(8):
                patient.call("status", retries=5)
