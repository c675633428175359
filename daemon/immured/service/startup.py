"""What a daemon opens before it serves, and closes in the other order: as root the locks and the launcher, which hears
nobody yet; then, as a user of its own, the state and the ledger."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import immured
from immured.errors import ConfigurationError, Refused
from immured.identity.authority import Authority
from immured.identity.replay import ReplayRecord
from immured.isolation.launcher import Connection, Launcher
from immured.ledger import Ledger, Pending, entry_types
from immured.ledger.rotation import Limits
from immured.manifest.builtin import CLASSES, class_text
from immured.service import daemon_keys, harden, policies, privilege, proposed
from immured.service.broker_user import User
from immured.service.config import Config
from immured.service.context import log, now_ms
from immured.service.daemon_keys import DaemonKeys
from immured.service.exports import Exports
from immured.service.launching import Options, launch
from immured.service.manifest_files import DamagedError, ManifestFiles
from immured.service.manifest_store import settle as settle_manifests
from immured.service.metrics import counted_so_far
from immured.service.recovery import LostRun, Recovery
from immured.service.retaining import Retaining
from immured.service.state import State, load_state, save_keyring
from immured.service.witnesses import Witnesses
from immured.wire.messages import Receipt

__all__ = ["Opened", "Options", "open_all"]


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
    volume_means: str
    chosen: policies.Chosen
    keys: DaemonKeys
    exports: Exports
    witnesses: Witnesses
    retaining: Retaining
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
            launched = await launch(options, held, on_connection, on_lost)
            shipped = policies.shipped_policy()
            reached = privilege.drop(launched.user, launched.paths)
            config = launched.config
            replay = ReplayRecord(per_key=config.nonces_per_key, total=config.nonces, held_bytes=config.held_replies)
            state = load_state(reached.root, config)
            authority = Authority(state.keyring, shipped)
            recovery = Recovery(replay, authority, now_ms)
            ledger = Ledger.open(
                reached.root,
                keeper=recovery,
                checkpoint_seconds=config.checkpoint_s,
                limits=_limits(config),
                durability=config.durability,
            )
            exports = Exports(
                launched.exporters,
                ledger,
                lambda: {"daemon": keys.id},
                recovery.exports,
                (reached.keys / "ledger.vkey").read_bytes(),
            )
            witnesses = Witnesses(
                launched.collectors,
                ledger,
                reached.ledger,
                lambda: {"daemon": keys.id},
                recovery.witnesses,
                (reached.keys / "ledger.vkey").read_bytes,
            )
            held.push_async_callback(exports.finish)  # once the ledger is closed, and its last head signed
            held.push_async_callback(witnesses.finish)  # and cosigned
            held.callback(ledger.close)
            retaining = Retaining(ledger, config.retain, exports.held, launched.unfixed)
            held.push_async_callback(retaining.stop)
            _check_not_rolled_back(state, ledger)
            if authority.keyring is not state.keyring:
                save_keyring(state.paths, authority.keyring)
            authority.forget(now_ms())
            state, keys = daemon_keys.settle(state, recovery.rotation, now_ms())
            mended = settle_manifests(
                ManifestFiles(state.paths.manifests), recovery.manifests, map(class_text, CLASSES), keys.signing
            )
            proposed.keep_only(state.paths, [one.id for one in authority.proposals])
            chosen = policies.choose(state.paths, recovery.policies, shipped)
            authority.set_policy(chosen.policy)
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
            launched.volume_means,
            chosen,
            keys,
            exports,
            witnesses,
            retaining,
        )
        held.push_async_callback(_last_words, opened)
        held.push_async_callback(opened.launcher.close)  # before the last words; a second time it does nothing
        await _first_words(opened, mended)
        exports.start()
        retaining.start()
        witnesses.start()
        yield opened


def _limits(config: Config) -> Limits:
    age_ms = config.segment_age
    return Limits(config.segment_bytes, None if age_ms is None else age_ms / 1_000)


def _must_be_root() -> None:
    if os.geteuid() != 0:
        raise ConfigurationError(
            "needs_root",
            f"started as uid {os.geteuid()}; the launcher is root's",
            "start it as root: everything else gives that up at once",
        )


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


async def _first_words(opened: Opened, mended: Sequence[DamagedError]) -> None:
    """Runs that the last daemon did not see to their end, then that this one has begun; durable. `mended`: what of the
    built-in classes was not as it should be, and is again."""
    ledger, actor = opened.ledger, {"daemon": opened.keys.id}
    started = {
        "version": immured.__version__,
        "boot": opened.boot.hex(),
        "pid": os.getpid(),
        "uid": opened.user.uid,
        "kernel": os.uname().release,
        "socket": os.fspath(opened.socket),
        "host": opened.launcher.facts.to_map(),
        "classes": dict(opened.state.classes),
        "profiles": {name: one.digest for name, one in opened.state.config.profiles.installed.items()},
        **await counted_so_far(opened.launcher),
    }
    try:
        lost = [(run, _tell_lost(ledger, actor, run)) for run in opened.recovery.lost]
        batches = opened.recovery.batches.tell(ledger, actor)
        _tell_policy(ledger, actor, opened.chosen)
        for one in mended:
            log.error("manifests/%s; it is put right", one)
            told = {"digest": f"sha256:{one.file[:64]}", "file": one.file, "message": one.why, "mended": True}
            ledger.entry(entry_types.MANIFEST_DAMAGED, actor, told)
        await ledger.entry(entry_types.DAEMON_STARTED, actor, started).durable()
        for run, pending in lost:
            receipt = await pending.durable()
            opened.recovery.settle(run, Receipt(receipt.seq, receipt.leaf))
        for claim, pending in batches:
            receipt = await pending.durable()
            if claim is not None:
                claim.outcome = Receipt(receipt.seq, receipt.leaf)
    except Refused as error:
        # Served all the same: every run is refused with the remedy named, and what only reads can be asked.
        log.error("%s: %s", error.code, error.message)


def _tell_policy(ledger: Ledger, actor: dict[str, str], chosen: policies.Chosen) -> None:
    """Which files were passed over; that the shipped policy is in force, where there was none before."""
    for digest, reason in chosen.refused:
        log.error("the policy %s is not in force: %s", digest, reason)
        refused = {"digest": digest, "message": reason, "stands": chosen.policy.digest}
        ledger.entry(entry_types.POLICY_REFUSED, actor, refused)
    if chosen.shipped:
        ledger.entry(
            entry_types.POLICY_CHANGED, actor, {"digest": chosen.policy.digest, "reason": "it is the shipped one"}
        )


def _tell_lost(ledger: Ledger, actor: dict[str, str], run: LostRun) -> Pending:
    data = {"sandbox": run.sandbox, "intent": run.intent, "reason": "the daemon ended before the run did"}
    return ledger.entry(entry_types.RUN_LOST, actor, data, closing=True)


async def _last_words(opened: Opened) -> None:
    data = {"reason": opened.ending}
    with contextlib.suppress(Refused):
        actor = {"daemon": opened.keys.id}
        await opened.ledger.entry(entry_types.DAEMON_STOPPED, actor, data, closing=True).durable()
