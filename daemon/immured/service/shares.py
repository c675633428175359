"""What of its tenant's quota each thing takes: a run, an exec, a batch, a sandbox that lives, what lies on the disk.

`identity.quotas` counts; here stands what counts as what, and how it is counted again after a start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.identity.quotas import Lease, Quota, Quotas, Wants

if TYPE_CHECKING:
    from immured.manifest.schema import Limits

__all__ = ["Shares", "monotonic_ms"]

_MS: Final = 1_000_000


def monotonic_ms() -> int:
    """Milliseconds of a clock that is never set back."""
    return time.monotonic_ns() // _MS


class Shares:
    """Every tenant's. `quota_of`: of the policy in force; `processors`: of the host."""

    def __init__(
        self,
        quota_of: Callable[[str], Quota | None],
        *,
        processors: int,
        clock: Callable[[], int] = monotonic_ms,
    ) -> None:
        self._quotas = Quotas(quota_of, processors=processors)
        self._clock = clock
        self._stored: dict[tuple[str, str, str], Lease] = {}

    def used(self, tenant: str) -> dict[str, int]:
        """What of each is taken, by the quota's names."""
        return self._quotas.used(tenant, self._clock())

    # --- what lives; every one raises Refused `over_quota`, and is the caller's to release ---------------------------

    def run(self, tenant: str, limits: Limits) -> Lease:
        """One run, until it is over."""
        return self._quotas.admit(tenant, _run(limits), self._clock())

    def runs(self, tenant: str, each: Sequence[Limits], at_once: int, *, fewer: bool) -> tuple[Lease, int]:
        """A batch, and how many of it may live at a time: `at_once`, or where that is too many, and `fewer` are as
        good, as many as there is room for.
        """
        while True:
            at_once = min(at_once, len(each))
            try:
                lease = self._quotas.admit(tenant, Wants.together(map(_run, each), at_once), self._clock())
            except Refused:
                if not fewer or at_once <= 1:
                    raise
                at_once //= 2
            else:
                lease.until = None  # they come one after the other: nobody knows when the last of them ends
                return lease, at_once

    def exec(self, tenant: str, limits: Limits) -> None:
        """One exec. What it uses is its sandbox's, and held by that."""
        self._quotas.admit(tenant, Wants(runs=1, wall=limits.wall), self._clock())

    def sandbox(self, tenant: str, limits: Limits, ttl_ms: int) -> Lease:
        """One that is to live so long."""
        return self._quotas.admit(tenant, _sandbox(limits, ttl_ms), self._clock())

    def check_sandboxes(self, tenant: str, limits: Limits, ttl_ms: int, count: int) -> None:
        """There is room for so many, which are then asked for one by one: who is refused is not told of his own."""
        self._quotas.check(tenant, Wants.together([_sandbox(limits, ttl_ms)] * count, count), self._clock())

    def kept_ready(self, tenant: str, limits: Limits) -> Lease:
        """One that waits for whoever takes it: how long that lives is asked then (`may_live`)."""
        return self._quotas.admit(tenant, _sandbox(limits, 0), self._clock())

    def adopted(self, tenant: str, limits: Limits, ttl_ms: int) -> Lease:
        """One that lived on without a daemon: it is there, whatever the quota says."""
        return self._quotas.hold(tenant, _sandbox(limits, ttl_ms), self._clock())

    def may_live(self, tenant: str, ttl_ms: int) -> None:
        """So long from now on. Raises Refused `over_quota`."""
        self._quotas.check_wall(tenant, ttl_ms * _MS)

    def lives(self, lease: Lease | None, ttl_ms: int) -> None:
        """It does, from now on."""
        if lease is not None:
            lease.until = self._clock() + ttl_ms

    # --- what lies on the disk ---------------------------------------------------------------------------------------

    def store(self, kind: str, tenant: str, name: str, size: int) -> None:
        """A volume, or a snapshot, of so many bytes, until `drop`. Raises Refused `over_quota`."""
        self._stored[kind, tenant, name] = self._quotas.admit(tenant, Wants(disk=size), self._clock())

    def drop(self, kind: str, tenant: str, name: str) -> None:
        """It is there no more. Twice is once."""
        lease = self._stored.pop((kind, tenant, name), None)
        if lease is not None:
            lease.release()

    def found(self, kind: str, stored: Iterable[tuple[str, str, int]]) -> None:
        """At start: what lies there, as (tenant, name, bytes), whatever the quotas say."""
        for tenant, name, size in stored:
            self._stored[kind, tenant, name] = self._quotas.hold(tenant, Wants(disk=size), self._clock())


def _run(limits: Limits) -> Wants:
    return Wants(
        runs=1,
        sandboxes=1,
        cpus=limits.cpus,
        memory=limits.memory,
        pids=limits.pids,
        disk=limits.disk,
        wall=limits.wall,
    )


def _sandbox(limits: Limits, ttl_ms: int) -> Wants:
    return Wants(
        sandboxes=1, cpus=limits.cpus, memory=limits.memory, pids=limits.pids, disk=limits.disk, wall=ttl_ms * _MS
    )
