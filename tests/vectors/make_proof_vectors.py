"""Writes tests/vectors/ledger/{paths,proofs,consistency,cosignatures,keys,segments}.json.

    python tests/vectors/make_proof_vectors.py          writes them
    python tests/vectors/make_proof_vectors.py --check  exits with 1 when a file differs

The same bytes come out every time. They stand on the ledger of make_ledger_vectors.py; docs/ledger.md says what they
mean. Binary values are hex, but for files, which are text.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.ledger.checkpoint import Checkpoint, Cosigner, Signer, add_lines, sign_checkpoint
from immured.ledger.entry import build_line, encode_body, leaf_hash
from immured.ledger.entry_types import LEDGER_KEY_ROTATED, LEDGER_ROTATED
from immured.ledger.key_rotation import KeyRotation
from immured.ledger.merkle import consistency_path, inclusion_path
from immured.ledger.proof import Consistency, Proof
from immured.ledger.rotation import rotated
from immured.ledger.segments import segment_name
from immured.ledger.timestamps import timestamp
from immured.ledger.tree import Frontier
from tests.vectors.make_ledger_vectors import HERE, LINES, NOW_NS, ORIGIN, SIGNER

WITNESSES = [
    Cosigner(Ed25519PrivateKey.from_private_bytes(bytes([0x70 + n]) * 32), f"witness{n}.example") for n in (1, 2, 3)
]
SUCCESSORS = [Signer(Ed25519PrivateKey.from_private_bytes(bytes([0x60 + n]) * 32), ORIGIN) for n in (1, 2)]
TIME_S = 1_790_000_100


class Tree:
    """The hashes over some lines."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.lines = lines
        self.leaves = [leaf_hash(line) for line in lines]

    def node(self, level: int, index: int) -> bytes:
        return Frontier(self.leaves[index << level : (index + 1) << level]).root()

    def head(self, size: int) -> Checkpoint:
        return Checkpoint(ORIGIN, size, Frontier(self.leaves[:size]).root())

    def proof(self, seq: int, note: bytes, size: int) -> Proof:
        return Proof(seq, self.lines[seq], tuple(inclusion_path(self.node, seq, size)), note)

    def consistency(self, old: int, note: bytes, new: int) -> Consistency:
        return Consistency(old, tuple(consistency_path(self.node, old, new)), note)


TREE = Tree(LINES)
NOTE = SIGNER.sign(TREE.head(7))
KEY = SIGNER.verifier.encode()


def _cosigned(*numbers: int, note: bytes = NOTE) -> bytes:
    text = note.partition(b"\n\n")[0] + b"\n"
    return add_lines(note, [WITNESSES[n].line(text, TIME_S + n) for n in numbers])


def paths() -> dict[str, Any]:
    tree = Tree([bytes([n]) for n in range(11)])
    return {
        "about": "Over the first leaves of tree.json: inclusion[size - 1][n] is PATH(n, D[size]), and "
        "consistency[new - 1][old - 1] is PROOF(old, D[new]), both of RFC 6962, section 2.1, in their order.",
        "inclusion": [
            [[one.hex() for one in inclusion_path(tree.node, n, size)] for n in range(size)] for size in range(1, 12)
        ],
        "consistency": [
            [[one.hex() for one in consistency_path(tree.node, old, new)] for old in range(1, new + 1)]
            for new in range(1, 12)
        ],
    }


def _case(name: str, file: bytes, shows: int | None, **trust: Any) -> dict[str, Any]:
    trusted = {"keys": [KEY], "rotations": [], "witnesses": [], "require": 0, **trust}
    return {"name": name, "file": file.decode(), **trusted, "shows": shows}


def proofs() -> dict[str, Any]:
    made = TREE.proof(3, NOTE, 7)
    whole, cosigned = made.encode(), Proof(3, made.line, made.path, _cosigned(0, 1)).encode()
    keys = [one.verifier.encode() for one in WITNESSES]
    small = SIGNER.sign(TREE.head(3))
    other = Signer(Ed25519PrivateKey.from_private_bytes(b"o" * 32), "immured/" + "0" * 32)
    good = [
        *(_case(f"entry {seq} of 7", TREE.proof(seq, NOTE, 7).encode(), seq) for seq in range(7)),
        _case("the only entry", TREE.proof(0, SIGNER.sign(TREE.head(1)), 1).encode(), 0),
        _case("two witnesses cosigned, none is demanded", cosigned, 3),
        _case("both are demanded", cosigned, 3, witnesses=keys[:2], require=2),
        _case("two of three are demanded", cosigned, 3, witnesses=keys, require=2),
    ]
    lines = whole.decode().split("\n")
    flipped = bytearray(made.path[0])
    flipped[0] ^= 1
    bad = {
        "three of three are demanded": (cosigned, {"witnesses": keys, "require": 3}),
        "one that is not known is demanded": (cosigned, {"witnesses": keys[2:], "require": 1}),
        "an altered cosignature of a known witness": (
            Proof(3, made.line, made.path, NOTE + WITNESSES[0].line(TREE.head(6).text(), TIME_S)).encode(),
            {"witnesses": keys[:1], "require": 0},
        ),
        "another entry's line": (Proof(3, LINES[4], made.path, NOTE).encode(), {}),
        "another index": (Proof(4, LINES[3], made.path, NOTE).encode(), {}),
        "another entry's hashes": (Proof(3, LINES[3], TREE.proof(4, NOTE, 7).path, NOTE).encode(), {}),
        "a bit of a hash": (Proof(3, LINES[3], (bytes(flipped), *made.path[1:]), NOTE).encode(), {}),
        "a hash too few": (Proof(3, LINES[3], made.path[:-1], NOTE).encode(), {}),
        "a hash too many": (Proof(3, LINES[3], (*made.path, made.path[0]), NOTE).encode(), {}),
        "a checkpoint that does not reach so far": (Proof(3, LINES[3], made.path, small).encode(), {}),
        "a checkpoint by another key": (Proof(3, LINES[3], made.path, other.sign(TREE.head(7))).encode(), {}),
        "a line that is no entry": (
            Proof(0, b"{}", (), SIGNER.sign(Checkpoint(ORIGIN, 1, leaf_hash(b"{}")))).encode(),
            {},
        ),
        "a first entry that gives another origin": (
            Proof(
                0,
                LINES[0].replace(b"000102", b"ff0102"),
                (),
                SIGNER.sign(Checkpoint(ORIGIN, 1, leaf_hash(LINES[0].replace(b"000102", b"ff0102")))),
            ).encode(),
            {},
        ),
        "version 2": (whole.replace(b"@v1", b"@v2"), {}),
        "no entry": ("\n".join([lines[0], *lines[2:]]).encode(), {}),
        "an index with a zero before it": (whole.replace(b"index 3", b"index 03"), {}),
        "an empty line at the beginning": (b"\n" + whole, {}),
        "an empty line at the end": (whole + b"\n", {}),
        "carriage returns": (whole.replace(b"\n", b"\r\n"), {}),
        "cut within the checkpoint": (whole[:-1], {}),
        "no checkpoint": (whole.partition(b"\n\n")[0] + b"\n", {}),
    }
    return {
        "about": "tlog-proof files, and which entry (`shows`, its seq) each shows to whoever has these keys and "
        "demands `require` of these witnesses; null: it shows nothing.",
        "cases": [*good, *(_case(name, file, None, **trust) for name, (file, trust) in bad.items())],
    }


def cosignatures() -> dict[str, Any]:
    names = [one.verifier.encode() for one in WITNESSES]
    alias = Cosigner(Ed25519PrivateKey.from_private_bytes(bytes([0x71]) * 32), "alias.example")
    text = NOTE.partition(b"\n\n")[0] + b"\n"
    rows: list[tuple[str, bytes, list[str], int | None, list[int]]] = [
        ("none", NOTE, names, 0, []),
        ("one", _cosigned(0), names, 1, [TIME_S]),
        ("three", _cosigned(0, 1, 2), names, 3, [TIME_S, TIME_S + 1, TIME_S + 2]),
        ("one is known", _cosigned(0, 1, 2), names[1:2], 1, [TIME_S + 1]),
        (
            "one key under two names is one witness",
            add_lines(NOTE, [WITNESSES[0].line(text, TIME_S), alias.line(text, TIME_S)]),
            [names[0], alias.verifier.encode()],
            1,
            [TIME_S, TIME_S],
        ),
        ("of another text", NOTE + WITNESSES[0].line(TREE.head(6).text(), TIME_S), names, None, []),
        ("of another text, by an unknown one", NOTE + WITNESSES[0].line(TREE.head(6).text(), TIME_S), names[1:], 0, []),
        ("without the ledger's own signature", text + b"\n" + WITNESSES[0].line(text, TIME_S), names, None, []),
    ]
    return {
        "about": "Checkpoints, and of these witnesses how many (public keys) cosigned each, and when; null: the "
        "whole is to be refused.",
        "key": KEY,
        "cases": [
            {"name": name, "note": note.decode(), "witnesses": known, "count": count, "times": times}
            for name, note, known, count, times in rows
        ],
    }


def _with_rotations() -> tuple[list[bytes], list[int]]:
    """The seven lines, a rotation, two lines more, a rotation, one line more."""
    lines, at = [*LINES], []

    def add(kind: str, data: dict[str, object]) -> None:
        stamp = timestamp(NOW_NS + 10**10 + len(lines))
        lines.append(
            build_line(len(lines), stamp, encode_body(kind, {"ledger": ORIGIN}, data), leaf_hash(lines[-1]).hex())
        )

    signers = [SIGNER, *SUCCESSORS]
    for number, (old, new) in enumerate(itertools.pairwise(signers)):
        at.append(len(lines))
        add(LEDGER_KEY_ROTATED, KeyRotation.made(old, new.verifier).to_map())
        for _ in range(2 - number):
            add("daemon.started", {"boot": "00" * 16})
    return lines, at


def keys() -> dict[str, Any]:
    lines, at = _with_rotations()
    tree, (first, second) = Tree(lines), at
    signers = [SIGNER, *SUCCESSORS]
    vkeys = [one.verifier.encode() for one in signers]
    by_size = {
        7: signers[:1],
        first + 1: signers[:2],
        second: signers[1:2],
        second + 1: signers[1:],
        len(lines): signers[2:],
    }
    notes = [
        {"size": size, "note": sign_checkpoint(tree.head(size), by).decode(), "good": True}
        for size, by in by_size.items()
    ]
    out_of_place = {first + 1: signers[:1], second: signers[:1], 6: signers[1:2], len(lines): signers[:2]}
    notes += [
        {"size": size, "note": sign_checkpoint(tree.head(size), by).decode(), "good": False}
        for size, by in out_of_place.items()
    ]
    rotations = [lines[seq].decode() for seq in at]
    last = len(lines) - 1
    newest = signers[2].sign(tree.head(last + 1))
    both = sign_checkpoint(tree.head(first + 1), signers[:2])
    file = tree.proof(last, newest, last + 1).encode()
    cases = [
        _case("the rotation, by the first key", tree.proof(first, both, first + 1).encode(), first),
        _case("the newest entry, by the newest key", file, last, keys=vkeys[2:]),
        _case("by the first key, with the rotations", file, last, rotations=rotations),
        _case("by the first key, with one of them", file, None, rotations=rotations[:1]),
        _case("by the first key alone", file, None),
        _case(
            "a replaced key signs on",
            tree.proof(last, SIGNER.sign(tree.head(last + 1)), last + 1).encode(),
            None,
            rotations=rotations,
        ),
    ]
    return {
        "about": "A ledger whose key was changed twice: its lines, the keys in their order, checkpoints that a "
        "verifier who knows the first key takes (or not: the key does not count at that size), and proofs.",
        "lines": [line.decode() for line in lines],
        "keys": vkeys,
        "checkpoints": notes,
        "proofs": cases,
    }


def segments() -> dict[str, Any]:
    lines, files, begun = [*LINES[:3]], {}, 0

    def seal(first: int) -> None:
        nonlocal begun
        content = b"".join(line + b"\n" for line in lines[first:])
        files[segment_name(first)] = content.decode()
        leaves = [leaf_hash(line) for line in lines]
        ends = sum(len(line) + 1 for line in lines)
        data = rotated(ORIGIN, Frontier(leaves), first, ends, hashlib.sha256(content).hexdigest())
        stamp = timestamp(NOW_NS + 10**10 + len(lines))
        begun = len(lines)
        body = encode_body(LEDGER_ROTATED, {"ledger": ORIGIN}, data)
        lines.append(build_line(begun, stamp, body, leaves[-1].hex()))

    def add(count: int) -> None:
        for _ in range(count):
            stamp = timestamp(NOW_NS + 10**10 + len(lines))
            body = encode_body("daemon.started", {"ledger": ORIGIN}, {"boot": "00" * 16})
            lines.append(build_line(len(lines), stamp, body, leaf_hash(lines[-1]).hex()))

    seal(0)
    add(4)
    seal(3)
    add(1)
    files["current.jsonl"] = "".join(line.decode() + "\n" for line in lines[begun:])
    tree = Tree(lines)
    return {
        "about": "A ledger in three files, with checkpoints at the ends of the sealed ones and at its own. "
        "Without the first of them it is read from entry 3 on, by the checkpoint of size 3; `proof` shows its last "
        "entry. Its ledger.rotated lines say what was before.",
        "key": KEY,
        "files": files,
        "checkpoints": {str(size): SIGNER.sign(tree.head(size)).decode() for size in (3, 8, len(lines))},
        "roots": [tree.head(size).root.hex() for size in range(1, len(lines) + 1)],
        "proof": tree.proof(len(lines) - 1, SIGNER.sign(tree.head(len(lines))), len(lines)).encode().decode(),
    }


def consistencies() -> dict[str, Any]:
    def row(name: str, file: bytes, older: bytes, good: bool) -> dict[str, Any]:
        return {"name": name, "file": file.decode(), "older": older.decode(), "keys": [KEY], "good": good}

    def note(size: int) -> bytes:
        return SIGNER.sign(TREE.head(size))

    made = [
        row(f"{old} to {new}", TREE.consistency(old, note(new), new).encode(), note(old), True)
        for old, new in ((1, 1), (1, 7), (2, 7), (3, 7), (4, 7), (6, 7), (7, 7), (3, 4))
    ]
    forked = SIGNER.sign(Checkpoint(ORIGIN, 3, bytes(32)))
    from_3, from_5 = TREE.consistency(3, NOTE, 7), TREE.consistency(5, NOTE, 7)
    bad = [
        row("from another tree of that size", from_3.encode(), forked, False),
        row("from another size", from_3.encode(), note(4), False),
        row("another size's hashes", Consistency(3, from_5.path, NOTE).encode(), note(3), False),
        row("a hash too many", Consistency(3, (*from_3.path, bytes(32)), NOTE).encode(), note(3), False),
        row("backwards", Consistency(7, from_3.path, note(3)).encode(), NOTE, False),
        row("two trees of one size", Consistency(3, (), forked).encode(), note(3), False),
    ]
    return {
        "about": "Proofs that the checkpoint in `file` goes on from the one that is `older`.",
        "cases": [*made, *bad],
    }


def _json(made: Callable[[], dict[str, Any]]) -> Callable[[], bytes]:
    def written() -> bytes:
        return (json.dumps(made(), indent=1, ensure_ascii=False) + "\n").encode()

    return written


FILES: dict[str, Callable[[], bytes]] = {
    "paths.json": _json(paths),
    "proofs.json": _json(proofs),
    "consistency.json": _json(consistencies),
    "cosignatures.json": _json(cosignatures),
    "keys.json": _json(keys),
    "segments.json": _json(segments),
}


def main() -> int:
    """Write the files, or compare them; the exit status."""
    different = 0
    for name, make in FILES.items():
        path, content = HERE / name, make()
        if "--check" not in sys.argv[1:]:
            path.write_bytes(content)
        elif not path.exists() or path.read_bytes() != content:
            print(f"{path} differs", file=sys.stderr)
            different = 1
    return different


if __name__ == "__main__":
    sys.exit(main())
