"""The keys that may give orders: who they belong to, their role, and what they are bound to. Pure data.

The file is `DIR/keys/keyring.json`: `{"v": 1, "as_of": N, "keys": [...]}`, one record a key:
`{"id", "public", "name", "role", "added"}` and optionally `"uids"`, `"personas"`, `"tenants"`. `public` is the raw
32-byte key in hex; `as_of` is the sequence number of the last ledger entry that this file already holds the effect of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from immured.errors import ConfigurationError, Refused
from immured.wire.keys import PublicKey

__all__ = ["MAX_KEYS", "MAX_LABELS", "KeyRecord", "Keyring", "Role", "check_key_name", "check_label", "check_uids"]

MAX_KEYS: Final = 4096
MAX_UIDS: Final = 64
MAX_LABELS: Final = 64
_KEY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_MAX_UID: Final = 2**32 - 2


class Role(StrEnum):
    """What a key is for; `authorise.GRANTED` says what each may do."""

    ADMIN = "admin"
    RUNNER = "runner"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key. `uids` empty: any peer may present it; else only a peer with one of these uids.

    `personas` and `tenants` are the names that a command under this key may carry; an admin's key may carry any.
    `added` is RFC 3339, UTC.
    """

    public: PublicKey
    name: str
    role: Role
    added: str
    uids: frozenset[int] = frozenset()
    personas: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        """The key's id, `ed25519:<32 hex>`."""
        return self.public.id

    def to_map(self) -> dict[str, object]:
        """The record as JSON holds it; empty bindings are left out."""
        shown: dict[str, object] = {
            "id": self.id,
            "public": self.public.raw.hex(),
            "name": self.name,
            "role": self.role.value,
            "added": self.added,
        }
        for field, values in (("uids", self.uids), ("personas", self.personas), ("tenants", self.tenants)):
            if values:
                shown[field] = sorted(values)
        return shown

    @classmethod
    def from_map(cls, given: Mapping[str, object]) -> KeyRecord:
        """The inverse of `to_map`, strict. Raises ConfigurationError `keyring_damaged`, naming the field."""
        allowed = {"id", "public", "name", "role", "added", "uids", "personas", "tenants"}
        if unknown := set(given) - allowed:
            raise _damaged(f"the unknown field {min(unknown)!r}")
        try:
            public = PublicKey(bytes.fromhex(_string(given, "public")))
            role = Role(_string(given, "role"))
        except (ValueError, ConfigurationError) as error:
            raise _damaged(str(error)) from error
        if public.id != _string(given, "id"):
            raise _damaged(f"{public.id} stands under the id {given['id']!r}")
        return cls(
            public=public,
            name=_string(given, "name"),
            role=role,
            added=_string(given, "added"),
            uids=frozenset(_integers(given.get("uids", []))),
            personas=frozenset(_strings(given.get("personas", []))),
            tenants=frozenset(_strings(given.get("tenants", []))),
        )


class Keyring:
    """An immutable set of key records. `as_of` is the last ledger entry whose effect it holds (-1: none)."""

    __slots__ = ("_by_id", "as_of")

    def __init__(self, records: Iterable[KeyRecord] = (), *, as_of: int = -1) -> None:
        self._by_id = {record.id: record for record in records}
        self.as_of = as_of

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[KeyRecord]:
        return iter(self._by_id.values())

    def find(self, key_id: str) -> KeyRecord | None:
        """The record of that id, or None."""
        return self._by_id.get(key_id)

    def public_key(self, key_id: str) -> PublicKey | None:
        """The one candidate that a key id selects: what `wire.envelope.verify` looks up."""
        record = self._by_id.get(key_id)
        return None if record is None else record.public

    def check_addable(self, record: KeyRecord) -> None:
        """Raises Refused `bad_argument` where the key or its name is already there, or the keyring is full."""
        if record.id in self._by_id:
            raise Refused("bad_argument", f"the key {record.id} is already known", "`immure key list` shows the keys")
        if any(other.name == record.name for other in self):
            raise Refused("bad_argument", f"another key is already named {record.name!r}", "choose another name")
        if len(self) >= MAX_KEYS:
            raise Refused("bad_argument", f"the keyring already holds {MAX_KEYS} keys", "remove keys that nobody uses")

    def with_key(self, record: KeyRecord, *, as_of: int) -> Keyring:
        """This keyring and one key more; `as_of` is the ledger entry that says so. Raises as `check_addable` does."""
        self.check_addable(record)
        return Keyring((*self, record), as_of=as_of)

    def at(self, seq: int) -> Keyring:
        """The same keys, holding the effect of every ledger entry up to `seq`."""
        return Keyring(self, as_of=seq)

    def to_json(self) -> bytes:
        """What `keyring.json` holds."""
        body = {"v": 1, "as_of": self.as_of, "keys": [record.to_map() for record in self]}
        return json.dumps(body, indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> Keyring:
        """The inverse of `to_json`, strict. Raises ConfigurationError `keyring_damaged`."""
        try:
            body = json.loads(text, object_pairs_hook=_no_duplicates)
        except ValueError as error:
            raise _damaged(str(error)) from error
        if not isinstance(body, dict) or set(body) != {"v", "as_of", "keys"} or body["v"] != 1:
            raise _damaged('it is not {"v": 1, "as_of": ..., "keys": [...]}')
        as_of, keys = body["as_of"], body["keys"]
        if type(as_of) is not int or not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
            raise _damaged("`as_of` is not an integer, or `keys` not a list of maps")
        records = [KeyRecord.from_map(key) for key in keys]
        ring = cls(records, as_of=as_of)
        if len(ring) != len(records):
            raise _damaged("a key stands in it twice")
        return ring


def check_key_name(value: str) -> str:
    """What people call a key: 1 to 64 of `A-Z a-z 0-9 . _ @ + -`, the first a letter or digit.

    Returns it. Raises Refused `bad_argument`.
    """
    if not _KEY_NAME.fullmatch(value):
        raise Refused(
            "bad_argument",
            f"the key's name {value[:80]!r} is not one",
            "1 to 64 letters, digits or . _ @ + -, starting with a letter or digit",
        )
    return value


def check_label(value: str, what: str) -> str:
    """A persona or tenant, also as a directory's name: 1 to 64 of `a-z 0-9 . _ -`, the first a letter or digit.

    Returns it. Raises Refused `bad_argument`.
    """
    if not _LABEL.fullmatch(value):
        raise Refused(
            "bad_argument",
            f"{what} {value[:80]!r} is not a name",
            "1 to 64 small letters, digits or . _ -, starting with a letter or digit",
        )
    return value


def check_uids(values: Iterable[int]) -> frozenset[int]:
    """Uids to bind a key to. Returns them as a set. Raises Refused `bad_argument`."""
    uids = frozenset(values)
    if len(uids) > MAX_UIDS or any(not 0 <= uid <= _MAX_UID for uid in uids):
        raise Refused("bad_argument", "`uids` holds what is no uid, or too many", f"at most {MAX_UIDS} user ids")
    return uids


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice in one map")
    return made


def _string(given: Mapping[str, object], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise _damaged(f"`{name}` is not a string")
    return value


def _strings(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _damaged("a binding is not a list of strings")
    return value


def _integers(value: object) -> list[int]:
    if not isinstance(value, list) or not all(type(one) is int for one in value):
        raise _damaged("`uids` is not a list of integers")
    return value


def _damaged(what: str) -> ConfigurationError:
    return ConfigurationError(
        "keyring_damaged", f"keys/keyring.json cannot be read: {what}", "restore it from a backup; it is plain JSON"
    )
