"""What of a list a warrant covers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

from immured.identity.policy.warrant import Target

if TYPE_CHECKING:
    from immured.identity.policy.warrant import Warrant
    from immured.service.request import Request

__all__ = ["Owned", "in_project", "seen"]


class Owned(Protocol):
    """What belongs to somebody."""

    @property
    def target(self) -> Target:
        """What a warrant is asked about."""


T = TypeVar("T", bound=Owned)


def in_project(request: Request, things: Iterable[T]) -> list[T]:
    """Those of the project that the command names; all where it names none."""
    project = request.command.project
    return [one for one in things if project is None or one.target.project == project]


def seen(warrant: Warrant, things: Iterable[T]) -> list[T]:
    """Those that it covers, in their order."""
    warrant.covers(warrant.place())  # where there is nothing, it was asked all the same
    return [one for one in things if warrant.covers(one.target)]
