"""What a tenant may have at a time, and how many runs a minute. Sans-I/O; `now` in milliseconds of a clock that is
never set back (the monotonic one), since a quota that a clock step empties or fills is none.

What is counted is what was promised, not what is used: a run that may take 512 MiB counts as 512 MiB for as long as it
lives, so that a tenant whose runs all take what they may is within its quota still.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Final

from immured.errors import Refused
from immured.manifest.units import show_cpus, show_duration, show_size

__all__ = ["Lease", "Quota", "Quotas", "Wants"]

WINDOW_S: Final = 60
_SECOND: Final = 1000


@dataclass(frozen=True, slots=True)
class Quota:
    """A tenant's share; None: no bound. `sandboxes`: that live at a time, runs under way among them; `runs_per_minute`:
    runs and execs begun within any 60 seconds; `cpus` in thousandths, `memory` and `disk` in bytes, `pids`: of all that
    live together; `wall`: nanoseconds that one run, exec or sandbox may ask to live.
    """

    sandboxes: int | None = None
    runs_per_minute: int | None = None
    cpus: int | None = None
    memory: int | None = None
    pids: int | None = None
    disk: int | None = None
    wall: int | None = None


@dataclass(frozen=True, slots=True)
class Wants:
    """What is asked for, in the units of `Quota`. `runs` begin now; None: without a bound of its own."""

    runs: int = 0
    sandboxes: int = 0
    cpus: int | None = 0
    memory: int = 0
    pids: int = 0
    disk: int | None = 0
    wall: int | None = 0

    @classmethod
    def together(cls, each: Iterable[Wants], at_once: int) -> Wants:
        """Many of which so many live at a time, whichever those are: the largest of each kind."""
        all_of = list(each)

        def most(amounts: Iterable[int]) -> int:
            return sum(sorted(amounts, reverse=True)[:at_once])

        def bounded(amounts: list[int | None]) -> int | None:
            given = [one for one in amounts if one is not None]
            return most(given) if len(given) == len(amounts) else None

        walls = [one.wall for one in all_of if one.wall is not None]
        return cls(
            runs=sum(one.runs for one in all_of),
            sandboxes=most(one.sandboxes for one in all_of),
            cpus=bounded([one.cpus for one in all_of]),
            memory=most(one.memory for one in all_of),
            pids=most(one.pids for one in all_of),
            disk=bounded([one.disk for one in all_of]),
            wall=max(walls, default=0) if len(walls) == len(all_of) else None,
        )


_HELD: Final = ("sandboxes", "cpus", "memory", "pids", "disk")
"""Held for as long as the lease lives; the others are of a moment."""
_SHOW: Final[Mapping[str, Callable[[int], str]]] = {
    "cpus": show_cpus,
    "memory": show_size,
    "disk": show_size,
    "wall": show_duration,
}

assert {field.name for field in fields(Quota)} == {*_HELD, "runs_per_minute", "wall"}  # noqa: S101


class Lease:
    """What was admitted, until `release`. `until`: by when it is over whatever happens, in the clock of `now`; None:
    nobody knows."""

    __slots__ = ("_holds", "_usage", "until")

    def __init__(self, usage: _Usage, holds: Mapping[str, int], until: int | None) -> None:
        self._usage: _Usage | None = usage
        self._holds = holds
        self.until = until

    @property
    def holds(self) -> Mapping[str, int]:
        """What it holds, by the quota's names."""
        return self._holds

    def release(self) -> None:
        """It is over. Twice is once."""
        usage, self._usage = self._usage, None
        if usage is not None:
            usage.give_back(self)


class Quotas:
    """Every tenant's share and what of it is taken. `quota_of`: of the policy in force, asked anew each time, so that a
    changed policy counts from then on; `processors`: how many the host has, which is what a run without a bound of its
    own can use.
    """

    def __init__(self, quota_of: Callable[[str], Quota | None], *, processors: int) -> None:
        self._quota_of = quota_of
        self._all_cpus = 1000 * processors
        self._tenants: dict[str, _Usage] = {}

    def admit(self, tenant: str, wants: Wants, now: int) -> Lease:
        """Take what is wanted, all of it or nothing.

        Raises Refused `over_quota`; details: `tenant`, `quota` (its name), `limit`, `used`, `asked`, and `retry_ms`
        where waiting helps: by then what is asked fits, unless somebody else takes it, and perhaps it does sooner.
        """
        usage = self._usage(tenant, now)
        holds = self._checked(tenant, wants, usage, now)
        return usage.take(wants.runs, holds, _until(wants, now), now)

    def check(self, tenant: str, wants: Wants, now: int) -> None:
        """Nothing is taken. Raises as `admit`: what is asked for one by one and is nothing unless it is all."""
        self._checked(tenant, wants, self._usage(tenant, now), now)

    def hold(self, tenant: str, wants: Wants, now: int) -> Lease:
        """What is there already, whatever the quota says: at start, of what lives on or lies on the disk."""
        return self._usage(tenant, now).take(0, self._holds(wants), _until(wants, now), now)

    def check_wall(self, tenant: str, wall: int | None) -> None:
        """May something of the tenant's live so long from now on (None: without an end)? Raises as `admit`."""
        quota = self._quota_of(tenant)
        if quota is not None and quota.wall is not None:
            _check_wall(tenant, quota.wall, wall)

    def used(self, tenant: str, now: int) -> dict[str, int]:
        """What of each is taken, by the quota's names."""
        usage = self._usage(tenant, now)
        return {**usage.held, "runs_per_minute": usage.runs}

    def _checked(self, tenant: str, wants: Wants, usage: _Usage, now: int) -> dict[str, int]:
        """What it would hold."""
        holds, quota = self._holds(wants), self._quota_of(tenant)
        if quota is not None:
            self._check_alone(tenant, quota, wants, holds)
            self._check_beside(tenant, quota, wants, holds, usage, now)
        return holds

    def _usage(self, tenant: str, now: int) -> _Usage:
        usage = self._tenants.get(tenant)
        if usage is None:
            # Of tenants that hold nothing there is nothing to remember; how many there are is the policy's matter.
            self._tenants = {name: one for name, one in self._tenants.items() if not one.is_idle(now)}
            usage = self._tenants[tenant] = _Usage()
        usage.forget(now)
        return usage

    def _holds(self, wants: Wants) -> dict[str, int]:
        """An unbounded `disk` is checked against the quota before, and can be held by whom no quota bounds alone."""
        cpus = self._all_cpus * wants.sandboxes if wants.cpus is None else wants.cpus
        return {
            "sandboxes": wants.sandboxes,
            "cpus": cpus,
            "memory": wants.memory,
            "pids": wants.pids,
            "disk": wants.disk or 0,
        }

    @staticmethod
    def _check_alone(tenant: str, quota: Quota, wants: Wants, holds: Mapping[str, int]) -> None:
        """What would be too much even if the tenant had nothing: no waiting helps."""
        if quota.wall is not None:
            _check_wall(tenant, quota.wall, wants.wall)
        if quota.disk is not None and wants.disk is None:
            raise _unbounded(tenant, "disk", quota.disk)
        if quota.runs_per_minute is not None and wants.runs > quota.runs_per_minute:
            raise _over(tenant, "runs_per_minute", quota.runs_per_minute, 0, wants.runs, remedy="ask for fewer at once")
        for name in _HELD:
            limit, asked = getattr(quota, name), holds[name]
            if limit is None or asked <= limit:
                continue
            if name == "cpus" and wants.cpus is None:
                raise _unbounded(tenant, "cpus", limit, asked)
            raise _over(tenant, name, limit, 0, asked, remedy="ask for less, or have the tenant's quota raised")

    @staticmethod
    def _check_beside(
        tenant: str, quota: Quota, wants: Wants, holds: Mapping[str, int], usage: _Usage, now: int
    ) -> None:
        """What is too much beside what is taken now."""
        most = quota.runs_per_minute
        if most is not None and wants.runs and usage.runs + wants.runs > most:
            wait = usage.runs_fit_in(most - wants.runs, now)
            raise _over(tenant, "runs_per_minute", most, usage.runs, wants.runs, retry=wait)
        for name in _HELD:
            limit, asked = getattr(quota, name), holds[name]
            if limit is not None and asked and usage.held[name] + asked > limit:
                retry = usage.fits_in(name, limit - asked, now)
                raise _over(tenant, name, limit, usage.held[name], asked, retry=retry)


class _Usage:
    """One tenant's. Runs are counted by the second in which they began, so that a tenant costs 61 numbers at most."""

    __slots__ = ("_begun", "_leases", "held", "runs")

    def __init__(self) -> None:
        self._begun: deque[tuple[int, int]] = deque()
        self._leases: set[Lease] = set()
        self.held = dict.fromkeys(_HELD, 0)
        self.runs = 0

    def is_idle(self, now: int) -> bool:
        self.forget(now)
        return not self._leases and not self.runs

    def take(self, runs: int, holds: Mapping[str, int], until: int | None, now: int) -> Lease:
        if runs:
            second = now // _SECOND
            if self._begun and self._begun[-1][0] == second:
                self._begun[-1] = (second, self._begun[-1][1] + runs)
            else:
                self._begun.append((second, runs))
            self.runs += runs
        lease = Lease(self, holds, until)
        if any(holds.values()):
            self._leases.add(lease)
            for name in _HELD:
                self.held[name] += holds[name]
        return lease

    def give_back(self, lease: Lease) -> None:
        if lease in self._leases:
            self._leases.remove(lease)
            for name in _HELD:
                self.held[name] -= lease.holds[name]

    def forget(self, now: int) -> None:
        """A second counts until it lies wholly outside of the window: never more than the quota in any 60 seconds."""
        while self._begun and now >= _counts_until(self._begun[0][0]):
            self.runs -= self._begun.popleft()[1]

    def runs_fit_in(self, allowed: int, now: int) -> int:
        """Milliseconds until at most `allowed` runs count; there are more now, and `allowed` is not negative."""
        counted = self.runs
        for second, runs in self._begun:
            counted -= runs
            if counted <= allowed:
                return _counts_until(second) - now
        raise AssertionError("the window does not add up")

    def fits_in(self, name: str, allowed: int, now: int) -> int | None:
        """Milliseconds until at most `allowed` is held, if everything lasts as long as it may; None: nobody knows."""
        held = self.held[name]
        ending = [(lease.until, lease.holds[name]) for lease in self._leases if lease.until is not None]
        for until, amount in sorted(ending):
            held -= amount
            if held <= allowed:
                return max(1, until - now)
        return None


def _counts_until(second: int) -> int:
    return (second + 1 + WINDOW_S) * _SECOND


def _until(wants: Wants, now: int) -> int | None:
    """Rounded up: its end is measured in nanoseconds, and told a little later. 0 is a thing without an end."""
    return None if not wants.wall else now + -(-wants.wall // 1_000_000)


def _check_wall(tenant: str, limit: int, wall: int | None) -> None:
    if wall is None:
        raise _unbounded(tenant, "wall", limit)
    if wall > limit:
        raise _over(tenant, "wall", limit, 0, wall, remedy=f"ask for at most {show_duration(limit)}")


def _unbounded(tenant: str, name: str, limit: int, asked: int | None = None) -> Refused:
    text = _SHOW[name](limit)
    given = {} if asked is None else {"asked": asked}
    return Refused(
        "over_quota",
        f"the tenant {tenant!r} may have {text} of `{name}`, and this asks for it without a bound",
        f"give it one: `limits.{name}` of the run or its manifest, at most {text}",
        details={"tenant": tenant, "quota": name, "limit": limit, "used": 0, **given},
    )


def _over(
    tenant: str, name: str, limit: int, used: int, asked: int, *, retry: int | None = None, remedy: str = ""
) -> Refused:
    show = _SHOW.get(name, str)
    details: dict[str, object] = {"tenant": tenant, "quota": name, "limit": limit, "used": used, "asked": asked}
    if retry is not None:
        details["retry_ms"] = retry
        remedy = f"try again in {show_duration(-(-retry // _SECOND) * 10**9)} at the latest; end what is not needed"
    what = f"{show(used)} taken and {show(asked)} asked for" if used else f"{show(asked)} asked for"
    return Refused(
        "over_quota",
        f"the tenant {tenant!r} may have {show(limit)} of `{name}`: {what}",
        remedy or "end what is not needed, or have the tenant's quota raised",
        details=details,
    )
