"""The part of immured that is worth C: packing plans and compiling system-call filters."""

from collections.abc import Sequence

def pack_plan(steps: Sequence[tuple[int, tuple[int, ...], tuple[bytes, ...]]]) -> bytes:
    """Pack `(op, numbers, strings)` steps into the launcher's binary plan (native/launcher/protocol.h).

    Raises TypeError, ValueError (a bound of the protocol is passed) or OverflowError (a number does not fit).
    """
