"""Ed25519 on plain integers, to craft what no honest signer makes. Slow, not constant-time, for vectors only."""

from __future__ import annotations

import hashlib
from typing import Final

P: Final = 2**255 - 19
L: Final = 2**252 + 27742317777372353535851937790883648493
D: Final = -121665 * pow(121666, -1, P) % P

Point = tuple[int, int]
NEUTRAL: Final[Point] = (0, 1)


def add(one: Point, other: Point) -> Point:
    """The sum of two points of the curve (the law is complete)."""
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def multiply(scalar: int, point: Point) -> Point:
    """scalar times point."""
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def recover(y: int, sign: int) -> Point | None:
    """The point with that y and that parity of x, if there is one."""
    squared = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(squared, (P + 3) // 8, P)
    if (x * x - squared) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - squared) % P:
        return None
    return (P - x if x & 1 != sign and x else x), y


def _base() -> Point:
    point = recover(4 * pow(5, -1, P) % P, 0)
    if point is None:
        raise ArithmeticError("the base point is on the curve")
    return point


BASE: Final = _base()


def torsion() -> Point:
    """A point of order 8."""
    y = 2
    while True:
        point = recover(y, 0)
        if point is not None:
            small = multiply(L, point)
            if multiply(4, small) != NEUTRAL:
                return small
        y += 1


def encode(point: Point) -> bytes:
    """32 bytes, canonical."""
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def secret_scalar(seed: bytes) -> int:
    """The clamped scalar of a private key."""
    value = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return (value & ~7 & (1 << 254) - 1) | 1 << 254


def challenge(r: bytes, public: bytes, message: bytes) -> int:
    """h of RFC 8032, mod L."""
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L
