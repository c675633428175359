"""`[audit] witnesses`: who is asked to cosign the ledger's checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from immured.ledger.note_keys import CosignKey, NoteError
from immured.ledger.witness_address import Address
from immured.wire.strict import nearest

__all__ = ["WitnessPlace", "read_witnesses"]

_MAX: Final = 8  # a process each
_NAMES: Final = ("name", "url", "key")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_FORM: Final = '{ name = "w1", url = "http://witness.example:7380", key = "witness.example/w1+..." }'


@dataclass(frozen=True, slots=True)
class WitnessPlace:
    """One witness: what the operator calls it, where it is asked, and the key that its cosignatures are of."""

    name: str
    url: str
    address: Address
    key: CosignKey


def read_witnesses(value: object) -> tuple[WitnessPlace, ...]:
    """The configured list. Raises ValueError, with a message that names the field."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError("audit.witnesses is not a list")  # noqa: TRY004
    if len(value) > _MAX:
        raise ValueError(f"audit.witnesses holds {len(value)}, at most {_MAX}")
    found = tuple(_read(f"audit.witnesses[{number}]", one) for number, one in enumerate(value))
    for what, said in (("name", [one.name for one in found]), ("key", [one.key.public for one in found])):
        if len(set(said)) != len(said):
            raise ValueError(f"audit.witnesses: two have the same {what}: they would count as one")
    return found


def _read(where: str, value: object) -> WitnessPlace:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is not of the form {_FORM}")  # noqa: TRY004
    for name in value:
        if name not in _NAMES:
            near = nearest(str(name), _NAMES)
            raise ValueError(f"{where} holds the unknown {name!r}" + (f": did you mean {near!r}?" if near else ""))
    said = {name: value.get(name) for name in _NAMES}
    for name, one in said.items():
        if not isinstance(one, str) or not one or len(one) > 1024:
            raise ValueError(f"{where}.{name} is missing, or no string: {_FORM}")
    name, url, key = (str(said[one]) for one in _NAMES)
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{where}.name: a name is 1 to 64 of a-z, 0-9, `.`, `_` and `-`, a letter or digit first")
    try:
        address = Address.parse(url)
    except ValueError as error:
        raise ValueError(f"{where}.url is {url!r}: {error}") from None
    try:
        return WitnessPlace(name, url, address, CosignKey.parse(key))
    except NoteError as error:
        raise ValueError(f"{where}.key: {error}; `immure ledger witness key` prints it") from None
