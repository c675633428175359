"""What a process has open: names, where a number alone would be the next file's too."""

from __future__ import annotations

import contextlib
import os

__all__ = ["descriptors"]


def descriptors(process: int | str = "self") -> set[str]:
    """Each as `NUMBER -> WHAT`; what is closed meanwhile is left out, and so is this look itself.

    It is one instant of a process that goes on: whoever says that nothing is left waits until it is so.
    """
    place, found = f"/proc/{process}/fd", set()
    for number in os.listdir(place):
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{number} -> {os.readlink(f'{place}/{number}')}")
    return found
