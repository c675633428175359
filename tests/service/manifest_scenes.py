"""What the scenes about loaded manifests have in common: files, signatures, people, and another start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from immured.identity.authority import Authority
from immured.identity.policy.parse import parse_policy
from immured.identity.replay import ReplayRecord
from immured.ledger import Ledger
from immured.manifest.builtin import CLASSES, class_text
from immured.manifest.signature import DEFAULT_LIFE_MS, show_signatures, sign
from immured.service.context import now_ms
from immured.service.limits import Limits
from immured.service.manifest_files import ManifestFiles
from immured.service.manifest_store import settle
from immured.service.policies import shipped_policy
from immured.service.recovery import Recovery
from immured.service.state import load_state, save_keyring
from immured.wire.keys import PrivateKey
from tests.service.harness import SCENARIO_S, Client, Harness
from tests.service.orders import TENANTS, done

DAY: Final = 86_400_000
HEAD: Final = b'schema = 1\nname = "build"\n'
NONE: Final = "sha256:" + "0" * 64


def manifest(more: str = "", *, name: str = "build") -> bytes:
    """A file. `more`: lines after the head."""
    return f'schema = 1\nname = "{name}"\n{more}'.encode()


def signed(raw: bytes, *keys: PrivateKey, life_ms: int = DEFAULT_LIFE_MS, at_ms: int | None = None) -> bytes:
    """The text of its detached signatures."""
    at = now_ms() if at_ms is None else at_ms
    return show_signatures([sign(key, raw, at, at + life_ms) for key in keys]).encode()


def orders(raw: bytes, *keys: PrivateKey, **how: int) -> dict[str, object]:
    """The arguments of `manifest.load`."""
    return {"manifest": raw, "signatures": signed(raw, *keys, **how)}


async def loaded(client: Client, raw: bytes, *keys: PrivateKey, **names: Any) -> str:
    """It is loaded, signed by these keys, or by whoever loads it. Its digest."""
    result = await done(client, "manifest.load", orders(raw, *(keys or (client.key,))), **names)
    return str(result["digest"])


async def row(client: Client, digest: str) -> Any:
    """What `manifest.show` says of it."""
    return await done(client, "manifest.show", {"digest": digest})


async def standing(client: Client, digest: str) -> str:
    return str((await row(client, digest))["standing"])


def with_tenants(harness: Harness, more: str = "") -> None:
    """acme and beta are declared, and `more`."""
    text = shipped_policy().text + (TENANTS + more).encode()
    harness.service.authority.set_policy(parse_policy(text))


def files_of(harness: Harness, digest: str) -> dict[str, Path]:
    """Its three files, by how their names end."""
    stem = digest.removeprefix("sha256:")
    return {end: harness.state.paths.manifests / f"{stem}.{end}" for end in ("toml", "sig", "signatures")}


def started_anew(directory: Path, scenario: Callable[[Harness], Awaitable[None]], more: str = "") -> None:
    """A daemon that starts where another ended, as `service.startup` has it. `more`: of the policy."""
    state = load_state(directory / "state")
    authority = Authority(state.keyring, shipped_policy())
    recovery = Recovery(ReplayRecord(), authority, now_ms)
    Ledger.open(state.paths.root, visit=recovery.visit).close()
    save_keyring(state.paths, authority.keyring)
    settle(ManifestFiles(state.paths.manifests), recovery.manifests, map(class_text, CLASSES), (state.key,))
    policy = parse_policy(shipped_policy().text + (TENANTS + more).encode())

    async def whole() -> None:
        async with (
            asyncio.timeout(SCENARIO_S),
            Harness(load_state(directory / "state"), Limits(), 16, policy, recovery.manifests) as harness,
        ):
            await scenario(harness)

    asyncio.run(whole())
