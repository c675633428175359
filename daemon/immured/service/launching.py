"""What is done as root: the locks, the ids of sandboxes and of the broker, and the launcher, found alive or started.

Nothing is read here that the broker writes, but its public key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

import immured
from immured.errors import ConfigurationError
from immured.host.cgroup import choose_cgroup, step_aside
from immured.host.ids import SLOT_SIZE, SLOTS_PER_BLOCK
from immured.host.quota import volume_means
from immured.isolation.launcher import Connection, Launcher, Settings
from immured.ledger.exports.place import Place
from immured.service import privilege
from immured.service.broker_user import ID_LOCKS, User, find_user, lock_id
from immured.service.config import Config, load_config
from immured.service.context import now_ms
from immured.service.exporting import Exporter, start_exporter
from immured.service.fixing import fix, let_go
from immured.service.locks import lock_slots, lock_state, wait_for_launcher
from immured.service.notify import listen_descriptor, open_notifications
from immured.service.offshoot import Offshoot
from immured.service.ownership import hand_over
from immured.service.state import Paths, find_state, make_storage, publish_key
from immured.service.witness_places import WitnessPlace

__all__ = ["Launched", "Options", "become_launcher", "launch"]

_LAUNCHER_WAIT_S: Final = 15.0
_JOIN_WAIT_S: Final = 20.0
_JOIN_POLL_S: Final = 0.05
_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Options:
    """The command line's say; None leaves it to config.toml, and that to the defaults. `join`: no launcher is started,
    the one that is there, or comes in a while, is used."""

    state: Path
    socket: Path | None = None
    cgroup: Path | None = None
    executable: Path = field(default_factory=lambda: Path(immured.__file__).parent / "_native" / "immured-launcher")
    join: bool = False
    orphan_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Launched:
    """What was done as root."""

    paths: Paths
    config: Config
    user: User
    socket: Path
    launcher: Launcher
    volume_means: str
    unfixed: str
    """Why sealed segments of the ledger are not append-only; empty where they are."""
    exporters: tuple[Exporter, ...]
    collectors: tuple[tuple[WitnessPlace, Offshoot], ...]


async def launch(
    options: Options,
    held: contextlib.AsyncExitStack,
    on_connection: Callable[[Connection], None],
    on_lost: Callable[[str], None],
) -> Launched:
    """As a broker: the launcher that an earlier one left with its sandboxes, or a new one. Raises ConfigurationError,
    OSError."""
    paths = find_state(options.state)
    config = load_config(paths.config)
    _hold(held, lock_state(paths.lock))
    socket = options.socket or paths.socket
    launcher = await _find(options, paths, on_connection, on_lost)
    if launcher is not None:
        held.push_async_callback(launcher.close)
        base, count = launcher.facts.slot_base, launcher.facts.slot_count
        user = _take_user(config, paths, range(base, base + count * SLOT_SIZE), held)
        _prepare_state(paths, user, socket, served=True)
    else:
        launcher_lock = wait_for_launcher(paths.launcher_lock, _LAUNCHER_WAIT_S)
        with contextlib.closing(_Descriptor(launcher_lock)):
            slots, locks = _take_slots(config, paths, held)
            user = _take_user(config, paths, slots, held)
            _prepare_state(paths, user, socket, served=False)
            settings = _settings(options, paths, config, socket, slots, user, (launcher_lock, *locks))
            launcher = await Launcher.spawn(options.executable, settings, on_connection=on_connection, on_lost=on_lost)
        held.push_async_callback(launcher.close)
    exporters = tuple(_start_exporter(place, paths, user, held) for place in config.exports)
    collectors = tuple(_start_collector(place, paths, user, held) for place in config.witnesses)
    unfixed = fix(paths.ledger, user, config.retain, now_ms())
    means = volume_means(paths.volumes)
    return Launched(paths, config, user, socket, launcher, means, unfixed, exporters, collectors)


def become_launcher(options: Options) -> NoReturn:
    """As the launcher alone: this process becomes it, and waits for brokers. Raises ConfigurationError, OSError."""
    paths = find_state(options.state)
    config = load_config(paths.config)
    socket = options.socket or paths.socket
    listening = listen_descriptor()
    with contextlib.ExitStack() as held:
        launcher_lock = wait_for_launcher(paths.launcher_lock, _LAUNCHER_WAIT_S)
        held.callback(os.close, launcher_lock)
        slots, locks = _take_slots(config, paths, held)
        user = find_user(config.user, paths.root.resolve(), slots)
        _prepare_state(paths, user, socket, served=listening is not None)
        settings = _settings(options, paths, config, socket, slots, user, (launcher_lock, *locks))
        words = ["immured-launcher", *settings.arguments(), "--program", os.fspath(options.executable)]
        if listening is not None:
            words += ["--listen-fd", str(listening)]
        for fd in (*settings.locks, *(() if listening is None else (listening,))):
            os.set_inheritable(fd, True)
        kept = {name: os.environ[name] for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC") if name in os.environ}
        try:
            os.execve(options.executable, words, {"PATH": _PATH, "LANG": "C.UTF-8", **kept})  # noqa: S606 - no shell
        except OSError as error:
            raise ConfigurationError(
                "launcher_failed", f"{options.executable}: {error.strerror}", "build it with `make build`"
            ) from error


async def _find(
    options: Options,
    paths: Paths,
    on_connection: Callable[[Connection], None],
    on_lost: Callable[[str], None],
) -> Launcher | None:
    """The launcher that lives. Raises ConfigurationError `no_launcher` where one should and does not."""
    deadline = asyncio.get_running_loop().time() + _JOIN_WAIT_S
    while True:
        found = await Launcher.find(paths.control, on_connection=on_connection, on_lost=on_lost)
        if found is not None or not options.join:
            return found
        if asyncio.get_running_loop().time() >= deadline:
            raise ConfigurationError(
                "no_launcher",
                f"nobody answers at {paths.control} after {_JOIN_WAIT_S:g} s",
                "start the launcher first: systemctl start immured-launcher, or immured --launcher-only",
            )
        await asyncio.sleep(_JOIN_POLL_S)


def _prepare_state(paths: Paths, user: User, socket: Path, *, served: bool) -> None:
    """`served`: the launcher listens at `socket` already."""
    make_storage(paths)
    let_go(paths.ledger, user)
    hand_over(paths, user)
    socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    publish_key(paths, socket, served=served)
    open_notifications()
    privilege.prepare()


def _settings(
    options: Options,
    paths: Paths,
    config: Config,
    socket: Path,
    slots: range,
    user: User,
    locks: tuple[int, ...],
) -> Settings:
    cgroup = choose_cgroup(paths.root, options.cgroup or config.cgroup)
    step_aside(cgroup)
    return Settings(
        socket=socket,
        slot_base=slots.start,
        slot_count=len(slots) // SLOT_SIZE,
        cgroup=cgroup,
        locks=locks,
        pool_min=config.pool_min,
        pool_max=config.pool_max,
        # Which of the named ones a tenant has, policy says; the launcher knows what the operator wrote.
        grant_read=(*config.read, *(one.path for one in config.named.values() if not one.write)),
        grant_write=(*config.write, *(one.path for one in config.named.values() if one.write)),
        storage=paths.root,
        open_timeout_ms=config.open_timeout_ms,
        control=paths.control,
        broker_uid=user.uid,
        orphan_ms=options.orphan_ms,
    )


def _take_slots(
    config: Config, paths: Paths, held: contextlib.AsyncExitStack | contextlib.ExitStack
) -> tuple[range, tuple[int, ...]]:
    """The host ids of this daemon's sandboxes, the configured ones or a block that no other daemon has; and the locks
    of it, which the launcher holds for as long as anything of those ids lives."""
    if config.slot_base is not None and config.slot_count is not None:
        return range(config.slot_base, config.slot_base + config.slot_count * SLOT_SIZE), ()
    preferred = hashlib.sha256(os.fsencode(paths.root)).digest()[0]
    base, lock = lock_slots(ID_LOCKS, preferred)
    held.callback(os.close, lock)
    return range(base, base + SLOTS_PER_BLOCK * SLOT_SIZE), (lock,)


def _take_user(config: Config, paths: Paths, slots: range, held: contextlib.AsyncExitStack) -> User:
    user, id_lock = lock_id(ID_LOCKS, find_user(config.user, paths.root.resolve(), slots))
    if id_lock is not None:
        _hold(held, id_lock)
    return user


def _start_exporter(place: Place, paths: Paths, user: User, held: contextlib.AsyncExitStack) -> Exporter:
    started = start_exporter(place, paths, user)
    held.callback(started.close)
    return started


def _start_collector(
    place: WitnessPlace, paths: Paths, user: User, held: contextlib.AsyncExitStack
) -> tuple[WitnessPlace, Offshoot]:
    from immured.service.witnessing import start_collector  # an HTTP client comes with it

    started = start_collector(place, paths, user)
    held.callback(started.close)
    return place, started


class _Descriptor:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        os.close(self._fd)


def _hold(held: contextlib.AsyncExitStack, fd: int) -> None:
    held.callback(os.close, fd)
