"""msgpack without its traps.

Stated by docs/protocol.md: no trailing bytes, no floats, ext or nil, map keys are `str` and never twice, `str` is valid
UTF-8, arrays and maps nest at most eight deep. A scan of the bytes establishes all that can be known without building
anything, so that a declared length is never believed: every item that a header declares must be paid for by at least
one byte of input and by the item budget, before the decoder allocates for it.
"""

from __future__ import annotations

from typing import Final

import msgpack

from immured.errors import Refused

__all__ = ["MAX_DEPTH", "MAX_ITEMS", "pack", "unpack"]

MAX_DEPTH: Final = 8
MAX_ITEMS: Final = 65_536

_ARRAY, _MAP, _FORBIDDEN = -1, -2, -3

# First byte -> bytes that the item takes when that is fixed (> 0), or one of the classes above; 0: a length follows.
_SIZE: Final[tuple[int, ...]] = (
    *(1 for _ in range(0x80)),  # positive fixint
    *(_MAP for _ in range(0x80, 0x90)),  # fixmap
    *(_ARRAY for _ in range(0x90, 0xA0)),  # fixarray
    *(1 + n for n in range(32)),  # fixstr
    _FORBIDDEN,  # c0 nil
    _FORBIDDEN,  # c1 never used
    1,  # c2 false
    1,  # c3 true
    *(0, 0, 0),  # c4..c6 bin 8, 16, 32
    *(_FORBIDDEN for _ in range(3)),  # c7..c9 ext
    *(_FORBIDDEN for _ in range(2)),  # ca, cb float
    *(2, 3, 5, 9),  # cc..cf uint
    *(2, 3, 5, 9),  # d0..d3 int
    *(_FORBIDDEN for _ in range(5)),  # d4..d8 fixext
    *(0, 0, 0),  # d9..db str 8, 16, 32
    *(_ARRAY, _ARRAY),  # dc, dd
    *(_MAP, _MAP),  # de, df
    *(1 for _ in range(0xE0, 0x100)),  # negative fixint
)
_LENGTH_BYTES: Final = dict(
    zip((0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF), (1, 2, 4, 1, 2, 4, 2, 4, 2, 4), strict=True)
)
_IS_STR: Final = tuple(0xA0 <= b <= 0xBF or 0xD9 <= b <= 0xDB for b in range(256))


def unpack(data: bytes, *, max_depth: int = MAX_DEPTH, max_items: int = MAX_ITEMS) -> object:
    """The one value that `data` holds: dict, list, str, bytes, int or bool.

    `max_depth` counts nested arrays and maps (a lone array is depth 1); `max_items` counts every value, keys included.
    Raises Refused `bad_msgpack` for anything else, naming what and at which byte.
    """
    _scan(data, max_depth, max_items)
    try:
        value: object = msgpack.unpackb(data, raw=False, strict_map_key=True, object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise _bad("a str is not valid UTF-8", "send bytes that are not text as bin") from None
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise _bad(f"msgpack cannot be read ({error})") from None
    return value


def pack(value: object) -> bytes:
    """The msgpack of dicts (str keys), lists, tuples, str, bytes, ints and bools.

    What `unpack` would not take is not sent either: Refused `bad_msgpack` for None (leave the name
    out), floats and every other type.
    """
    try:
        data: bytes = msgpack.packb(value, use_bin_type=True)
    except UnicodeEncodeError:
        raise _bad("a str holds a lone surrogate", "pass bytes (os.fsencode) for what is not text") from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _bad(f"a value cannot be sent ({error})") from None
    _scan(data, MAX_DEPTH, MAX_ITEMS)
    return data


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _bad(f"the key {twice[:64]!r} stands twice in a map")
    return value


def _scan(data: bytes, max_depth: int, max_items: int) -> None:
    """Walks the items of `data` without building one. Raises Refused; returns when all of `data` is one good value."""
    size, position = _SIZE, 0
    left, in_map = 1, False  # values still due in the innermost open array or map; the outermost holds one
    budget = max_items - 1
    outer: list[tuple[int, bool]] = []
    try:
        while left or outer:
            if not left:
                left, in_map = outer.pop()
                continue
            first = data[position]  # past the end: IndexError
            if in_map and not left & 1 and not _IS_STR[first]:
                raise _bad(f"a map's key is not a str, at byte {position}")
            left -= 1
            step = size[first]
            if step > 0:
                position += step
            elif step == 0:
                width = _LENGTH_BYTES[first]
                position += 1 + width + _length(data, position + 1, width)
            elif step == _FORBIDDEN:
                raise _forbidden(first, position)
            else:
                outer.append((left, in_map))
                if len(outer) > max_depth:
                    raise _bad(f"arrays and maps nest more than {max_depth} deep, at byte {position}")
                in_map = step == _MAP
                left, position = _declared(data, position, in_map)
                budget -= left
                if budget < 0:
                    raise _bad(f"more than {max_items} values")
    except IndexError:
        raise _bad("the value ends early") from None
    if position > len(data):
        raise _bad("the value ends early")
    if position < len(data):
        raise _bad(f"{len(data) - position} bytes follow the value, at byte {position}")


def _declared(data: bytes, position: int, in_map: bool) -> tuple[int, int]:
    """How many values the array or map at `position` declares, and where they begin. Each takes at least a byte."""
    first = data[position]
    width = _LENGTH_BYTES.get(first, 0)
    count = _length(data, position + 1, width) if width else first & 0x0F
    values, start = 2 * count if in_map else count, position + 1 + width
    if values > len(data) - start:
        raise _bad(f"a length says more than there is, at byte {position}")
    return values, start


def _length(data: bytes, position: int, width: int) -> int:
    field = data[position : position + width]
    if len(field) != width:
        raise _bad("the value ends early")
    return int.from_bytes(field, "big")


def _forbidden(first: int, position: int) -> Refused:
    if first == 0xC0:
        return _bad(f"nil at byte {position}", "leave the name out instead")
    if first in (0xCA, 0xCB):
        return _bad(f"a float at byte {position}", "send an integer in the unit that the field names")
    if first == 0xC1:
        return _bad(f"the byte c1, which msgpack never uses, at byte {position}")
    return _bad(f"an ext type at byte {position}", "use maps, arrays, str, bin, integers and booleans alone")


def _bad(message: str, remedy: str = "see docs/protocol.md, Values") -> Refused:
    return Refused("bad_msgpack", message, remedy)
