"""The files of the ledger's own keys: the private one, and those by which checkpoints are verified."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.errors import ConfigurationError
from immured.ledger.checkpoint import NoteError, VerifierKey, parse_vkeys
from immured.ledger.disk import sync_directory
from immured.ledger.storage import PosixStorage

__all__ = ["NEXT_KEY", "PRIVATE_KEY", "VERIFIER_KEYS", "KeyFiles", "load_private", "load_vkeys", "to_pem"]

PRIVATE_KEY: Final = "ledger.pem"
NEXT_KEY: Final = "ledger.next.pem"
VERIFIER_KEYS: Final = "ledger.vkey"


def load_private(path: Path) -> Ed25519PrivateKey:
    """The key that signs checkpoints. Raises ConfigurationError("ledger_key_unreadable")."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            "ledger_key_unreadable", f"{path}: {error}", "restore the file; it signs the ledger's checkpoints"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError("ledger_key_unreadable", f"{path} is no Ed25519 key", "restore the file")
    return key


def load_vkeys(path: Path) -> tuple[VerifierKey, ...]:
    """The verifier keys of a file. Raises ConfigurationError("ledger_key_unreadable")."""
    try:
        return parse_vkeys(path.read_text())
    except (OSError, UnicodeDecodeError, NoteError) as error:
        raise ConfigurationError(
            "ledger_key_unreadable", f"{path}: {error}", "restore the file; it verifies the ledger's checkpoints"
        ) from None


class KeyFiles:
    """DIR/keys, as far as it is the ledger's. While one key takes another's place, `ledger.next.pem` is the new one:
    on the disk before the ledger names it, and `ledger.pem` once a checkpoint has both signatures."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = PosixStorage(directory)

    def upcoming(self) -> Ed25519PrivateKey | None:
        """The key that is, or was to be, the next one. Raises ConfigurationError("ledger_key_unreadable")."""
        path = self._directory / NEXT_KEY
        return load_private(path) if path.exists() else None

    def begin(self, new: Ed25519PrivateKey) -> None:
        """Keep the new key before anything says that it is one. Raises OSError."""
        self._files.write_whole(NEXT_KEY, to_pem(new))

    def publish(self, key: VerifierKey) -> None:
        """Have the verifier keys end with this one. Raises OSError, ConfigurationError("ledger_key_unreadable")."""
        path = self._directory / VERIFIER_KEYS
        if load_vkeys(path)[-1:] != (key,):
            text = path.read_text()
            line = "" if text.endswith("\n") or not text else "\n"
            self._files.write_whole(VERIFIER_KEYS, f"{text}{line}{key.encode()}\n".encode(), 0o644)

    def finish(self) -> None:
        """The new key is the key. Raises OSError."""
        (self._directory / NEXT_KEY).replace(self._directory / PRIVATE_KEY)
        sync_directory(self._directory)

    def discard(self) -> None:
        """The ledger says nothing of the new key: it is none. Raises OSError."""
        self._files.remove(NEXT_KEY)
        sync_directory(self._directory)


def to_pem(private: Ed25519PrivateKey) -> bytes:
    """As the files hold it: PKCS#8."""
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
