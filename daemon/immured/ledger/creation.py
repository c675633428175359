"""How a ledger begins: its first line, its files, its key."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.errors import ConfigurationError
from immured.ledger.checkpoint import Checkpoint, Signer, VerifierKey, file_name, origin_of
from immured.ledger.entry import NO_LEAF, build_line, encode_body, leaf_hash
from immured.ledger.entry_types import LEDGER_CREATED
from immured.ledger.keys import PRIVATE_KEY, VERIFIER_KEYS, load_private
from immured.ledger.recovery import CHECKPOINTS
from immured.ledger.storage import LOG, PosixStorage, Storage
from immured.ledger.timestamps import timestamp
from immured.ledger.tree import Frontier

__all__ = ["create", "create_in", "first_line"]


def first_line(daemon_key: str, public_key: bytes, random: bytes, now_ns: int) -> bytes:
    """Line 0, without its newline: it names the daemon and the ledger's first key, and is like no other's."""
    data = {"random": random.hex(), "daemon": daemon_key, "ledger_key": public_key.hex()}
    return build_line(0, timestamp(now_ns), encode_body(LEDGER_CREATED, {"daemon": daemon_key}, data), NO_LEAF)


def create_in(storage: Storage, signer_of: Callable[[str], Signer], line: bytes) -> None:
    """Make the files of a new ledger that begins with `line`. Raises FileExistsError, OSError."""
    storage.create_log(line + b"\n")
    leaf = leaf_hash(line)
    head = Checkpoint(origin_of(leaf), 1, Frontier([leaf]).root())
    storage.write_whole(f"{CHECKPOINTS}/{file_name(1)}", signer_of(head.origin).sign(head))


def create(
    directory: Path,
    daemon_key: str,
    *,
    clock: Callable[[], int] = time.time_ns,
    entropy: Callable[[int], bytes] = os.urandom,
) -> None:
    """Begin a ledger in a state directory: `ledger/`, `keys/ledger.pem` and `keys/ledger.vkey`.

    `daemon_key` is the daemon's key id. An existing `keys/ledger.pem` is kept. Raises
    ConfigurationError("ledger_exists") where there is a ledger already, OSError.
    """
    keys, files = directory / "keys", directory / "ledger"
    keys.mkdir(mode=0o711, parents=True, exist_ok=True)
    for folder in (files, files / CHECKPOINTS, files / "quarantine"):
        folder.mkdir(mode=0o700, exist_ok=True)
    key_storage, storage = PosixStorage(keys), PosixStorage(files)
    if (keys / PRIVATE_KEY).exists():
        private = load_private(keys / PRIVATE_KEY)
    else:
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key_storage.write_whole(PRIVATE_KEY, pem)
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    line = first_line(daemon_key, public, entropy(16), clock())
    storage.lock()
    try:
        if os.path.lexists(files / LOG):
            raise FileExistsError
        # The key's name is the ledger's, so this file is written anew until there is a ledger to go with it.
        vkey = VerifierKey(origin_of(leaf_hash(line)), public).encode() + "\n"
        key_storage.write_whole(VERIFIER_KEYS, vkey.encode(), 0o644)
        create_in(storage, lambda name: Signer(private, name), line)
    except FileExistsError:
        raise ConfigurationError(
            "ledger_exists",
            f"{files / LOG} is there already",
            "a ledger is never replaced; choose another state directory",
        ) from None
    finally:
        storage.unlock()
