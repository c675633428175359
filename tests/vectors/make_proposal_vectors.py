"""Writes proposals.json. The encoder is one of its own, from docs/protocol.md: run it by hand when that changes.

.venv/bin/python tests/vectors/make_proposal_vectors.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ABOUT = (
    "docs/protocol.md, proposal.create: SHA-256 of the packed map of args, cmd, project and tenant. "
    '{"bin": hex} stands for bytes.'
)
CASES: list[tuple[str, str, str, str, dict[str, Any]]] = [
    ("no arguments", "daemon.rotate", "default", "default", {}),
    (
        "a key is added",
        *("key.add", "default", "default"),
        {"role": "sre", "name": "carol", "public": bytes(range(32)), "tenants": ["acme"]},
    ),
    (
        "map keys go by their bytes",
        *("run", "acme", "web"),
        {"zz": 1, "a": 2, "\U00010000": 3, "\uffff": 4, "\u00e9": 5, "": 6},
    ),
    (
        "integers are as short as can be",
        *("run", "default", "default"),
        {
            "positive": [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53 - 1],
            "negative": [-1, -32, -33, -128, -129, -32768, -32769],
        },
    ),
    (
        "text is not bytes",
        *("run", "default", "default"),
        {"argv": ["/bin/echo", b"/bin/echo", b"\xff\xfe"], "stdin": b""},
    ),
    (
        "lengths cross their limits",
        *("run", "default", "default"),
        {
            "a": "x" * 31,
            "b": "x" * 32,
            "c": b"y" * 255,
            "d": b"y" * 256,
            "e": ["z"] * 16,
            "f": {f"k{n:02}": n % 2 == 0 for n in range(16)},
        },
    ),
]


def packed(value: Any) -> bytes:
    """The canonical msgpack of a value."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, str):
        raw = value.encode()
        return _head(len(raw), 32, 0xA0, ((1, 0xD9), (2, 0xDA))) + raw
    if isinstance(value, bytes):
        return _head(len(value), 0, 0, ((1, 0xC4), (2, 0xC5))) + value
    if isinstance(value, list):
        return _head(len(value), 16, 0x90, ((2, 0xDC),)) + b"".join(map(packed, value))
    pairs = sorted(value.items(), key=lambda pair: pair[0].encode())
    return _head(len(pairs), 16, 0x80, ((2, 0xDE),)) + b"".join(packed(name) + packed(one) for name, one in pairs)


def _integer(value: int) -> bytes:
    if -32 <= value < 128:
        return value.to_bytes(1, "big", signed=value < 0)
    for width, unsigned, signed in ((1, 0xCC, 0xD0), (2, 0xCD, 0xD1), (4, 0xCE, 0xD2), (8, 0xCF, 0xD3)):
        if value >= 0 and value < 1 << 8 * width:
            return bytes([unsigned]) + value.to_bytes(width, "big")
        if value < 0 and value >= -(1 << 8 * width - 1):
            return bytes([signed]) + value.to_bytes(width, "big", signed=True)
    raise ValueError(value)


def _head(length: int, short: int, base: int, longer: tuple[tuple[int, int], ...]) -> bytes:
    if length < short:
        return bytes([base | length])
    width, first = next((width, first) for width, first in longer if length < 1 << 8 * width)
    return bytes([first]) + length.to_bytes(width, "big")


def shown(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, dict):
        return {name: shown(one) for name, one in value.items()}
    return [shown(one) for one in value] if isinstance(value, list) else value


def main() -> None:
    """Write the file."""
    cases = []
    for name, cmd, tenant, project, args in CASES:
        command = packed({"cmd": cmd, "tenant": tenant, "project": project, "args": args})
        said = {"name": name, "cmd": cmd, "tenant": tenant, "project": project, "args": shown(args)}
        cases.append({**said, "packed": command.hex(), "sha256": hashlib.sha256(command).hexdigest()})
    text = json.dumps({"about": ABOUT, "cases": cases}, indent=1)
    Path(__file__).with_name("proposals.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
