"""`key.add` and `key.list`: who may give orders."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

from immured.errors import ConfigurationError, Refused
from immured.identity.authorise import Permission
from immured.identity.keyring import MAX_LABELS, KeyRecord, Role, check_key_name, check_label, check_uids
from immured.ledger import entry_types
from immured.service.commands import CommandSpec
from immured.service.context import Service, log
from immured.service.request import Answer, Request
from immured.service.state import save_keyring
from immured.wire.keys import PublicKey
from immured.wire.messages import Receipt
from immured.wire.strict import kind_of, nearest, take

__all__ = ["COMMANDS"]

_adding = asyncio.Lock()


async def add(service: Service, request: Request) -> Answer:
    """args: `name`, `public` (the raw 32 bytes), `role`, and optionally `uids`, `personas`, `tenants` to bind it to.

    result: the record. In force once the ledger holds it; a crash between the two files is mended at the next start.
    """
    fields = take(request.command.args, "args", ("name", "public", "role", "uids", "personas", "tenants"))
    try:
        public = PublicKey(fields.required("public", bytes))
    except ConfigurationError as error:
        raise Refused("bad_argument", f"args.public: {error.message}", error.remedy) from error
    record = KeyRecord(
        public=public,
        name=check_key_name(fields.required("name", str)),
        role=_role(fields.required("role", str)),
        added=datetime.fromtimestamp(service.clock() / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        uids=_uids(fields.optional("uids", list)),
        personas=_labels(fields.optional("personas", list), "args.personas"),
        tenants=_labels(fields.optional("tenants", list), "args.tenants"),
    )
    async with _adding:
        service.keyring.check_addable(record)
        pending = service.ledger.entry(
            entry_types.KEY_ADDED, request.actor.to_map(), {**request.to_map(), "record": record.to_map()}
        )
        durable = await pending.durable()
        request.acted = True
        request.claim.outcome = receipt = Receipt(durable.seq, durable.leaf)
        service.keyring = service.keyring.with_key(record, as_of=receipt.seq)
        try:
            save_keyring(service.state.paths, service.keyring)
        except OSError as error:
            # In force, and in the ledger, from which the next start puts it into the file.
            log.error("keyring.json was not written: %s", error)
    return Answer(record.to_map(), receipt)


async def list_keys(service: Service, request: Request) -> Answer:
    """args: none. result: `keys`, the records, oldest first."""
    take(request.command.args, "args", ())
    return Answer({"keys": [record.to_map() for record in service.keyring]})


def _role(name: str) -> Role:
    try:
        return Role(name)
    except ValueError:
        near = nearest(name, [role.value for role in Role])
        remedy = f"did you mean {near!r}?" if near else "known are admin, runner"
        raise Refused("bad_argument", f"args.role: no role is called {name[:64]!r}", remedy) from None


def _uids(values: list[object] | None) -> frozenset[int]:
    found: list[int] = []
    for one in values or ():
        if type(one) is not int:
            raise Refused("bad_argument", f"args.uids holds {kind_of(one)}", "user ids are integers")
        found.append(one)
    return check_uids(found)


def _labels(values: list[object] | None, where: str) -> frozenset[str]:
    found: list[str] = []
    for one in values or ():
        if not isinstance(one, str):
            raise Refused("bad_argument", f"{where} holds {kind_of(one)}", "names are str")
        found.append(check_label(one, where))
    if len(found) > MAX_LABELS:
        raise Refused("bad_argument", f"{where} holds {len(found)} names", f"at most {MAX_LABELS}")
    return frozenset(found)


COMMANDS: Final = (
    CommandSpec("key.add", Permission.KEY_ADD, "add keys", add),
    CommandSpec("key.list", Permission.KEY_LIST, "list keys", list_keys),
)
