"""The states of a sandbox and the moves between them. Pure.

creating -> ready <-> paused -> ending -> ended
   |          |         |
   +----------+---------+-----> ended, failed
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["LIVE", "MOVES", "OVER", "State"]


class State(StrEnum):
    """How far a sandbox has come."""

    CREATING = "creating"
    """Its intent or its walls are on the way."""
    READY = "ready"
    PAUSED = "paused"
    """No process of an exec runs, and none is taken."""
    ENDING = "ending"
    """It was told to end, and its kernel objects are still being taken down."""
    ENDED = "ended"
    FAILED = "failed"
    """It never lived: a wall could not be built."""


OVER: Final = frozenset({State.ENDED, State.FAILED})
LIVE: Final = frozenset(State) - OVER
"""It has, or may have, a cell."""

MOVES: Final[dict[State, frozenset[State]]] = {
    State.CREATING: frozenset({State.READY, State.ENDING, State.ENDED, State.FAILED}),
    State.READY: frozenset({State.PAUSED, State.ENDING, State.ENDED}),
    State.PAUSED: frozenset({State.READY, State.ENDING, State.ENDED}),
    # killed before it lived, or while it did
    State.ENDING: frozenset({State.ENDED, State.FAILED}),
    State.ENDED: frozenset(),
    State.FAILED: frozenset(),
}
