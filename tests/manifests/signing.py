"""Signature files for the tests of the corpus: good ones, and those that a case of signed.toml describes."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from typing import Any, Final

from immured.manifest.signature import DEFAULT_LIFE_MS, HEAD, show_signatures, sign, signed_type
from immured.wire.envelope import pae
from immured.wire.keys import PrivateKey

__all__ = ["manifest_of", "now_ms", "places_of", "put", "signed"]

_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""Of Ed25519's group: a signature with it added to its second half is another form of the same one."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def signed(raw: bytes, *keys: PrivateKey, life_ms: int = DEFAULT_LIFE_MS, at_ms: int | None = None) -> bytes:
    """The text of these keys' signatures over these bytes."""
    at = now_ms() if at_ms is None else at_ms
    return show_signatures([sign(key, raw, at, at + life_ms) for key in keys]).encode()


def manifest_of(name: str, case: Mapping[str, Any]) -> bytes:
    """The manifest that a case is about. `manifest`: a line more."""
    return f'schema = 1\nname = "{name}"\n{case.get("manifest", "")}\n'.encode()


def places_of(raw: bytes, case: Mapping[str, Any], keys: Mapping[str, PrivateKey], now: int) -> dict[str, str]:
    """What stands in the places of a case's texts: `{line.1}` is the line of the first of `signers`, `{key.1}`,
    `{signed.1}`, `{expires.1}` and `{base64.1}` are its words, and so on; `{text}` is the whole file.

    `at_ms` of each signer: counted from now, or since the epoch behind a `=`; `life_ms` of each; `over` of each, empty
    for the manifest; `type`: what is signed it under.
    """
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    places = {"digest": digest, "zeros": "0" * 2048, "zero64": base64.b64encode(bytes(64)).decode()}
    signers = case.get("signers", [])
    for number, name in enumerate(signers, 1):
        at = _nth(case, "at_ms", number, 0)
        start = int(at[1:]) if isinstance(at, str) else now + at
        end = start + _nth(case, "life_ms", number, DEFAULT_LIFE_MS)
        times = {f"signed.{number}": str(start), f"expires.{number}": str(end)}
        over = put(_nth(case, "over", number, ""), places).encode() or raw
        kind = put(case["type"], times) if "type" in case else signed_type(start, end)
        places |= times | _forms(number, keys[name], keys[name].sign(pae(kind, over)), start, end)
    places["text"] = HEAD + "\n" + "".join(places[f"line.{number}"] + "\n" for number in range(1, len(signers) + 1))
    return places


def _forms(number: int, key: PrivateKey, raw: bytes, start: int, end: int) -> dict[str, str]:
    """A signature in all the ways in which it is written, well and badly."""
    good = base64.b64encode(raw).decode()
    bits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    malleable = raw[:32] + ((int.from_bytes(raw[32:], "little") + _ORDER) % 2**256).to_bytes(32, "little")
    forms = {
        "line": f"{key.id} {start} {end} {good}",
        "key": key.id,
        "KEY": key.id.upper(),
        "hex": key.id.partition(":")[2],
        "base64": good,
        "later": str(end + 1),
        "earlier": str(start - 1),
        "unpadded": good.rstrip("="),
        "loose": good[:85] + bits[bits.index(good[85]) | 1] + "==",
        "tail": good[2:],
        "rawhex": raw.hex(),
        "short": base64.b64encode(raw[:63]).decode(),
        "long": base64.b64encode(raw + b"\0").decode(),
        "flipped": base64.b64encode(bytes([raw[0] ^ 1]) + raw[1:]).decode(),
        "malleable": base64.b64encode(malleable).decode(),
    }
    return {f"{name}.{number}": form for name, form in forms.items()}


def _nth(case: Mapping[str, Any], name: str, number: int, default: Any) -> Any:
    values = case.get(name, [])
    return values[number - 1] if len(values) >= number else default


def put(text: str, places: Mapping[str, str]) -> str:
    """The text with every `{place}` filled in."""
    for name, value in places.items():
        text = text.replace("{" + name + "}", value)
    return text
