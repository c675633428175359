"""A state directory: its places, how one is made (`immure init`), and what of it a daemon needs at start.

Root's, and read before the daemon gives up being root:
DIR/            0711  config.toml, lock, launcher.lock, immured.sock, daemon.pub
The broker's user's, from the first start on (`ownership`), but for admin.pem, which stays root's:
DIR/keys/       0711  daemon.pem admin.pem ledger.pem keyring.json (0600), daemon.pub ledger.vkey (0644)
DIR/manifests/  0755  <sha256>.toml and <sha256>.sig, signed by the daemon's key
DIR/ledger/     0700
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import hashlib
import os
import shutil
import socket as socket_module
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from immured import ledger
from immured.errors import ConfigurationError
from immured.host.ids import BROKER_IDS
from immured.identity.keyring import KeyRecord, Keyring, Role
from immured.manifest.builtin import CLASSES, class_text, default_manifest, parse_toml
from immured.manifest.schema import Manifest
from immured.service import config
from immured.service.config import Config, load_config
from immured.service.files import read_bounded, sync_directory, write_new, write_whole
from immured.wire.envelope import pae
from immured.wire.keys import PrivateKey, PublicKey

__all__ = ["Paths", "State", "find_state", "init_state", "load_state", "publish_key", "read_manifests", "save_keyring"]

MANIFEST_TYPE: Final = "application/vnd.immured.manifest.v1+toml"
_MAX_MANIFEST: Final = 256 * 1024
_MAX_KEYRING: Final = 16 << 20
_MAX_PUBLIC: Final = 4096


@dataclass(frozen=True, slots=True)
class Paths:
    """Where everything lies below a state directory."""

    root: Path

    @property
    def config(self) -> Path:
        """The operator's decisions."""
        return self.root / "config.toml"

    @property
    def lock(self) -> Path:
        """Locked while a daemon serves this directory; holds its pid."""
        return self.root / "lock"

    @property
    def launcher_lock(self) -> Path:
        """Locked while a launcher of this directory still clears up."""
        return self.root / "launcher.lock"

    @property
    def socket(self) -> Path:
        """Where clients connect, unless configured otherwise."""
        return self.root / "immured.sock"

    @property
    def keys(self) -> Path:
        """Private keys, 0600 each, and their public halves."""
        return self.root / "keys"

    @property
    def daemon_key(self) -> Path:
        """What signs replies and loaded manifests."""
        return self.keys / "daemon.pem"

    @property
    def daemon_public(self) -> Path:
        """What clients pin."""
        return self.keys / "daemon.pub"

    @property
    def admin_key(self) -> Path:
        """The first key that may give orders; the daemon itself never reads it."""
        return self.keys / "admin.pem"

    @property
    def keyring(self) -> Path:
        """Who may give orders."""
        return self.keys / "keyring.json"

    @property
    def manifests(self) -> Path:
        """Loaded manifests, by digest."""
        return self.root / "manifests"

    @property
    def ledger(self) -> Path:
        """The ledger's own directory."""
        return self.root / "ledger"


@dataclass(frozen=True, slots=True)
class State:
    """What a daemon reads at start. `manifests` is keyed by digest (`sha256:<hex>`)."""

    paths: Paths
    config: Config
    key: PrivateKey
    keyring: Keyring
    manifests: Mapping[str, Manifest]
    default: Manifest


def init_state(directory: Path, *, now: datetime | None = None) -> State:
    """Make a state directory: keys, configuration, signed built-in manifests, an empty ledger. Returns it loaded.

    `directory` may exist only if it is empty; on a failure nothing of it is left behind.
    Raises ConfigurationError `state_exists`, or `bad_state` for what the file system refuses.
    """
    paths = Paths(directory.absolute())
    existed = paths.root.exists()
    try:
        if existed and (not paths.root.is_dir() or any(paths.root.iterdir())):
            raise ConfigurationError(
                "state_exists", f"{paths.root} is not an empty directory", "choose another --state, or empty this one"
            )
        paths.root.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise _bad(paths.root, error) from error
    try:
        _fill(paths, now or datetime.now(UTC))
    except BaseException as error:
        _empty(paths.root, remove=not existed)
        if isinstance(error, OSError):
            raise _bad(paths.root, error) from error
        raise
    return load_state(directory)


def find_state(directory: Path) -> Paths:
    """Where everything lies. Raises ConfigurationError `no_state`."""
    paths = Paths(directory.absolute())
    if not paths.daemon_key.exists():
        raise ConfigurationError(
            "no_state", f"{paths.root} is not a state directory", f"immure init --state {paths.root}"
        )
    return paths


def load_state(directory: Path, config: Config | None = None) -> State:
    """Read what `init_state` made and the operator changed. Raises ConfigurationError, naming the file.

    `config` is what root read, where this process is not root any more.
    """
    paths = find_state(directory)
    try:
        _check_owner(paths)
        key = PrivateKey.from_pem(read_bounded(paths.daemon_key, 4096))
        keyring = Keyring.from_json(read_bounded(paths.keyring, _MAX_KEYRING))
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_state", f"{paths.root}: {error}", "restore the file from a backup") from error
    return State(
        paths=paths,
        config=config or load_config(paths.config),
        key=key,
        keyring=keyring,
        manifests=read_manifests(paths, key.public),
        default=default_manifest(),
    )


def save_keyring(paths: Paths, keyring: Keyring) -> None:
    """Put the keyring in place, whole and durable. Raises OSError."""
    write_whole(paths.keyring, keyring.to_json(), 0o600)


def add_manifest(paths: Paths, key: PrivateKey, raw: bytes) -> Manifest:
    """Check, sign and store a manifest. Raises Refused `manifest_invalid`, OSError."""
    manifest = parse_toml(raw)
    stem = hashlib.sha256(raw).hexdigest()
    signature = base64.b64encode(key.sign(pae(MANIFEST_TYPE, raw))).decode()
    write_whole(paths.manifests / f"{stem}.sig", f"{key.id} {signature}\n".encode(), 0o644)
    write_whole(paths.manifests / f"{stem}.toml", raw, 0o644)
    return manifest


def read_manifests(paths: Paths, key: PublicKey) -> dict[str, Manifest]:
    """Every loaded manifest by digest. Raises ConfigurationError `manifest_damaged` for one that is not as signed."""
    found: dict[str, Manifest] = {}
    for path in sorted(paths.manifests.glob("*.toml")):
        try:
            raw = read_bounded(path, _MAX_MANIFEST)
            signer, _, encoded = read_bounded(path.with_suffix(".sig"), 1024).decode().strip().partition(" ")
            signature = base64.b64decode(encoded, validate=True)
        except (OSError, ValueError, binascii.Error) as error:
            raise _manifest_damaged(path, str(error)) from error
        if hashlib.sha256(raw).hexdigest() != path.stem:
            raise _manifest_damaged(path, "its name is not its digest")
        if signer != key.id or not key.verify(signature, pae(MANIFEST_TYPE, raw)):
            raise _manifest_damaged(path, "its signature is not this daemon's")
        manifest = parse_toml(raw)
        found[manifest.digest] = manifest
    return found


def publish_key(paths: Paths, socket: Path) -> None:
    """Put the daemon's public key beside the socket, as `daemon.pub`.

    Raises ConfigurationError `socket_in_use` where another daemon serves that socket, or has its key there;
    `bad_state`, `bad_key` where it is no public key; OSError.
    """
    beside = socket.parent / "daemon.pub"
    raw = _public_key(paths.daemon_public)
    if _answers(socket):
        raise ConfigurationError("socket_in_use", f"somebody serves {socket}", "stop it, or name another --socket")
    with contextlib.suppress(FileNotFoundError, ValueError):
        if read_bounded(beside, _MAX_PUBLIC) == raw:
            return
    if beside.exists() and any(_answers(path) for path in socket.parent.iterdir()):
        raise ConfigurationError(
            "socket_in_use",
            f"{beside} is the key of another daemon, which serves there",
            "give each daemon's socket a directory of its own",
        )
    write_whole(beside, raw, 0o644)


def _public_key(path: Path) -> bytes:
    """What is published by root comes from the broker's directory: a key, or nothing. Never a file behind a symlink."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            raw = file.read(_MAX_PUBLIC)
    except OSError as error:
        raise _bad(path, error) from error
    return PublicKey.from_pem(raw).to_pem()


def _answers(path: Path) -> bool:
    """Whether it is a socket that somebody listens at."""
    with contextlib.suppress(OSError), socket_module.socket(socket_module.AF_UNIX) as client:
        if stat.S_ISSOCK(path.lstat().st_mode):
            client.setblocking(False)
            # EAGAIN: it listens, and has its hands full.
            return client.connect_ex(os.fspath(path)) in (0, errno.EAGAIN)
    return False


def _fill(paths: Paths, now: datetime) -> None:
    paths.root.chmod(0o711)
    for path, mode in ((paths.keys, 0o711), (paths.manifests, 0o755)):
        path.mkdir()
        path.chmod(mode)
    key, admin = PrivateKey.generate(), PrivateKey.generate()
    record = KeyRecord(admin.public, "admin", Role.ADMIN, now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    write_new(paths.daemon_key, key.to_pem(), 0o600)
    write_new(paths.admin_key, admin.to_pem(), 0o600)
    write_new(paths.daemon_public, key.public.to_pem(), 0o644)
    write_new(paths.keyring, Keyring([record]).to_json(), 0o600)
    write_new(paths.config, config.DEFAULT_TEXT.encode(), 0o644)
    write_new(paths.lock, b"", 0o600)
    write_new(paths.launcher_lock, b"", 0o600)
    for name in CLASSES:
        add_manifest(paths, key, class_text(name))
    ledger.create(paths.root, key.id)
    publish_key(paths, paths.socket)
    for directory in (paths.keys, paths.manifests, paths.ledger, paths.root, paths.root.parent):
        sync_directory(directory)


def _empty(directory: Path, *, remove: bool) -> None:
    if remove:
        shutil.rmtree(directory, ignore_errors=True)
        return
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _check_owner(paths: Paths) -> None:
    for path in (paths.root, paths.keys, paths.daemon_key, paths.keyring, paths.manifests, paths.ledger):
        facts = path.stat()
        if (facts.st_uid not in (0, os.geteuid()) and facts.st_uid not in BROKER_IDS) or facts.st_mode & 0o022:
            raise ConfigurationError(
                "bad_state",
                f"{path} belongs to another user, or others may write it",
                f"chown and chmod go-w {path}, once you know who did that",
            )
    for path in (paths.daemon_key, paths.keys / "ledger.pem", paths.admin_key):
        # A backup restored without its modes is how a private key gets around.
        if path.exists() and path.stat().st_mode & 0o007:
            raise ConfigurationError(
                "bad_state",
                f"{path} is a private key that everybody may read",
                f"chmod 600 {path}; if this host has users whom you do not trust, the key is no secret any more",
            )


def _manifest_damaged(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError("manifest_damaged", f"{path}: {why}", "remove both files, or restore them from a backup")


def _bad(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError("bad_state", f"{path}: {error.strerror or error}", "run as root, on a local file system")
