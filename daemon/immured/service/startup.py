"""What a daemon opens before it serves, and closes in the other order: as root the locks and the launcher, which hears
nobody yet; then, as a user of its own, the state and the ledger."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import immured
from immured.errors import ConfigurationError, Refused
from immured.host.cgroup import choose_cgroup, step_aside
from immured.host.ids import SLOT_SIZE, SLOTS_PER_BLOCK
from immured.identity.replay import ReplayRecord
from immured.isolation.launcher import Connection, Launcher
from immured.ledger import Ledger, Pending, entry_types
from immured.service import harden, privilege
from immured.service.broker_user import User, find_user, lock_id
from immured.service.config import Config, load_config
from immured.service.context import log, now_ms
from immured.service.locks import lock_slots, lock_state, wait_for_launcher
from immured.service.notify import open_notifications
from immured.service.ownership import hand_over
from immured.service.recovery import LostRun, Recovery
from immured.service.state import Paths, State, find_state, load_state, publish_key, save_keyring
from immured.wire.messages import Receipt

__all__ = ["Opened", "Options", "open_all"]

_LAUNCHER_WAIT_S: Final = 15.0
_ID_LOCKS: Final = Path("/run/immured")


@dataclass(frozen=True, slots=True)
class Options:
    """The command line's say; None leaves it to config.toml, and that to the defaults."""

    state: Path
    socket: Path | None = None
    cgroup: Path | None = None
    executable: Path = field(default_factory=lambda: Path(immured.__file__).parent / "_native" / "immured-launcher")


@dataclass(slots=True)
class Opened:
    """Everything that is open. `ending` is what the ledger's last entry will give as the reason."""

    state: State
    user: User
    socket: Path
    descriptors: int
    ledger: Ledger
    replay: ReplayRecord
    recovery: Recovery
    launcher: Launcher
    boot: bytes
    ending: str = "it failed to start"


@contextlib.asynccontextmanager
async def open_all(
    options: Options, *, on_connection: Callable[[Connection], None], on_lost: Callable[[str], None]
) -> AsyncIterator[Opened]:
    """Open everything, say so in the ledger, and close it all at the end. Raises ConfigurationError."""
    _must_be_root()
    harden.hide_memory()
    descriptors = harden.raise_descriptor_limit()
    async with contextlib.AsyncExitStack() as held:
        try:
            launched = await _open_as_root(options, held, on_connection, on_lost)
            reached = privilege.drop(launched.user, launched.paths)
            replay = ReplayRecord()
            state = load_state(reached.root, launched.config)
            recovery = Recovery(replay, state.keyring, now_ms)
            ledger = Ledger.open(reached.root, visit=recovery.visit)
            held.callback(ledger.close)
            _check_not_rolled_back(state, ledger)
            if recovery.keyring is not state.keyring:
                save_keyring(state.paths, recovery.keyring)
        except OSError as error:
            raise ConfigurationError(
                "cannot_start", f"{error.filename or options.state}: {error.strerror}", "see `immure doctor`"
            ) from error
        opened = Opened(
            state,
            launched.user,
            launched.socket,
            descriptors,
            ledger,
            replay,
            recovery,
            launched.launcher,
            os.urandom(16),
        )
        held.push_async_callback(_last_words, opened)
        held.push_async_callback(opened.launcher.close)  # before the last words; a second time it does nothing
        await _first_words(opened)
        yield opened


@dataclass(frozen=True, slots=True)
class _Launched:
    """What was done as root."""

    paths: Paths
    config: Config
    user: User
    socket: Path
    launcher: Launcher


def _must_be_root() -> None:
    if os.geteuid() != 0:
        raise ConfigurationError(
            "needs_root",
            f"started as uid {os.geteuid()}; the launcher is root's",
            "start it as root: everything else gives that up at once",
        )


async def _open_as_root(
    options: Options,
    held: contextlib.AsyncExitStack,
    on_connection: Callable[[Connection], None],
    on_lost: Callable[[str], None],
) -> _Launched:
    """Nothing is read here that the broker writes, but its public key."""
    paths = find_state(options.state)
    config = load_config(paths.config)
    _hold(held, lock_state(paths.lock))
    launcher_lock = wait_for_launcher(paths.launcher_lock, _LAUNCHER_WAIT_S)
    with contextlib.closing(_Descriptor(launcher_lock)):
        slots = _take_slots(config, paths, held)
        user, id_lock = lock_id(_ID_LOCKS, find_user(config.user, paths.root.resolve(), slots))
        if id_lock is not None:
            _hold(held, id_lock)
        hand_over(paths, user)
        socket = options.socket or paths.socket
        socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        publish_key(paths, socket)
        open_notifications()
        privilege.prepare()
        cgroup = choose_cgroup(paths.root, options.cgroup or config.cgroup)
        step_aside(cgroup)
        launcher = await Launcher.spawn(
            options.executable,
            socket_path=socket,
            slot_base=slots.start,
            slot_count=len(slots) // SLOT_SIZE,
            cgroup=cgroup,
            lock_fd=launcher_lock,
            pool_min=config.pool_min,
            pool_max=config.pool_max,
            on_connection=on_connection,
            on_lost=on_lost,
            grant_read=config.read,
            grant_write=config.write,
            open_timeout_ms=config.open_timeout_ms,
        )
    held.push_async_callback(launcher.close)
    return _Launched(paths, config, user, socket, launcher)


def _take_slots(config: Config, paths: Paths, held: contextlib.AsyncExitStack) -> range:
    """The host ids of this daemon's sandboxes: the configured ones, or a block that no other daemon has."""
    if config.slot_base is not None and config.slot_count is not None:
        return range(config.slot_base, config.slot_base + config.slot_count * SLOT_SIZE)
    preferred = hashlib.sha256(os.fsencode(paths.root)).digest()[0]
    base, lock = lock_slots(_ID_LOCKS, preferred)
    _hold(held, lock)
    return range(base, base + SLOTS_PER_BLOCK * SLOT_SIZE)


def _check_not_rolled_back(state: State, ledger: Ledger) -> None:
    """The keyring holds the effect of an entry that the ledger has not: an older ledger was put in its place.

    Only that much shows from inside; an older copy of the whole directory takes a witness to find.
    """
    size = ledger.status().entries
    if state.keyring.as_of >= size:
        raise ConfigurationError(
            "ledger_rolled_back",
            f"the keyring knows of entry {state.keyring.as_of}, and the ledger ends at {size - 1}",
            "put back the ledger/ that belongs to this state, or restore the whole state directory from one backup",
        )


async def _first_words(opened: Opened) -> None:
    """Runs that the last daemon did not see to their end, then that this one has begun; durable."""
    ledger, actor = opened.ledger, {"daemon": opened.state.key.id}
    started = {
        "version": immured.__version__,
        "boot": opened.boot.hex(),
        "pid": os.getpid(),
        "uid": opened.user.uid,
        "kernel": os.uname().release,
        "socket": os.fspath(opened.socket),
        "host": opened.launcher.facts.to_map(),
        "profiles": {name: one.digest for name, one in opened.state.config.profiles.installed.items()},
    }
    try:
        lost = [(run, _tell_lost(ledger, actor, run)) for run in opened.recovery.lost]
        await ledger.entry(entry_types.DAEMON_STARTED, actor, started).durable()
        for run, pending in lost:
            receipt = await pending.durable()
            opened.recovery.settle(run, Receipt(receipt.seq, receipt.leaf))
    except Refused as error:
        # Served all the same: every run is refused with the remedy named, and what only reads can be asked.
        log.error("%s: %s", error.code, error.message)


def _tell_lost(ledger: Ledger, actor: dict[str, str], run: LostRun) -> Pending:
    data = {"sandbox": run.sandbox, "intent": run.intent, "reason": "the daemon ended before the run did"}
    return ledger.entry(entry_types.RUN_LOST, actor, data, closing=True)


async def _last_words(opened: Opened) -> None:
    data = {"reason": opened.ending}
    with contextlib.suppress(Refused):
        actor = {"daemon": opened.state.key.id}
        await opened.ledger.entry(entry_types.DAEMON_STOPPED, actor, data, closing=True).durable()


class _Descriptor:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        os.close(self._fd)


def _hold(held: contextlib.AsyncExitStack, fd: int) -> None:
    held.callback(os.close, fd)
