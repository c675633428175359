"""The keys that may give orders: who they belong to, their role, and what they are bound to. Pure data.

The file is `DIR/keys/keyring.json`: `{"v": 1, "as_of": N, "keys": [...]}`, one record a key (`KeyRecord.to_map`).
`public` is the raw 32-byte key in hex; `as_of` is the sequence number of the last ledger entry that this file already
holds the effect of. A record as an older version wrote it is a good one.
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

__all__ = [
    "MAX_KEYS",
    "MAX_LABELS",
    "MAX_TIME_MS",
    "KeyRecord",
    "KeyStatus",
    "Keyring",
    "Role",
    "check_key_name",
    "check_label",
    "check_note",
    "check_subject",
    "check_uids",
    "is_key_id",
    "unknown",
]

MAX_KEYS: Final = 4096
MAX_UIDS: Final = 64
MAX_LABELS: Final = 64
MAX_NOTE: Final = 256
MAX_SUBJECT: Final = 128
MAX_LINE: Final = 64
"""Predecessors that a record remembers."""
MAX_TIME_MS: Final = 2**53 - 1
_KEY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)
_KEY_ID: Final = re.compile(r"ed25519:[0-9a-f]{32}", re.ASCII)
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_MAX_UID: Final = 2**32 - 2


class Role(StrEnum):
    """The two roles that code names: the first key's, and what keys of old have. The policy says what each may."""

    ADMIN = "admin"
    RUNNER = "runner"


class KeyStatus(StrEnum):
    """What was decided about a key; whether it serves now is also a matter of time (`KeyRecord.standing`)."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    """For good."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key. Of what it is bound to, an empty set of `uids` or `gids` means: any peer may present it.

    `personas`, `tenants`, `projects` and `subjects` are the names that a command under this key may carry.
    `added` is RFC 3339, UTC. It serves from `not_before_ms` on and before `expires_ms` (since the epoch).
    `predecessors` are the ids of the keys that it took the place of, the last one first: it owns what they made.
    """

    public: PublicKey
    name: str
    role: str
    added: str
    uids: frozenset[int] = frozenset()
    personas: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    gids: frozenset[int] = frozenset()
    projects: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    status: KeyStatus = KeyStatus.ACTIVE
    not_before_ms: int | None = None
    expires_ms: int | None = None
    note: str = ""
    successor: str | None = None
    predecessors: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The key's id, `ed25519:<32 hex>`."""
        return self.public.id

    @property
    def called(self) -> tuple[str, ...]:
        """By what a rule can name it: its name, its id, and the ids of the keys that it took the place of."""
        return (self.name, self.id, *self.predecessors)

    def standing(self, now_ms: int) -> str:
        """`active`, `suspended`, `revoked`, `expired` or `not_yet_valid`, at that time."""
        if self.status is not KeyStatus.ACTIVE:
            return self.status.value
        if self.expires_ms is not None and now_ms >= self.expires_ms:
            return "expired"
        if self.not_before_ms is not None and now_ms < self.not_before_ms:
            return "not_yet_valid"
        return self.status.value

    def check_usable(self, now_ms: int) -> None:
        """Raises Refused `key_suspended`, `key_revoked`, `key_expired`, `key_not_yet_valid`."""
        if self.status is KeyStatus.ACTIVE and self.expires_ms is None and self.not_before_ms is None:
            return  # nearly every command's way
        standing = self.standing(now_ms)
        if standing == "suspended":
            raise Refused("key_suspended", f"the key {self.name!r} is suspended", "who suspended it can resume it")
        if standing == "revoked":
            raise Refused("key_revoked", f"the key {self.name!r} was revoked, for good", "have a new key added")
        if standing == "expired":
            raise Refused(
                "key_expired",
                f"the key {self.name!r} expired",
                "sign with its successor, or have a new key added",
                details={"expires_ms": self.expires_ms or 0, "now_ms": now_ms},
            )
        if standing == "not_yet_valid":
            raise Refused(
                "key_not_yet_valid",
                f"the key {self.name!r} does not serve yet",
                "wait, or sign with another key",
                details={"not_before_ms": self.not_before_ms or 0, "now_ms": now_ms},
            )

    def to_map(self) -> dict[str, object]:
        """The record as JSON holds it; what is empty or as usual is left out."""
        shown: dict[str, object] = {
            "id": self.id,
            "public": self.public.raw.hex(),
            "name": self.name,
            "role": str(self.role),
            "added": self.added,
        }
        for field in _SETS:
            if values := getattr(self, field):
                shown[field] = sorted(values)
        if self.status is not KeyStatus.ACTIVE:
            shown["status"] = self.status.value
        for field in ("not_before_ms", "expires_ms", "successor"):
            if (value := getattr(self, field)) is not None:
                shown[field] = value
        if self.note:
            shown["note"] = self.note
        if self.predecessors:
            shown["predecessors"] = list(self.predecessors)
        return shown

    @classmethod
    def from_map(cls, given: Mapping[str, object]) -> KeyRecord:
        """The inverse of `to_map`, strict. Raises ConfigurationError `keyring_damaged`, naming the field."""
        if unknown := set(given) - _FIELDS:
            raise _damaged(f"the unknown field {min(unknown)!r}")
        try:
            public = PublicKey(bytes.fromhex(_string(given, "public")))
            status = KeyStatus(_string(given, "status")) if "status" in given else KeyStatus.ACTIVE
            role = check_label(_string(given, "role"), "role")
        except (ValueError, ConfigurationError, Refused) as error:
            raise _damaged(str(error)) from error
        if public.id != _string(given, "id"):
            raise _damaged(f"{public.id} stands under the id {given['id']!r}")
        predecessors = _strings(given.get("predecessors", []))
        successor = _string(given, "successor") if "successor" in given else None
        for one in (*predecessors, *([] if successor is None else [successor])):
            if not _KEY_ID.fullmatch(one):
                raise _damaged(f"{one[:80]!r} is no key's id")
        return cls(
            public=public,
            name=_string(given, "name"),
            role=role,
            added=_string(given, "added"),
            uids=frozenset(_integers(given.get("uids", []))),
            gids=frozenset(_integers(given.get("gids", []))),
            personas=frozenset(_strings(given.get("personas", []))),
            tenants=frozenset(_strings(given.get("tenants", []))),
            projects=frozenset(_strings(given.get("projects", []))),
            subjects=frozenset(_strings(given.get("subjects", []))),
            status=status,
            not_before_ms=_time(given, "not_before_ms"),
            expires_ms=_time(given, "expires_ms"),
            note=_string(given, "note") if "note" in given else "",
            successor=successor,
            predecessors=tuple(predecessors),
        )


_SETS: Final = ("uids", "gids", "personas", "tenants", "projects", "subjects")
_FIELDS: Final = frozenset(
    {
        *("id", "public", "name", "role", "added", "status", "not_before_ms", "expires_ms", "note"),
        *("successor", "predecessors", *_SETS),
    }
)


class Keyring:
    """An immutable set of key records. `as_of` is the last ledger entry whose effect it holds (-1: none).

    Keys that one took over from another share its name; all others have names of their own.
    """

    __slots__ = ("_by_id", "_by_name", "as_of")

    def __init__(self, records: Iterable[KeyRecord] = (), *, as_of: int = -1) -> None:
        self._by_id = {record.id: record for record in records}
        self._by_name = {record.name: record for record in self._by_id.values() if record.successor is None}
        self.as_of = as_of

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[KeyRecord]:
        return iter(self._by_id.values())

    def find(self, key_id: str) -> KeyRecord | None:
        """The record of that id, or None."""
        return self._by_id.get(key_id)

    def named(self, name: str) -> KeyRecord | None:
        """The record that bears this name, the last of its line; or None."""
        return self._by_name.get(name)

    def public_key(self, key_id: str) -> PublicKey | None:
        """The one candidate that a key id selects: what `wire.envelope.verify` looks up."""
        record = self._by_id.get(key_id)
        return None if record is None else record.public

    def check_addable(self, record: KeyRecord) -> None:
        """Raises Refused `bad_argument` where the key or its name is already there, or the keyring is full."""
        self._check_new(record)
        self._check_name_free(record.name)

    def with_key(self, record: KeyRecord, *, as_of: int) -> Keyring:
        """This keyring and one key more; `as_of` is the ledger entry that says so. Raises as `check_addable` does."""
        self.check_addable(record)
        return Keyring((*self, record), as_of=as_of)

    def check_changeable(self, record: KeyRecord) -> None:
        """Raises Refused `not_found`, or `bad_argument` for a name that another line of keys has."""
        known = self._by_id.get(record.id)
        if known is None:
            raise unknown(record.id)
        if record.name != known.name:
            self._check_name_free(record.name)

    def with_change(self, record: KeyRecord, *, as_of: int) -> Keyring:
        """This keyring with another record of a key that it has. Raises as `check_changeable` does."""
        self.check_changeable(record)
        changed = {**self._by_id, record.id: record}
        return Keyring(changed.values(), as_of=as_of)

    def check_successor(self, old: KeyRecord, new: KeyRecord) -> None:
        """Raises Refused `bad_argument` where the one cannot take the other's place."""
        self._check_new(new)
        if old.successor is not None:
            raise Refused(
                "bad_argument", f"{old.id} has a successor, {old.successor}", f"rotate that one: {old.successor}"
            )
        if new.name != old.name:
            raise Refused("bad_argument", f"a successor bears the name {old.name!r}", "rename it afterwards")

    def with_successor(self, old: KeyRecord, new: KeyRecord, *, as_of: int) -> Keyring:
        """This keyring, `new` in the place of `old` (its record as it is from now on, `successor` set)."""
        self.check_successor(self._by_id[old.id], new)
        return Keyring(({**self._by_id, old.id: old} | {new.id: new}).values(), as_of=as_of)

    def at(self, seq: int) -> Keyring:
        """The same keys, holding the effect of every ledger entry up to `seq`."""
        return Keyring(self, as_of=seq)

    def _check_new(self, record: KeyRecord) -> None:
        if record.id in self._by_id:
            raise Refused("bad_argument", f"the key {record.id} is already known", "`immure key list` shows the keys")
        if len(self) >= MAX_KEYS:
            raise Refused("bad_argument", f"the keyring already holds {MAX_KEYS} keys", "one daemon serves no more")

    def _check_name_free(self, name: str) -> None:
        # Also those of lines that were renamed since: an entry that names a key means one line of keys.
        if name in self._by_name or any(record.name == name for record in self):
            raise Refused("bad_argument", f"another key is already named {name!r}", "choose another name")

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
        if len(ring._by_name) != sum(record.successor is None for record in records):
            raise _damaged("two keys bear one name")
        return ring


def unknown(key: str) -> Refused:
    """What is said of a key that the keyring does not have. `key` is an id or a name."""
    return Refused("not_found", f"no key is called {key[:80]!r}", "`immure key list` shows the keys")


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


def is_key_id(value: str) -> bool:
    """Whether it has the form of a key's id."""
    return _KEY_ID.fullmatch(value) is not None


def check_label(value: str, what: str) -> str:
    """A role, persona, tenant or project, also as a directory's name: 1 to 64 of `a-z 0-9 . _ -`, the first a letter
    or digit.

    Returns it. Raises Refused `bad_argument`.
    """
    if not _LABEL.fullmatch(value):
        raise Refused(
            "bad_argument",
            f"{what} {value[:80]!r} is not a name",
            "1 to 64 small letters, digits or . _ -, starting with a letter or digit",
        )
    return value


def check_subject(value: str) -> str:
    """On whose behalf: printable, 1 to 128 bytes of UTF-8. Returns it. Raises Refused `bad_argument`."""
    if not 0 < len(value.encode()) <= MAX_SUBJECT or not value.isprintable():
        raise Refused(
            "bad_argument",
            f"the subject {value[:80]!r} is not printable or too long",
            f"at most {MAX_SUBJECT} bytes of text",
        )
    return value


def check_note(value: str, what: str) -> str:
    """A line for people: printable, at most 256 bytes of UTF-8. Returns it. Raises Refused `bad_argument`."""
    if len(value.encode()) > MAX_NOTE or not value.isprintable():
        raise Refused(
            "bad_argument", f"{what} is not one printable line of at most {MAX_NOTE} bytes", "shorten it, or split it"
        )
    return value


def check_uids(values: Iterable[int], what: str = "uids") -> frozenset[int]:
    """Uids (or gids) to bind a key to. Returns them as a set. Raises Refused `bad_argument`."""
    uids = frozenset(values)
    if len(uids) > MAX_UIDS or any(not 0 <= uid <= _MAX_UID for uid in uids):
        raise Refused("bad_argument", f"`{what}` holds what is no id, or too many", f"at most {MAX_UIDS} ids")
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
        raise _damaged("`uids` or `gids` is not a list of integers")
    return value


def _time(given: Mapping[str, object], name: str) -> int | None:
    value = given.get(name)
    if value is not None and not (type(value) is int and 0 <= value <= MAX_TIME_MS):
        raise _damaged(f"`{name}` is not milliseconds since the epoch")
    return value


def _damaged(what: str) -> ConfigurationError:
    return ConfigurationError(
        "keyring_damaged", f"keys/keyring.json cannot be read: {what}", "restore it from a backup; it is plain JSON"
    )
