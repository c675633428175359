"""What a manifest admits that its baseline does not, and what it admits no more: in words, with severities. Pure.

A run that the manifest admits and the baseline refuses is never without a word in `added`; docs/manifest.md
(Capabilities) says field by field what counts. What is wider in one field and narrower in another is both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from immured.manifest.change import Change, Found, Severity
from immured.manifest.difference_command import command_grown
from immured.manifest.difference_limits import consent_grown, limits_grown, members_grown
from immured.manifest.difference_parameters import merged, pairs, parameters_grown
from immured.manifest.difference_places import filesystem_grown
from immured.manifest.difference_syscalls import Calls, syscalls_grown
from immured.manifest.inclusion import Budget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from immured.manifest.schema import Manifest

__all__ = ["Calls", "Change", "Difference", "Severity", "difference"]

_MODES: Final = ("none", "loopback")


@dataclass(frozen=True, slots=True)
class Difference:
    """`added`: what the manifest admits and the baseline does not; `removed`: the other way round."""

    added: tuple[Change, ...]
    removed: tuple[Change, ...]

    @property
    def severity(self) -> Severity | None:
        """The highest of what is added; None: nothing is."""
        return max((one.severity for one in self.added), default=None)

    def rows(self, most: int = 64) -> list[dict[str, object]]:
        """What is added, the gravest first, at most so many."""
        return [one.to_map() for one in self.added[:most]]


def difference(baseline: Manifest, manifest: Manifest, calls: Calls | None = None) -> Difference:
    """Compares two manifests by what they admit. `calls`: what their [syscalls] grant; without it they are compared by
    the names that they write, which says more is added than is, never less.
    """
    budget = Budget()
    return Difference(
        added=_sorted((one.field, one.added, one.severity) for one in _all(baseline, manifest, calls, budget)),
        removed=_sorted((one.field, one.removed, one.severity) for one in _all(manifest, baseline, calls, budget)),
    )


def _sorted(found: Iterator[tuple[str, str, Severity]]) -> tuple[Change, ...]:
    changes = dict.fromkeys(Change(*one) for one in found)
    return tuple(sorted(changes, key=lambda change: -change.severity))


def _all(less: Manifest, more: Manifest, calls: Calls | None, budget: Budget) -> Iterator[Found]:
    """What `more` admits beyond `less`, whatever its parameters are filled in with."""
    if not less.parameters and not more.parameters:
        yield from _grown(less, more, calls, budget)
        return
    yield from parameters_grown(less, more)
    yield from merged(pairs(less, more), lambda one, two: list(_grown(one, two, calls, budget)))


def _grown(less: Manifest, more: Manifest, calls: Calls | None, budget: Budget) -> Iterator[Found]:
    """What one filled in admits beyond the other, in the order of a manifest's fields."""
    if less.class_ != more.class_:
        yield Found(
            "class",
            Severity.MEDIUM,
            f"is of the class {more.class_} instead of {less.class_}, by which policies tell who may use it",
            f"is of the class {less.class_} instead of {more.class_}",
        )
    yield from members_grown("personas", "persona", less.personas, more.personas)
    yield from members_grown("tenants", "tenant", less.tenants, more.tenants)
    yield from command_grown(less.command, more.command, budget)
    yield from filesystem_grown(less.filesystem, more.filesystem)
    if _MODES.index(more.network.mode) > _MODES.index(less.network.mode):
        yield Found.of("network.mode", Severity.MEDIUM, "has an interface lo of its own")
    yield from limits_grown(less.limits, more.limits)
    yield from syscalls_grown(less.syscalls, more.syscalls, calls)
    yield from consent_grown(less.consent, more.consent)
