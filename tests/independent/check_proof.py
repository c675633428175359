#!/usr/bin/env python3
"""A checker of immured's proofs, written from docs/ledger.md alone: it imports nothing of immured.

    check_proof.py FILE --key VKEY... [--rotation LINE]... [--witness VKEY]... [--require N]
    check_proof.py FILE --older CHECKPOINT --key VKEY...

Exits 0 when the proof is good, and prints the entry's line or the two sizes; 1 saying what is wrong.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Bad(Exception):
    pass


def unbase64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise Bad("base64") from None
    if base64.b64encode(raw).decode() != text:
        raise Bad("base64")
    return raw


def number(text: str) -> int:
    if not re.fullmatch("0|[1-9][0-9]{0,15}", text):
        raise Bad("number")
    return int(text)


def sha(*pieces: bytes) -> bytes:
    return hashlib.sha256(b"".join(pieces)).digest()


class Key:
    """A verifier key of type 1 (the ledger's) or 4 (a witness's)."""

    def __init__(self, vkey: str, kind: int) -> None:
        self.text = vkey
        self.name, key_id, encoded = vkey.split("+", 2)
        raw = unbase64(encoded)
        self.id = sha(self.name.encode(), b"\n", raw)[:4]
        if len(raw) != 33 or raw[0] != kind or self.id.hex() != key_id:
            raise Bad("verifier key")
        self.raw = raw[1:]

    def signed(self, signature: bytes, message: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


def rotate(known: list[tuple[Key, int, int | None]], line: str) -> None:
    """One `ledger.key_rotated` entry: the old key counts up to size seq, the new one from seq + 1 on."""
    entry = json.loads(line)
    data = entry["data"]
    if entry["type"] != "ledger.key_rotated":
        raise Bad("no rotation")
    for at, (key, since, until) in enumerate(known):
        if key.text == data["old"] and until is None:
            kind = b"application/vnd.immured.ledger-key.v1"
            new = data["new"].encode()
            pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(new), new)
            if not key.signed(bytes.fromhex(data["signature"]), pae):
                raise Bad("rotation: signature")
            made = Key(data["new"], 1)
            if made.name != key.name:
                raise Bad("rotation: name")
            known[at] = key, since, entry["seq"]
            known.append((made, entry["seq"] + 1, None))
            return
    raise Bad("rotation of an unknown key")


def halves(note: bytes) -> tuple[str, list[str]]:
    """A signed note's text, and its signature lines."""
    try:
        whole = note.decode()
    except UnicodeDecodeError:
        raise Bad("UTF-8") from None
    cut = whole.rfind("\n\n")
    if cut < 0 or not whole.endswith("\n") or re.search(r"[\x00-\x09\x0b-\x1f]", whole):
        raise Bad("no signed note")
    return whole[: cut + 1], whole[cut + 2 : -1].split("\n")


def read_note(
    note: bytes, known: list[tuple[Key, int, int | None]], witnesses: list[Key], require: int
) -> tuple[str, int, bytes]:
    """Origin, size and root, once signatures are good."""
    text, rows = halves(note)
    lines = text.split("\n")[:-1]
    if len(lines) != 3:
        raise Bad("no checkpoint")
    origin, size, root = lines[0], number(lines[1]), unbase64(lines[2])
    signed = [signature_line(row) for row in rows]
    own, cosigned = False, set()
    for key, since, until in known:
        if since <= size and (until is None or size <= until):
            for raw in theirs(signed, key):
                if not key.signed(raw, text.encode()):
                    raise Bad("signature")
                own = own or key.name == origin
    for key in witnesses:
        for raw in theirs(signed, key):
            time = int.from_bytes(raw[:8], "big")
            if not key.signed(raw[8:], f"cosignature/v1\ntime {time}\n{text}".encode()):
                raise Bad("cosignature")
            cosigned.add(key.raw)
    if not own:
        raise Bad("signed by no key that counts")
    if len(cosigned) < require:
        raise Bad(f"{len(cosigned)} witnesses")
    return origin, size, root


def signature_line(row: str) -> tuple[str, bytes]:
    found = re.fullmatch("\u2014 ([^ +]+) ([A-Za-z0-9+/=]+)", row)
    if not found:
        raise Bad("signature line")
    return found[1], unbase64(found[2])


def theirs(signed: list[tuple[str, bytes]], key: Key) -> list[bytes]:
    """What stands there as this key's, without its id."""
    return [raw[4:] for name, raw in signed if (name, raw[:4]) == (key.name, key.id)]


def path_root(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root that PATH gives, by its own recursive definition."""
    if size == 1:
        if path:
            raise Bad("hashes left over")
        return leaf
    if not path:
        raise Bad("too few hashes")
    k = 1 << ((size - 1).bit_length() - 1)
    *inner, last = path
    if index < k:
        return sha(b"\x01", path_root(leaf, index, k, inner), last)
    return sha(b"\x01", last, path_root(leaf, index - k, size - k, inner))


def between(old: int, new: int, path: list[bytes], old_root: bytes, whole: bool) -> tuple[bytes, bytes]:
    """The older and the newer root that PROOF gives, by its own recursive definition."""
    if old == new:
        if whole:
            if path:
                raise Bad("hashes left over")
            return old_root, old_root
        if len(path) != 1:
            raise Bad("hashes")
        return path[0], path[0]
    if not path:
        raise Bad("too few hashes")
    k = 1 << ((new - 1).bit_length() - 1)
    *inner, last = path
    if old <= k:
        first, second = between(old, k, inner, old_root, whole)
        return first, sha(b"\x01", second, last)
    first, second = between(old - k, new - k, inner, old_root, False)
    return sha(b"\x01", last, first), sha(b"\x01", last, second)


def main() -> int:
    arguments = argparse.ArgumentParser(description="check a proof of an immured ledger")
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--older", type=Path)
    arguments.add_argument("--key", action="append", default=[])
    arguments.add_argument("--rotation", action="append", default=[])
    arguments.add_argument("--witness", action="append", default=[])
    arguments.add_argument("--require", type=int, default=0)
    given = arguments.parse_args()
    known: list[tuple[Key, int, int | None]] = [(Key(vkey, 1), 0, None) for vkey in given.key]
    for line in given.rotation:
        rotate(known, line)
    head, blank, note = given.file.read_bytes().partition(b"\n\n")
    if not blank:
        raise Bad("no empty line")
    rows = head.decode().split("\n")
    origin, size, root = read_note(note, known, [Key(vkey, 4) for vkey in given.witness], given.require)
    if given.older:
        old_origin, old, old_root = read_note(given.older.read_bytes(), known, [], 0)
        if rows[0] != f"old {old}" or old_origin != origin or old > size:
            raise Bad("not from there")
        hashes = [unbase64(row) for row in rows[1:]]
        if between(old, size, hashes, old_root, True) != (old_root, root):
            raise Bad("does not go on from there")
        print(f"{old} to {size}")
        return 0
    if len(rows) < 3 or rows[0] != "c2sp.org/tlog-proof@v1" or rows[1][:6] != "extra " or rows[2][:6] != "index ":
        raise Bad("no proof")
    line, index = unbase64(rows[1][6:]), number(rows[2][6:])
    names: dict[str, object] = {"__name__": "verify_ledger"}
    beside = Path(__file__).with_name("verify_ledger.py")
    exec(compile(beside.read_text(), str(beside), "exec"), names)
    try:
        entry = names["parse"](line)  # type: ignore[operator]
    except names["Bad"]:  # type: ignore[misc]
        raise Bad("no entry") from None
    leaf = sha(b"\x00", line)
    if entry["seq"] != index or index >= size:
        raise Bad("index")
    if index == 0 and origin != f"immured/{leaf.hex()[:32]}":
        raise Bad("origin")
    if path_root(leaf, index, size, [unbase64(row) for row in rows[3:]]) != root:
        raise Bad("not under that root")
    print(line.decode())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Bad as bad:
        print(f"bad: {bad}")
        sys.exit(1)
