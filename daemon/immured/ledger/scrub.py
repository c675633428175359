"""Secrets stay out: at the ledger's door every text is looked through for those that are known, however encoded.

    scrubber = Scrubber()
    scrubber.add("API_KEY", b"...")          # whoever holds secrets says so, before anything can speak of them
    ledger.scrubber = scrubber

A value is scrubbed before it is shortened, so the digest of a long text is of the scrubbed one: nobody can try secrets
against it. What cannot be seen here: a secret cut in two, compressed, encrypted, or within a digest that came as one.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote_from_bytes

__all__ = ["LEAST", "Scrubber"]

LEAST: Final = 6
"""Bytes of a secret: a shorter one would be found in what has nothing to do with it."""
_LEAST_FORM: Final = 6
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")


class Scrubber:
    """The secrets that are known now. Any thread may add, remove and scrub."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: dict[str, tuple[bytes, ...]] = {}
        self._pattern: re.Pattern[bytes] | None = None
        self._names: dict[bytes, str] = {}

    def __bool__(self) -> bool:
        return self._pattern is not None

    def add(self, name: str, secret: bytes) -> None:
        """Know `secret` by `name`, which stands in its place; in that of an earlier one of the name. Raises ValueError
        for a name that is none, and a secret of less than LEAST bytes."""
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name[:64]!r} names no secret: 1 to 64 of letters, digits and _.:/-")
        if len(secret) < LEAST:
            raise ValueError(f"the secret {name} has less than {LEAST} bytes: it would be found everywhere")
        with self._lock:
            self._compile({**self._secrets, name: tuple(dict.fromkeys(_forms(secret)))})

    def remove(self, name: str) -> None:
        """Forget it. What is not known by that name is none."""
        with self._lock:
            self._compile({known: forms for known, forms in self._secrets.items() if known != name})

    def scrub(
        self, actor: Mapping[str, object], data: Mapping[str, object]
    ) -> tuple[Mapping[str, object], Mapping[str, object]]:
        """Both, with `[secret NAME]` wherever one stood, keys included; the very same maps where none did."""
        pattern, names = self._pattern, self._names
        if pattern is None:
            return actor, data
        return _Pass(pattern, names).value(actor), _Pass(pattern, names).value(data)

    def _compile(self, secrets: dict[str, tuple[bytes, ...]]) -> None:
        self._secrets = secrets
        self._names = {form.lower(): name for name, forms in secrets.items() for form in forms}
        # The longest first: of two that begin alike, the shorter would leave the rest of the longer.
        forms = sorted({form for forms in secrets.values() for form in forms}, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(_expression, forms))) if forms else None


class _Pass:
    """One look through a value."""

    def __init__(self, pattern: re.Pattern[bytes], names: Mapping[bytes, str]) -> None:
        self._pattern = pattern
        self._names = names

    def value(self, value: Any) -> Any:
        """The value, or a copy of it where something was found in it."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            raw = bytes(value)
            return self._octets(raw) if self._pattern.search(raw) else value
        if isinstance(value, Mapping):
            copy = [(self.value(key), self.value(item)) for key, item in value.items()]
            same = all(key is old and item is value[old] for (key, item), old in zip(copy, value, strict=True))
            return value if same else _without_loss(copy)
        if isinstance(value, list | tuple):
            items = [self.value(item) for item in value]
            return value if all(new is old for new, old in zip(items, value, strict=True)) else items
        return value

    def _text(self, text: str) -> str:
        raw = text.encode("utf-8", "surrogatepass") if _lone(text) else text.encode("utf-8", "surrogateescape")
        if self._pattern.search(raw) is None:
            return text
        return self._octets(raw).decode("utf-8", "surrogateescape")

    def _octets(self, raw: bytes) -> bytes:
        return self._pattern.sub(self._marker, raw)

    def _marker(self, found: re.Match[bytes]) -> bytes:
        return f"[secret {self._names.get(found.group().lower(), '?')}]".encode()


def _without_loss(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Two keys can be one after scrubbing; both values stay."""
    copy: dict[Any, Any] = {}
    for key, item in pairs:
        name = key
        while name in copy:
            name += "~" if isinstance(name, str) else b"~"
        copy[name] = item
    return copy


def _lone(text: str) -> bool:
    """Whether the text has surrogates that stand for no byte of a file name (PEP 383)."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return True
    return False


def _forms(secret: bytes) -> Iterator[bytes]:
    """How it may stand in a text: as it is, and as the encodings that texts are made with have it."""
    yield secret
    yield secret.hex().encode()
    yield from _in_base64(secret)
    for safe in ("", "/"):
        yield quote_from_bytes(secret, safe).encode()
    yield quote_from_bytes(secret, "").replace("%20", "+").encode()
    yield "".join(f"%{byte:02X}" for byte in secret).encode()
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return
    for ascii_only in (True, False):
        inner = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield inner.encode()
        yield inner.replace("/", "\\/").encode()
        yield json.dumps(inner, ensure_ascii=ascii_only)[1:-1].encode()  # a JSON text within a JSON text
    yield ascii(text)[1:-1].encode()


def _in_base64(secret: bytes) -> Iterator[bytes]:
    """By itself; and the characters that it makes wherever in a longer value it begins, those that other bytes have no
    part in."""
    yield base64.b64encode(secret)
    yield base64.urlsafe_b64encode(secret)
    for before in range(3):
        whole = base64.b64encode(bytes(before) + secret + b"\0\0\0")
        first, last = -(-before * 8 // 6), (before + len(secret)) * 8 // 6
        inner = whole[first:last]
        if len(inner) >= _LEAST_FORM:
            yield inner
            yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def _expression(form: bytes) -> bytes:
    """A form as a regular expression. Digits of hexadecimal and of percent signs are either case's."""
    if re.fullmatch(rb"(?:[0-9a-f]{2})+", form) or re.search(rb"%[0-9A-F]{2}", form):
        return b"".join(
            b"[%c%c]" % (one, one ^ 0x20) if re.fullmatch(rb"[a-fA-F]", bytes([one])) and _digit(form, at) else
            re.escape(bytes([one]))
            for at, one in enumerate(form)
        )  # fmt: skip
    return re.escape(form)


def _digit(form: bytes, at: int) -> bool:
    """Whether the letter there is a hexadecimal digit: all are, or it follows a percent sign."""
    return b"%" not in form or form[max(0, at - 2) : at].find(b"%") >= 0
