"""Writes tests/vectors/ledger/: a small ledger, ways to damage it, and values as they enter, for any implementation.

    python tests/vectors/make_ledger_vectors.py          writes them
    python tests/vectors/make_ledger_vectors.py --check  exits with 1 when a file differs

The same bytes come out every time: keys, clock and randomness are fixed. Binary values are hex.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.ledger.checkpoint import Checkpoint, Signer, file_name, origin_of
from immured.ledger.entry import NO_LEAF, build_line, encode_body, encode_value, leaf_hash
from immured.ledger.timestamps import timestamp
from immured.ledger.tree import EMPTY_ROOT, Frontier

HERE = Path(__file__).resolve().parent / "ledger"
SEED = bytes(range(0x40, 0x60))
NOW_NS = 1_790_000_000_123_456_789
DAEMON = "ed25519:" + hashlib.sha256(b"daemon").hexdigest()[:32]
ALICE = {"key": "ed25519:" + hashlib.sha256(b"alice").hexdigest()[:32], "name": "alice", "uid": 1000}
PRIVATE = Ed25519PrivateKey.from_private_bytes(SEED)
SIGNED = (1, 3, 7)


def _public() -> bytes:
    return Signer(PRIVATE, "x").verifier.public


def _request(cmd: str, number: int) -> dict[str, object]:
    return {
        "cmd": cmd,
        "nonce": (bytes([number]) * 16).hex(),
        "payload": hashlib.sha256(bytes([number])).hexdigest(),
        "iat": NOW_NS // 10**6,
        "exp": NOW_NS // 10**6 + 60_000,
    }


def _entries() -> list[tuple[str, dict[str, object], dict[str, object]]]:
    daemon: dict[str, object] = {"daemon": DAEMON}
    sandbox = "s0123456789abcdef0123"
    argv = ["/bin/sh", "-c", "printf 'zwölf\\n' \u202e", b"/tmp/\xff", "x" * 1025]
    intent = {**_request("run", 1), "sandbox": sandbox, "argv": argv, "enforcement": {"memory": "cgroup"}}
    outcome = {
        "sandbox": sandbox,
        "intent": 2,
        "cause": "exited",
        "exit_code": 0,
        "usage": {"wall_ms": 3, "cpu_ms": 2},
        "streams": {"stdout": {"sha256": hashlib.sha256("zwölf\n".encode()).hexdigest(), "length": 7}},
    }
    return [
        ("ledger.created", daemon, {"random": bytes(range(16)).hex(), "daemon": DAEMON, "ledger_key": _public().hex()}),
        ("daemon.started", daemon, {"version": "0.1.0", "boot": "ab" * 16, "pid": 4711, "kernel": "6.1.0"}),
        ("run.accepted", dict(ALICE), intent),
        ("run.finished", daemon, outcome),
        ("command.denied", dict(ALICE), {**_request("key.add", 2), "code": "denied", "message": "runners add no keys"}),
        ("peer.misbehaved", daemon, {"uid": 1001, "count": 2**53, "codes": {"bad_frame": 3}}),
        ("daemon.stopped", daemon, {"reason": "asked to stop"}),
    ]


def _lines() -> list[bytes]:
    lines: list[bytes] = []
    for seq, (kind, actor, data) in enumerate(_entries()):
        prev = leaf_hash(lines[-1]).hex() if lines else NO_LEAF
        lines.append(build_line(seq, timestamp(NOW_NS + seq * 1_000_003), encode_body(kind, actor, data), prev))
    return lines


LINES = _lines()
WHOLE = b"".join(line + b"\n" for line in LINES)
ORIGIN = origin_of(leaf_hash(LINES[0]))
SIGNER = Signer(PRIVATE, ORIGIN)


def _note(size: int) -> bytes:
    return SIGNER.sign(Checkpoint(ORIGIN, size, Frontier(leaf_hash(line) for line in LINES[:size]).root()))


def values() -> dict[str, Any]:
    texts = {
        "short text": "grüße",
        "text of 1,024 bytes": "é" * 512,
        "text of 1,026 bytes": "é" * 513,
        "text whose head would end within a character": "x" + "é" * 600,
        "text of digits": "12",
    }
    octets = {
        "bytes that are UTF-8": "grüße".encode(),
        "bytes that are not": b"/tmp/\xff\xfe",
        "1,025 bytes that are not": b"\xff" * 1025,
        "1,025 bytes that are": b"y" * 1025,
        "no bytes": b"",
    }
    numbers = [0, -1, 2**53 - 1, -(2**53) + 1, 2**53, -(2**53), 2**64 - 1]
    keys: dict[str, dict[Any, Any]] = {
        "a key of bytes that are not UTF-8": {b"/tmp/\xff": 1},
        "a key of 1,025 bytes": {"k" * 1025: 1},
        "two keys that enter alike": {"k": 1, b"k": 2},
    }
    return {
        "about": "A value, and what an entry holds in its place. `text`, `hex`, `digits` or `pairs` (of keys in hex).",
        "cases": [
            *({"name": name, "text": text, "enters": encode_value(text)} for name, text in texts.items()),
            *({"name": name, "hex": raw.hex(), "enters": encode_value(raw)} for name, raw in octets.items()),
            *({"name": f"the integer {n}", "digits": str(n), "enters": encode_value(n)} for n in numbers),
            *(
                {
                    "name": name,
                    "pairs": [[(k.encode() if isinstance(k, str) else k).hex(), v] for k, v in given.items()],
                    "enters": encode_value(given),
                }
                for name, given in keys.items()
            ),
        ],
    }


def _pieces(line: bytes) -> list[list[object]]:
    run = re.search(b"x{1000,}", line)
    if run is None:
        return [[line.hex(), 1]]
    return [[line[: run.start()].hex(), 1], [b"x".hex(), len(run[0])], [line[run.end() :].hex(), 1]]


def lines() -> dict[str, Any]:
    good = LINES[1].decode()
    fields = json.loads(good)
    bad = {
        "empty": "",
        "white space before": " " + good,
        "white space after": good + " ",
        "two objects": good + good,
        "a carriage return after": good + "\r",
        "cut short": good[:-1],
        "a list": "[]",
        "a byte order mark": "\ufeff" + good,
        "a field missing": good.replace('"v":1,', ""),
        "a field too many": good.replace('"v":1,', '"v":1,"w":1,'),
        "a field twice": good.replace('"v":1,', '"v":1,"v":1,'),
        "a key twice in data": good.replace('"pid":4711', '"pid":4711,"pid":4711'),
        "a fraction": good.replace("4711", "4711.0"),
        "an exponent": good.replace("4711", "4711e0"),
        "2**53": good.replace("4711", str(2**53)),
        "NaN": good.replace("4711", "NaN"),
        "null": good.replace("4711", "null"),
        "half a surrogate pair": good.replace("4711", '"\\ud800"'),
        "17 levels": good.replace("4711", "[" * 15 + "]" * 15),
        "65,536 bytes": good.replace("4711", '"' + "x" * (65_536 - len(good.encode()) + 2) + '"'),
        "version 2": good.replace('"v":1', '"v":2'),
        "a version that is true": good.replace('"v":1', '"v":true'),
        "a seq that is text": good.replace('"seq":1', '"seq":"1"'),
        "a time with six digits": good.replace(fields["ts"], fields["ts"][:-4] + "Z"),
        "a time with an offset": good.replace(fields["ts"], fields["ts"][:-1] + "+00:00"),
        "30 February": good.replace(fields["ts"][:10], "2026-02-30"),
        "a type in capitals": good.replace("daemon.started", "Daemon.Started"),
        "a type without a dot": good.replace("daemon.started", "daemonstarted"),
        "an actor that is text": good.replace(json.dumps(fields["actor"], separators=(",", ":")), '"root"'),
        "a prev in capitals": good.replace(fields["prev"], fields["prev"].upper()),
    }
    unusual = {
        "fields in another order, with spaces": json.dumps(dict(reversed(fields.items()))),
        "an unknown type": good.replace("daemon.started", "later.invention"),
        "members that nobody knows": good.replace('"pid":4711', '"pid":4711,"later":{"a":[true,false,-1]}'),
        "16 levels": good.replace("4711", "[" * 14 + "]" * 14),
        "65,535 bytes": good.replace("4711", '"' + "x" * (65_535 - len(good.encode()) + 2) + '"'),
        "an escaped pair": good.replace("4711", '"\\ud83d\\ude00"'),
    }
    return {
        "about": "Lines by themselves, their place in a chain aside: those that a reader takes, with their leaf, and "
        "those that it refuses. A line is its pieces one after another, each hex and how many times it stands there.",
        "good": [
            {"name": name, "pieces": _pieces(text.encode()), "leaf": leaf_hash(text.encode()).hex()}
            for name, text in {"as the daemon writes it": good, **unusual}.items()
        ],
        "bad": [
            *({"name": name, "pieces": _pieces(text.encode())} for name, text in bad.items()),
            {"name": "not UTF-8", "pieces": _pieces(good.encode().replace(b"4711", b'"\xff"'))},
            {"name": "an overlong NUL", "pieces": _pieces(good.encode().replace(b"4711", b'"\xc0\x80"'))},
        ],
    }


def tree() -> dict[str, Any]:
    leaves = [leaf_hash(bytes([n])) for n in range(20)]
    return {
        "about": "Roots over the leaf hashes of the one-byte lines 00, 01, 02, ... ; `roots[n]` is of the first n.",
        "leaves": [one.hex() for one in leaves],
        "roots": [EMPTY_ROOT.hex(), *(Frontier(leaves[:size]).root().hex() for size in range(1, 21))],
    }


def damage() -> dict[str, Any]:
    starts = [sum(len(line) + 1 for line in LINES[:n]) for n in range(len(LINES) + 1)]

    def case(name: str, line: int, alone: int | None, *splices: tuple[int, int, bytes]) -> dict[str, Any]:
        edits = [{"at": at, "remove": remove, "insert": insert.hex()} for at, remove, insert in splices]
        return {"name": name, "splices": edits, "line": line, "line_without_checkpoints": alone}

    def flip(position: int) -> tuple[int, int, bytes]:
        return position, 1, bytes([WHOLE[position] ^ 1])

    third = starts[3] + LINES[3].index(b'"exit_code":0') + 12
    last = starts[6] + LINES[6].index(b"asked")
    forged = build_line(6, timestamp(NOW_NS), encode_body("daemon.stopped", {}, {}), leaf_hash(LINES[5]).hex())
    return {
        "about": "Ways to damage current.jsonl: splices (at this byte: remove so many, insert these), and the line, "
        "from 1, that a verifier names with the checkpoints and keys, and without; null: it cannot see it.",
        "cases": [
            case("a digit of an outcome", 4, 4, flip(third)),
            case("the last line altered", 7, None, flip(last)),
            case("the line before the last altered", 6, 6, flip(starts[5] + LINES[5].index(b"bad_frame"))),
            case("a digit of a prev", 4, 4, (starts[4] - 4, 1, b"0" if WHOLE[starts[4] - 4] != 48 else b"1")),
            case("a line taken out", 3, 3, (starts[2], len(LINES[2]) + 1, b"")),
            case("the first line taken out", 1, 1, (0, starts[1], b"")),
            case("a line doubled", 4, 4, (starts[3], 0, LINES[2] + b"\n")),
            case(
                "two lines exchanged",
                3,
                3,
                (starts[2], starts[4] - starts[2], LINES[3] + b"\n" + LINES[2] + b"\n"),
            ),
            case("an empty line put in", 3, 3, (starts[2], 0, b"\n")),
            case("the last line missing", 7, None, (starts[6], starts[7] - starts[6], b"")),
            case("the last newline missing", 7, 7, (starts[7] - 1, 1, b"")),
            case("the last line cut", 7, 7, (starts[7] - 20, 20, b"")),
            case("another last line, well chained", 7, None, (starts[6], len(LINES[6]), forged)),
            case("nothing left", 1, 1, (0, len(WHOLE), b"")),
        ],
    }


def _json(made: Callable[[], dict[str, Any]]) -> Callable[[], bytes]:
    def written() -> bytes:
        return (json.dumps(made(), indent=1) + "\n").encode()

    return written


FILES: dict[str, Callable[[], bytes]] = {
    "current.jsonl": lambda: WHOLE,
    "ledger.vkey": lambda: SIGNER.verifier.encode().encode() + b"\n",
    **{f"checkpoints/{file_name(size)}": (lambda size=size: _note(size)) for size in SIGNED},  # type: ignore[misc]
    "values.json": _json(values),
    "lines.json": _json(lines),
    "tree.json": _json(tree),
    "damage.json": _json(damage),
}


def contents() -> dict[str, bytes]:
    """Every file's content by name."""
    return {name: make() for name, make in FILES.items()}


def main() -> int:
    """Write the files, or compare them; the exit status."""
    different = 0
    for name, content in contents().items():
        path = HERE / name
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_bytes() != content:
                print(f"{path} differs", file=sys.stderr)
                different = 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return different


if __name__ == "__main__":
    sys.exit(main())
