"""Host ids that are ours by agreement: the blocks of ranges for sandboxes, and above them one id for each broker.

All of it lies above what distributions and systemd's containers use (up to 0x6FFFFFFF) and below 2^31, where old
programs stumble.
"""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["BLOCKS", "BROKER_IDS", "SLOTS_PER_BLOCK", "SLOT_BASE", "SLOT_SIZE", "preferred_broker_id"]

SLOT_BASE: Final = 0x7000_0000
SLOT_SIZE: Final = 65_536
SLOTS_PER_BLOCK: Final = 511
BLOCKS: Final = 8
"""So many daemons run side by side."""

BROKER_IDS: Final = range(SLOT_BASE + BLOCKS * SLOTS_PER_BLOCK * SLOT_SIZE, 0x8000_0000)
"""Never a sandbox's: what a broker is where no account was made for it. Eight ranges, 2,146,959,360 and up."""


def preferred_broker_id(state: bytes) -> int:
    """The id for the broker of a state directory, by the directory's path: the same at every start, and seldom
    another directory's."""
    return BROKER_IDS[int.from_bytes(hashlib.sha256(state).digest()[:8], "big") % len(BROKER_IDS)]
