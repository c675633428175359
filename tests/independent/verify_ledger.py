#!/usr/bin/env python3
"""A verifier of immured ledgers, written from docs/ledger.md alone: it imports nothing of immured.

    verify_ledger.py CURRENT.JSONL [--checkpoints DIR --vkey FILE]

Exits 0 when the ledger is whole; 1 naming the first bad line (from 1) or checkpoint; 2 when it cannot read.
"""

from __future__ import annotations

import argparse
import base64
import datetime as dt
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FIELDS = {"v", "seq", "ts", "type", "actor", "data", "prev"}


class Bad(Exception):
    pass


def leaf(line: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + line).digest()


def refuse_number(text: str) -> NoReturn:
    raise Bad(f"number {text[:40]}")


def integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > 2**53 - 1:
        refuse_number(text)
    return int(text)


def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise Bad("duplicate key")
    return dict(pairs)


def walk(value: object, level: int) -> None:
    if value is None:
        raise Bad("null")
    if isinstance(value, str):
        value.encode()  # half a surrogate pair raises UnicodeEncodeError, a ValueError
    elif isinstance(value, list | dict):
        if level > 16:
            raise Bad("too deep")
        for item in value:
            walk(item, level + 1)
        if isinstance(value, dict):
            for item in value.values():
                walk(item, level + 1)


def parse(line: bytes) -> dict[str, object]:
    """The fields of a line, or Bad."""
    if len(line) > 65_535:
        raise Bad("over 65,535 bytes")
    try:
        text = line.decode("utf-8")
        if text[:1] != "{" or text[-1:] != "}":
            raise Bad("not one object")
        fields: dict[str, object] = json.loads(
            text, object_pairs_hook=members, parse_int=integer, parse_float=refuse_number, parse_constant=refuse_number
        )
        walk(fields, 1)
    except (ValueError, RecursionError) as error:
        raise Bad(str(error)) from None
    if set(fields) != FIELDS:
        raise Bad("fields")
    if type(fields["v"]) is not int or fields["v"] != 1:
        raise Bad("v")
    if type(fields["seq"]) is not int:
        raise Bad("seq")
    stamp = fields["ts"]
    if not isinstance(stamp, str) or not re.fullmatch(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z", stamp
    ):
        raise Bad("ts")
    try:
        dt.datetime.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")  # noqa: DTZ007
    except ValueError:
        raise Bad("ts") from None
    kind = fields["type"]
    if not isinstance(kind, str) or len(kind) > 64 or not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", kind):
        raise Bad("type")
    if not isinstance(fields["actor"], dict) or not isinstance(fields["data"], dict):
        raise Bad("actor or data")
    if not isinstance(fields["prev"], str) or not re.fullmatch(r"[0-9a-f]{64}", fields["prev"]):
        raise Bad("prev")
    return fields


def root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, by the perfect subtrees: (size, hash), joined while sizes are equal."""
    stack: list[tuple[int, bytes]] = []
    for one in leaves:
        size, node = 1, one
        while stack and stack[-1][0] == size:
            node = hashlib.sha256(b"\x01" + stack.pop()[1] + node).digest()
            size *= 2
        stack.append((size, node))
    if not stack:
        return hashlib.sha256(b"").digest()
    node = stack.pop()[1]
    while stack:
        node = hashlib.sha256(b"\x01" + stack.pop()[1] + node).digest()
    return node


def read_vkeys(path: Path) -> dict[tuple[str, bytes], Ed25519PublicKey]:
    lines = (line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#"))
    return dict(map(read_vkey, lines))


Keys = dict[tuple[str, bytes], Ed25519PublicKey]


def in_force(content: bytes, keys: Keys) -> list[tuple[int, Keys]]:
    """From which size on which keys sign: `ledger.key_rotated` gives one's place to another."""
    spans = [(0, dict(keys))]
    for row in content.split(b"\n")[:-1]:
        if b"ledger.key_rotated" not in row:
            continue
        try:
            fields = parse(row)
        except Bad:
            break  # the line is named later
        data, seq = fields["data"], fields["seq"]
        if fields["type"] != "ledger.key_rotated" or not isinstance(data, dict) or not isinstance(seq, int):
            continue
        old, new = (read_vkey(str(data[name])) for name in ("old", "new"))
        now = dict(spans[-1][1])
        if old[0] not in now:
            continue
        text = str(data["new"]).encode()
        kind = b"application/vnd.immured.ledger-key.v1"
        try:
            old[1].verify(
                bytes.fromhex(str(data["signature"])), b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(text), text)
            )
        except InvalidSignature:
            raise Bad("rotation") from None
        del now[old[0]]
        now[new[0]] = new[1]
        for at, (since, before) in enumerate(spans):
            spans[at] = since, {name: key for name, key in before.items() if name != new[0]}
        spans.append((seq + 1, now))
    return spans


def read_vkey(line: str) -> tuple[tuple[str, bytes], Ed25519PublicKey]:
    name, key_id, encoded = line.strip().split("+", 2)
    raw = base64.b64decode(encoded, validate=True)
    if len(raw) != 33 or raw[0] != 1:
        raise Bad("verifier key: type")
    expected = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    if expected.hex() != key_id:
        raise Bad("verifier key: id")
    return (name, expected), Ed25519PublicKey.from_public_bytes(raw[1:])


def size_of(note: bytes) -> int:
    return int(note.split(b"\n")[1])


def read_checkpoint(note: bytes, keys: Keys) -> tuple[str, int, bytes]:
    whole = note.decode("utf-8")
    cut = whole.rfind("\n\n")
    if cut < 0 or not whole.endswith("\n") or re.search(r"[\x00-\x09\x0b-\x1f]", whole):
        raise Bad("not a signed note")
    text, signatures = whole[: cut + 1], whole[cut + 2 : -1].split("\n")
    good = 0
    for line in signatures:
        found = re.fullmatch("\u2014 ([^ +]+) ([A-Za-z0-9+/]+=*)", line)
        if not found:
            raise Bad("signature line")
        raw = base64.b64decode(found[2], validate=True)
        if base64.b64encode(raw).decode() != found[2]:
            raise Bad("signature base64")
        key = keys.get((found[1], raw[:4]))
        if key is None:
            continue
        try:
            key.verify(raw[4:], text.encode())
        except InvalidSignature:
            raise Bad("signature") from None
        good += found[1] == text.partition("\n")[0]  # another ledger's key says nothing of this one
    if not good:
        raise Bad("signed by no known key")
    lines = text.split("\n")[:-1]
    if len(lines) != 3 or not re.fullmatch("0|[1-9][0-9]*", lines[1]):
        raise Bad("not a checkpoint")
    return lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True)


def blame(n: int, rows: list[bytes], leaves: list[bytes], heads: dict[int, tuple[str, bytes]]) -> int:
    """Line n's `prev` is not the leaf of line n-1: the index of the one that was altered."""
    if n + 1 < len(rows):
        try:
            return n - 1 if parse(rows[n + 1])["prev"] == leaf(rows[n]).hex() else n
        except Bad:
            return n
    if n in heads:
        return n
    if n + 1 in heads:
        wrong = parse(rows[n])["prev"]
        mended = rows[n].replace(str(wrong).encode(), leaves[-1].hex().encode())
        return n if root([*leaves, leaf(mended)]) == heads[n + 1][1] else n - 1
    return n - 1


def is_alone(n: int, rows: list[bytes]) -> bool:
    """Whether nothing is linked to line n, so that it can have been altered alone."""
    if n + 1 == len(rows):
        return True
    try:
        return parse(rows[n + 1])["prev"] != leaf(rows[n]).hex()
    except Bad:
        return False


def verify(content: bytes, heads: dict[int, tuple[str, bytes]]) -> tuple[int, str] | None:
    """The first bad line, from 1, and what is wrong; None when the ledger is whole."""
    rows = content.split(b"\n")
    unfinished = rows.pop()
    leaves: list[bytes] = []
    covered = 0
    for n, row in enumerate(rows):
        try:
            fields = parse(row)
            if fields["seq"] != n:
                raise Bad(f"seq {fields['seq']}, expected {n}")
        except Bad as error:
            return n + 1, str(error)
        expected = leaves[-1].hex() if leaves else "0" * 64
        if fields["prev"] != expected:
            return (blame(n, rows, leaves, heads) if n else 0) + 1, "broken chain"
        data = fields["data"]
        assert isinstance(data, dict)
        if n == 0 and (
            fields["type"] != "ledger.created" or not re.fullmatch("[0-9a-f]{32}", str(data.get("random", "")))
        ):
            return 1, "not the beginning of a ledger"
        leaves.append(leaf(row))
        if n + 1 in heads:
            if heads[n + 1] != ("immured/" + leaves[0].hex()[:32], root(leaves)):
                return (n + 1 if is_alone(n, rows) else covered + 1), f"not as signed at size {n + 1}"
            covered = n + 1
    if unfinished:
        return len(rows) + 1, "torn: no newline at the end"
    if not leaves:
        return 1, "empty"
    if heads and max(heads) > len(leaves):
        return len(leaves) + 1, f"missing: {max(heads)} entries were signed"
    print(f"whole: {len(leaves)} entries, {covered} of them signed, root {root(leaves).hex()}")
    return None


def main() -> int:
    arguments = argparse.ArgumentParser(description="verify an immured ledger")
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--checkpoints", type=Path)
    arguments.add_argument("--vkey", type=Path)
    given = arguments.parse_args()
    heads: dict[int, tuple[str, bytes]] = {}
    status = 0
    if given.checkpoints:
        spans = in_force(given.file.read_bytes(), read_vkeys(given.vkey))
        for path in sorted(given.checkpoints.iterdir()):
            if not re.fullmatch("[0-9]{20}", path.name):
                continue
            try:
                note = path.read_bytes()
                keys = [keys for since, keys in spans if since <= size_of(note)][-1]
                origin, size, top = read_checkpoint(note, keys)
                if f"{size:020d}" != path.name:
                    raise Bad("its size is not its name")
                heads[size] = origin, top
            except (Bad, ValueError, IndexError) as error:
                print(f"checkpoint {path.name}: {error}")
                status = 1
    found = verify(given.file.read_bytes(), heads)
    if found:
        print(f"line {found[0]}: {found[1]}")
        return 1
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as failed:
        print(failed, file=sys.stderr)
        sys.exit(2)
