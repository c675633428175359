"""What a manifest costs: each time it is used, once it is loaded; and the first time, through every stage.

A daemon's store with two hundred manifests on a real disk, beside the keys and rules of `authorise`; the ledger's sync
and the writing of files, which loading takes besides, are told and not counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Final

from bench.bars import Shown
from bench.ground import Ground, Part
from bench.rows.authorise import crowd, rulebook
from immured.identity.actor import Actor, Caller
from immured.identity.authority import Authority
from immured.identity.keyring import KeyRecord, Keyring
from immured.identity.policy.parse import parse_policy
from immured.identity.policy.warrant import Warrant
from immured.ledger import Ledger, entry_types
from immured.manifest.pipeline import Judged
from immured.manifest.signature import DEFAULT_LIFE_MS, show_signatures, sign
from immured.manifest.use import check_use
from immured.service.daemon_keys import DaemonKeys
from immured.service.manifest_files import digest_of
from immured.service.manifest_register import Register
from immured.service.manifest_store import ManifestStore
from immured.service.state import State, init_state
from immured.wire.keys import PrivateKey

__all__ = ["measure"]

LOADED: Final = 200
NEW: Final = 200
SETTLED_S: Final = 2.2
"""A file that was written a moment ago is read again at every use, for two seconds."""

_RULES: Final = """
[roles.builder]
[[rules]]
name = "builders"
roles = ["builder"]
allow = ["manifest.load", "manifest.sign", "run"]
scope = "tenant"
"""
_MANIFEST: Final = """
schema = 1
name = "build-{number}"
class = "build"
tenants = ["tenant-1"]

[command]
allow = ["make", {{ program = "git", arguments = [["status"], ["log", "..."]] }}, "cc", "ld", "ar"]
env = {{ CI = "1", SEED = "{seed}" }}

[filesystem]
read = ["/srv/toolchain", "/srv/cache"]
write = [{{ path = "/srv/checkout", target = "/work" }}]
protect = ["@vcs", "/work/Makefile"]
hide = ["/work/.secrets"]

[limits]
memory = "4G"
wall = "30m"
pids = 512
"""


@dataclass
class _Daemon:
    """As much of one as the store asks for."""

    state: State
    authority: Authority
    ledger: Ledger
    keys: DaemonKeys

    @property
    def actor(self) -> Mapping[str, object]:
        return {"daemon": self.keys.id}


def measure(ground: Ground) -> Part:
    """Both bars."""
    dice = Random(5)
    key = PrivateKey.generate()
    record = KeyRecord(key.public, "builder", "builder", "2026-01-02T03:04:05Z", tenants=frozenset({"tenant-1"}))
    policy = parse_policy(rulebook(dice).text + _RULES.encode())
    authority = Authority(Keyring([*crowd(dice), record]), policy)
    with TemporaryDirectory(prefix="immured-bench-", dir="/var/tmp") as directory:
        state = init_state(Path(directory) / "state")
        with Ledger.open(state.paths.root) as ledger:
            daemon = _Daemon(state, authority, ledger, DaemonKeys(state.key))
            store = ManifestStore(daemon, Register())
            actor = Actor(record, Caller(1000), record.role, tenant="tenant-1")
            loading = authority.decider.warrant(actor, "manifest.load", _now())
            digests = [_load(store, daemon, loading, _file(number, 0), key) for number in range(LOADED)]
            early = _used(store, digests[:20], actor)
            time.sleep(SETTLED_S)
            took = _used(store, [dice.choice(digests) for _ in range(20 * ground.effort.runs)], actor)
            new = _judged(store, loading, key)
    worst = quantiles(took, n=100)[98]
    how = f"p99 {worst:.1f} us; {median(early):.0f} us within two seconds of a change of its files; {len(took)} uses"
    loaded = Shown("pipeline", median(took), how, {"us": took, "early_us": early})
    slowest = quantiles(new, n=100)[98]
    how = f"p99 {slowest:.2f} ms; signature, schema and difference of {NEW} files of {len(_file(0, 0))} bytes"
    return Part("Manifests", [loaded, Shown("pipeline-new", median(new), how, {"ms": new})])


def _used(store: ManifestStore, digests: list[str], actor: Actor) -> list[float]:
    """Microseconds of each use: it is looked for, its signatures and its files are looked at, the command is its."""
    took, argv = [], [b"make", b"test"]
    for digest in digests:
        start = time.perf_counter_ns()
        manifest = store.use(digest, actor.tenant, _now()).manifest
        check_use(manifest, argv, actor.persona, actor.tenant)
        took.append((time.perf_counter_ns() - start) / 1000)
    return took


def _judged(store: ManifestStore, warrant: Warrant, key: PrivateKey) -> list[float]:
    """Milliseconds of each that was never seen."""
    return asyncio.run(_judge_all(store, warrant, key))


async def _judge_all(store: ManifestStore, warrant: Warrant, key: PrivateKey) -> list[float]:
    took = []
    for number in range(NEW):
        raw = _file(number, 1)
        signatures = _signed(raw, key)
        start = time.perf_counter_ns()
        _pass(await store.judge(warrant, raw, signatures, _now()))
        took.append((time.perf_counter_ns() - start) / 1_000_000)
    return took


def _load(store: ManifestStore, daemon: _Daemon, warrant: Warrant, raw: bytes, key: PrivateKey) -> str:
    """As `manifest.load` does, without the entry."""
    signatures = _signed(raw, key)
    judged = _pass(asyncio.run(store.judge(warrant, raw, signatures, _now())))
    stem = store.files.stage(raw, signatures)
    store.files.finish(stem, digest_of(signatures), daemon.keys.signing)
    said = {**judged.to_map(), "bytes": len(raw), "signatures": digest_of(signatures), "at_ms": _now()}
    store.register.apply(entry_types.MANIFEST_LOADED, warrant.actor.to_map(), said, 1)
    approved = store.register.find(judged.digest)
    assert approved is not None
    assert judged.manifest is not None
    store.put_in_force(approved, judged.manifest)
    return judged.digest


def _pass(judged: Judged) -> Judged:
    if judged.refusal is not None:
        raise judged.refusal
    return judged


def _file(number: int, seed: int) -> bytes:
    return _MANIFEST.format(number=number, seed=seed).encode()


def _signed(raw: bytes, key: PrivateKey) -> bytes:
    now = _now()
    return show_signatures([sign(key, raw, now, now + DEFAULT_LIFE_MS)]).encode()


def _now() -> int:
    return time.time_ns() // 1_000_000
