"""What a start took of the C library's heap and let go of since: given back, as nothing else may ever ask for it."""

from __future__ import annotations

import ctypes

__all__ = ["give_back"]


def give_back() -> None:
    """To the kernel; of Python's own arenas none. Where the C library has no malloc_trim (musl) nothing is done."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
