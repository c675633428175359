"""Writes manifest/signatures.json, by docs/manifest.md alone: run it by hand when that changes.

.venv/bin/python tests/vectors/make_signature_vectors.py
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ABOUT = (
    "docs/manifest.md, Signatures. `seed`: the private keys, 32 bytes. A file is taken or it is not: `signatures` is "
    "what it holds, `verifies` for each whether it is the key's over the bytes of `manifest` (hex); `refused` names "
    "the line at which the file is refused, whatever the manifest's bytes."
)
SEEDS = [bytes([7]) * 32, bytes([8]) * 32]
DAY = 86_400_000
NOW = 1_790_000_000_000
MANIFEST = b'schema = 1\nname = "build"\nclass = "default"\n'
HEAD = "immured-signature v1"


def public_of(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def id_of(seed: bytes) -> str:
    return "ed25519:" + hashlib.sha256(public_of(seed)).hexdigest()[:32]


def signed(seed: bytes, raw: bytes, since: int, until: int) -> bytes:
    kind = f"application/vnd.immured.manifest.v1+toml;signed={since};expires={until}"
    message = f"DSSEv1 {len(kind)} {kind} {len(raw)} ".encode() + raw
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def line(seed: bytes, raw: bytes = MANIFEST, since: int = NOW, until: int = NOW + 90 * DAY) -> str:
    return f"{id_of(seed)} {since} {until} {base64.b64encode(signed(seed, raw, since, until)).decode()}"


def good() -> list[dict[str, Any]]:
    """Files that are taken."""
    one, two = SEEDS
    whole = line(one)
    later = f"{id_of(one)} {NOW} {NOW + 91 * DAY} {whole.split()[3]}"
    earlier = f"{id_of(one)} {NOW - 1} {NOW + 90 * DAY} {whole.split()[3]}"
    cases: list[tuple[str, bytes, list[str], list[bool]]] = [
        ("one key", MANIFEST, [whole], [True]),
        ("two keys, in the order of the file", MANIFEST, [line(two), whole], [True, True]),
        ("the longest time", MANIFEST, [line(one, until=NOW + 366 * DAY)], [True]),
        ("the shortest time", MANIFEST, [line(one, until=NOW + 1)], [True]),
        ("the epoch", MANIFEST, [line(one, since=0, until=1)], [True]),
        ("bytes that are no manifest", b"\xff\x00", [line(one, b"\xff\x00")], [True]),
        ("no bytes at all", b"", [line(one, b"")], [True]),
        ("a byte of the manifest is another", MANIFEST.replace(b"1", b"2"), [whole], [False]),
        ("a line feed is missing at its end", MANIFEST[:-1], [whole], [False]),
        ("line feeds became CRLF", MANIFEST.replace(b"\n", b"\r\n"), [whole], [False]),
        ("a later end was written over it", MANIFEST, [later], [False]),
        ("an earlier time was written over it", MANIFEST, [earlier], [False]),
        ("another key's name stands before it", MANIFEST, [f"{id_of(two)} {whole.split(' ', 1)[1]}"], [False]),
        ("one of two is another file's", MANIFEST, [whole, line(two, b"other")], [True, False]),
    ]
    return [
        {
            "name": name,
            "manifest": raw.hex(),
            "text": "\n".join([HEAD, *lines, ""]),
            "signatures": [
                {"key": words[0], "signed_ms": int(words[1]), "expires_ms": int(words[2]), "verifies": verifies}
                for words, verifies in zip(map(str.split, lines), verified, strict=True)
            ],
        }
        for name, raw, lines, verified in cases
    ]


def bad() -> list[dict[str, Any]]:
    """Files that are refused, and the line at fault."""
    whole = line(SEEDS[0])
    key, since, until, encoded = whole.split(" ")
    keys = [bytes([n]) * 32 for n in range(16, 25)]

    def text(*lines: str, head: str = HEAD) -> str:
        return "\n".join([head, *lines, ""])

    def with_(**fields: str) -> str:
        words = {"key": key, "since": since, "until": until, "encoded": encoded, **fields}
        return text(" ".join(words.values()))

    cases: list[tuple[str, str, int]] = [
        ("empty", "", 1),
        ("no first line", whole + "\n", 1),
        ("another version", text(whole, head="immured-signature v2"), 1),
        ("a byte order mark", "\ufeff" + text(whole), 1),
        ("no signature", HEAD + "\n", 1),
        ("the first line is not ended", HEAD, 1),
        ("the last line is not ended", text(whole)[:-1], 2),
        ("CRLF", text(whole).replace("\n", "\r\n"), 1),
        ("CRLF after a signature alone", text(whole + "\r"), 2),
        ("an empty line", text(whole, ""), 3),
        ("a comment", text("# by ada", whole), 2),
        ("nine keys", text(*(line(one) for one in keys)), 10),
        ("a key twice", text(whole, line(SEEDS[0], until=NOW + DAY)), 3),
        ("two spaces", text(whole.replace(" ", "  ", 1)), 2),
        ("a tab", text(whole.replace(" ", "\t", 1)), 2),
        ("a space at the end", text(whole + " "), 2),
        ("a space before it", text(" " + whole), 2),
        ("a word too many", text(whole + " ada"), 2),
        ("a word too few", text(whole.rsplit(" ", 1)[0]), 2),
        ("another kind of key", with_(key=key.replace("ed25519", "ecdsa")), 2),
        ("a key id in capitals", with_(key=key.replace("ed25519:", "").upper()), 2),
        ("a short key id", with_(key=key[:-1]), 2),
        ("signed with a zero before it", with_(since="0" + since), 2),
        ("signed with a sign", with_(since="+" + since), 2),
        ("signed before the epoch", with_(since="-1"), 2),
        ("signed in digits of another script", with_(since="".join(chr(0x660 + int(one)) for one in since)), 1),
        ("signed with an underscore", with_(since=since[:3] + "_" + since[3:]), 2),
        ("signed in hex", with_(since=hex(int(since))), 2),
        ("signed with a fraction", with_(since=since + ".0"), 2),
        ("past what JSON can hold", with_(since=str(2**53), until=str(2**53 + 1)), 2),
        ("a time of a hundred digits", with_(since="1" * 100), 2),
        ("expires as it is signed", with_(until=since), 2),
        ("expires before it is signed", with_(until=str(NOW - 1)), 2),
        ("a millisecond past 366 days", with_(until=str(NOW + 366 * DAY + 1)), 2),
        ("base64 without its padding", with_(encoded=encoded.rstrip("=")), 2),
        ("base64 for addresses", with_(encoded=base64.urlsafe_b64encode(bytes([251]) * 64).decode()), 2),
        ("base64 with spare bits", with_(encoded=encoded[:85] + chr(ord(encoded[85]) + 1) + "=="), 2),
        ("63 bytes", with_(encoded=base64.b64encode(bytes(63)).decode()), 2),
        ("65 bytes", with_(encoded=base64.b64encode(bytes(65)).decode()), 2),
        ("no bytes", text(f"{key} {since} {until} "), 2),
        ("hex", with_(encoded="00" * 64), 2),
        ("no ASCII", text(whole, "ключ"), 1),
        ("a NUL", text(whole + "\0"), 2),
        ("too long", text(whole, "x" * 2048), 1),
    ]
    return [{"name": name, "text": text_, "refused": {"line": number}} for name, text_, number in cases]


def main() -> None:
    """Write the file."""
    keys = [{"seed": one.hex(), "public": public_of(one).hex(), "id": id_of(one)} for one in SEEDS]
    text = json.dumps({"about": ABOUT, "keys": keys, "cases": [*good(), *bad()]}, indent=1)
    path = Path(__file__).with_name("manifest") / "signatures.json"
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
