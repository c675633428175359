"""How fast commands may come: of a key, of a user, of a tenant; and how slowly those are read who send what no key
signed. Sans-I/O; `now` in milliseconds of a clock that is never set back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from immured.errors import Refused

__all__ = ["Buckets", "Rate", "RateLimits", "Rates"]

_KEPT: Final = 1024
"""Buckets up to which nobody looks for those that are full again."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second in the long run, and `burst` at once after a rest. Both at least 1."""

    per_second: int
    burst: int


@dataclass(frozen=True, slots=True)
class Rates:
    """The policy's bounds for each key, each uid and each tenant; None: no bound."""

    key: Rate | None = None
    uid: Rate | None = None
    tenant: Rate | None = None


class Buckets:
    """A token bucket for each name. In thousandths of a token, so that a millisecond gives whole numbers."""

    __slots__ = ("_kept", "_levels")

    def __init__(self) -> None:
        self._levels: dict[object, tuple[int, int]] = {}  # how much is there, and when that was so
        self._kept = _KEPT

    def __len__(self) -> int:
        return len(self._levels)

    def wait(self, name: object, rate: Rate, now: int) -> int:
        """Milliseconds until there is a whole token; 0: there is one."""
        level = self._level(name, rate, now)
        return 0 if level >= 1000 else -(-(1000 - level) // rate.per_second)

    def take(self, name: object, rate: Rate, now: int, thousandths: int = 1000) -> None:
        """Take a token, or part of one; what is not there is not owed. Negative: give back."""
        level = self._level(name, rate, now) - thousandths
        self._levels[name] = (min(1000 * rate.burst, max(0, level)), now)
        if len(self._levels) > self._kept:
            self._forget_full(rate, now)

    def _level(self, name: object, rate: Rate, now: int) -> int:
        known = self._levels.get(name)
        if known is None:
            return 1000 * rate.burst
        level, then = known
        return min(1000 * rate.burst, level + max(0, now - then) * rate.per_second)

    def _forget_full(self, rate: Rate, now: int) -> None:
        """A full bucket is as good as none. Looked for only as often as their number doubles."""
        full = 1000 * rate.burst
        self._levels = {name: known for name, known in self._levels.items() if self._level(name, rate, now) < full}
        self._kept = max(_KEPT, 2 * len(self._levels))


class RateLimits:
    """Who has verified comes here before anything costly is done for him. `rates`: of the policy in force."""

    def __init__(self, rates: Callable[[], Rates]) -> None:
        self._rates = rates
        self._keys, self._uids, self._tenants = Buckets(), Buckets(), Buckets()

    def check(self, key_id: str, uid: int, tenant: str, now: int) -> None:
        """One command. Raises Refused `rate_limited` (details: `of`: key, uid or tenant; `per_second`, `burst`,
        `retry_ms`), and then it counts for none of them."""
        rates = self._rates()
        bounds = (
            ("key", rates.key, self._keys, key_id),
            ("uid", rates.uid, self._uids, uid),
            ("tenant", rates.tenant, self._tenants, tenant),
        )
        for of, rate, buckets, name in bounds:
            if rate is not None and (wait := buckets.wait(name, rate, now)):
                raise Refused(
                    "rate_limited",
                    f"the {of} {name!r} gives more than {rate.per_second} commands a second",
                    f"try again in {wait} ms, and send many runs as one batch",
                    details={"of": of, "per_second": rate.per_second, "burst": rate.burst, "retry_ms": wait},
                )
        for _, rate, buckets, name in bounds:
            if rate is not None:
                buckets.take(name, rate, now)
