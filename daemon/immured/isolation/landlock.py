"""Landlock's step in a plan. What each rung refuses is native/launcher/landlock.h's and docs/isolation.md's. Pure."""

from __future__ import annotations

from typing import Final

from immured.isolation import abi
from immured.isolation.abi import LandlockFlag, Op
from immured.isolation.plan import Step

__all__ = ["landlock_rung", "landlock_steps"]

_NONE: Final = 0


def landlock_rung(kernel_abi: int) -> int:
    """The rung that plans stand on where the kernel has this ABI; 0: none. As landlock.c has it."""
    return _NONE if kernel_abi < abi.LANDLOCK_OLDEST else min(kernel_abi, abi.LANDLOCK_NEWEST)


def landlock_steps(kernel_abi: int, *, network: bool) -> list[Step]:
    """The plan's step for a kernel of this ABI, or none. `network`: the plan has LOOPBACK."""
    rung = landlock_rung(kernel_abi)
    flags = LandlockFlag(0) if network else LandlockFlag.NO_NETWORK
    return [Step(Op.LANDLOCK, (rung, int(flags)))] if rung else []
