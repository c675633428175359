"""A state directory: its places, how one is made (`immure init`), and what of it a daemon needs at start.

Root's, and read before the daemon gives up being root:
DIR/            0711  config.toml, lock, launcher.lock, immured.sock, launcher.sock, daemon.pub
The broker's user's, from the first start on (`ownership`), but for admin.pem, which stays root's:
DIR/keys/       0711  daemon.pem admin.pem ledger.pem keyring.json (0600), daemon.pub ledger.vkey (0644); while the
                      daemon's key rotates daemon.next.pem, daemon.former.pem (daemon_keys.py)
DIR/manifests/  0755  <sha256>.toml, .sig (by the daemon's key) and .signatures (manifest_files.py)
DIR/ledger/     0700
DIR/volumes/    0700  TENANT/NAME/ (volumes.py)
DIR/snapshots/  0700  TENANT/NAME/ (snapshots.py)
DIR/accepting/  0700  a file for each acceptance that is not over (accepting.py)
DIR/policy/     0700  <sha256>.toml: every policy that was ever in force (policies.py)
DIR/proposals/  0700  a file for each open proposal: the command that is proposed (proposed.py)
Root's: DIR/images/  0755  what `immure image import` unpacked
"""

from __future__ import annotations

import contextlib
import errno
import os
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
from immured.manifest.builtin import CLASSES, class_text, default_manifest, load_classes
from immured.manifest.schema import Manifest
from immured.service import config
from immured.service.config import Config, load_config
from immured.service.files import read_bounded, sync_directory, write_new, write_whole
from immured.service.manifest_files import ManifestFiles
from immured.wire.keys import PrivateKey, PublicKey

__all__ = [
    "Paths",
    "State",
    "find_state",
    "init_state",
    "load_state",
    "make_storage",
    "publish_key",
    "save_keyring",
]

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
    def control(self) -> Path:
        """Where a launcher that lives on waits for its next broker."""
        return self.root / "launcher.sock"

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
    def daemon_next(self) -> Path:
        """What will be daemon.pem."""
        return self.keys / "daemon.next.pem"

    @property
    def daemon_former(self) -> Path:
        """What was daemon.pem, and signs on for a while."""
        return self.keys / "daemon.former.pem"

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

    @property
    def volumes(self) -> Path:
        """Directories that outlive sandboxes, by tenant."""
        return self.root / "volumes"

    @property
    def snapshots(self) -> Path:
        """What was saved of sandboxes, by tenant."""
        return self.root / "snapshots"

    @property
    def accepting(self) -> Path:
        """Journals of acceptances that are not over."""
        return self.root / "accepting"

    @property
    def policies(self) -> Path:
        """Policies by digest; the ledger says which is in force."""
        return self.root / "policy"

    @property
    def proposals(self) -> Path:
        """The commands that are proposed."""
        return self.root / "proposals"

    @property
    def images(self) -> Path:
        """Roots that the operator unpacked, by digest; root's."""
        return self.root / "images"


@dataclass(frozen=True, slots=True)
class State:
    """What a daemon reads at start. `classes`: the digests of the built-in ones, by name."""

    paths: Paths
    config: Config
    key: PrivateKey
    keyring: Keyring
    classes: Mapping[str, str]
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
        classes={name: one.digest for name, one in load_classes().items()},
        default=default_manifest(),
    )


def save_keyring(paths: Paths, keyring: Keyring) -> None:
    """Put the keyring in place, whole and durable. Raises OSError."""
    write_whole(paths.keyring, keyring.to_json(), 0o600)


def publish_key(paths: Paths, socket: Path, *, served: bool = False) -> None:
    """Put the daemon's public key beside the socket, as `daemon.pub`. `served`: our own launcher listens there already.

    Raises ConfigurationError `socket_in_use` where another daemon serves that socket, or has its key there;
    `bad_state`, `bad_key` where it is no public key; OSError.
    """
    beside = socket.parent / "daemon.pub"
    raw = _public_key(paths.daemon_public)
    if not served and _answers(socket):
        raise ConfigurationError("socket_in_use", f"somebody serves {socket}", "stop it, or name another --socket")
    with contextlib.suppress(FileNotFoundError, ValueError):
        if read_bounded(beside, _MAX_PUBLIC) == raw:
            return
    if beside.exists() and any(_answers(path) for path in socket.parent.iterdir() if not (served and path == socket)):
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
    make_storage(paths)
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
        ManifestFiles(paths.manifests).add_built_in((key,), class_text(name))
    ledger.create(paths.root, key.id)
    publish_key(paths, paths.socket)
    for directory in (paths.keys, paths.manifests, paths.ledger, paths.root, paths.root.parent):
        sync_directory(directory)


def make_storage(paths: Paths) -> None:
    """What later versions added, if a state directory has no such yet. Raises OSError."""
    private = (paths.volumes, paths.snapshots, paths.accepting, paths.policies, paths.proposals)
    for path, mode in (*((one, 0o700) for one in private), (paths.images, 0o755)):
        if not path.exists():
            path.mkdir(mode=mode)
            path.chmod(mode)


def _empty(directory: Path, *, remove: bool) -> None:
    import shutil  # a daemon never comes here

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
    for path in (
        *(paths.daemon_key, paths.daemon_next, paths.daemon_former),
        *(paths.keys / "ledger.pem", paths.keys / "ledger.next.pem", paths.admin_key),
    ):
        # A backup restored without its modes is how a private key gets around.
        if path.exists() and path.stat().st_mode & 0o007:
            raise ConfigurationError(
                "bad_state",
                f"{path} is a private key that everybody may read",
                f"chmod 600 {path}; if this host has users whom you do not trust, the key is no secret any more",
            )


def _bad(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError("bad_state", f"{path}: {error.strerror or error}", "run as root, on a local file system")
