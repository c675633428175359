"""Manifests by the SDK, the blocking client and the one for asyncio alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from immured import AsyncClient, Client
from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from immured.manifest.signature import show_signatures, sign
from immured.wire.keys import PrivateKey

DAY = 86_400_000
Ask = Callable[..., Any]


@pytest.fixture
def admin(daemon: ThrowawayDaemon) -> PrivateKey:
    return PrivateKey.from_pem(daemon.admin_key.read_bytes())


@pytest.fixture(params=["sync", "asyncio"])
def ask(request: pytest.FixtureRequest, daemon: ThrowawayDaemon, client: Client) -> Iterator[Ask]:
    """Calls a method of `manifests`, or `run`, of either client."""
    if request.param == "sync":
        yield lambda name, *args, **options: _of(client, name)(*args, **options)
        return

    async def awaited(name: str, *args: Any, **options: Any) -> Any:
        async with AsyncClient(daemon.socket, daemon.admin_key, daemon.daemon_key) as asked:
            answer: Awaitable[Any] = _of(asked, name)(*args, **options)
            return await answer

    yield lambda name, *args, **options: asyncio.run(awaited(name, *args, **options))


def _of(client: Client | AsyncClient, name: str) -> Any:
    return client.run if name == "run" else getattr(client.manifests, name)


def text(name: str, more: str = "") -> bytes:
    return f'schema = 1\nname = "{name}"\n{more}'.encode()


def signatures(raw: bytes, *keys: PrivateKey) -> str:
    now = time.time_ns() // 1_000_000
    return show_signatures([sign(key, raw, now, now + DAY) for key in keys])


def fresh(name: str, request: pytest.FixtureRequest) -> str:
    return f"{name}-{request.node.callspec.params['ask']}"


def test_one_is_judged_loaded_used_shown_listed_and_revoked(
    ask: Ask, admin: PrivateKey, request: pytest.FixtureRequest
) -> None:
    name = fresh("whole", request)
    raw = text(name, '[limits]\nmemory = "1G"\n')
    signed = signatures(raw, admin)

    judged = ask("load", raw, signed, check=True)
    assert (judged.passes, judged.stored, judged.known) == (True, False, False)
    assert [one.stage for one in judged.stages] == ["signature", "schema", "capabilities"]
    assert [(one.field, one.words, one.severity) for one in judged.added] == [
        ("limits.memory", "memory 512M -> 1G", "medium")
    ]
    assert judged.baseline["kind"] == "class"

    loaded = ask("load", raw, signed)
    assert (loaded.digest, loaded.name, loaded.stored, loaded.class_) == (judged.digest, name, True, "default")
    assert isinstance(loaded.seq, int)
    assert [one.key for one in loaded.signers] == [admin.id]
    assert ask("load", raw, signed).known

    assert ask("run", ["/bin/true"], manifest=loaded.digest).ok

    shown = ask("show", loaded.digest)
    assert (shown.manifest, shown.signatures) == (raw, signed.encode())
    assert (shown.standing, shown.seq, shown.built_in, shown.key) == ("in_force", loaded.seq, False, admin.id)
    assert [one.digest for one in ask("list", name)] == [loaded.digest]
    assert {one.name for one in ask("list") if one.built_in} >= {"default", "strict", "build"}

    revoked = ask("revoke", loaded.digest, "over")
    assert (revoked.digest, revoked.standing) == (loaded.digest, "revoked")
    assert ask("show", loaded.digest).revoked["reason"] == "over"
    with pytest.raises(Refusal) as refused:
        ask("run", ["/bin/true"], manifest=loaded.digest)
    assert refused.value.code == "manifest_revoked"


def test_what_is_not_signed_well_is_refused(ask: Ask, admin: PrivateKey, request: pytest.FixtureRequest) -> None:
    raw, stranger = text(fresh("unsigned", request)), PrivateKey(bytes([9]) * 32)
    for given, code in (
        (None, "manifest_unsigned"),
        (signatures(raw, stranger), "manifest_unsigned"),
        (signatures(raw + b"\n", admin), "signature_invalid"),
        ("immured-signature v1\n", "signature_invalid"),
    ):
        with pytest.raises(Refusal) as refused:
            ask("load", raw, given)
        assert refused.value.code == code
        judged = ask("load", raw, given, check=True)
        assert (judged.passes, judged.stages[0].verdict) == (False, "fail")
        assert judged.stages[0].code == code


def test_what_is_no_manifest_is_refused_by_its_field(
    ask: Ask, admin: PrivateKey, request: pytest.FixtureRequest
) -> None:
    raw = text(fresh("wrong", request), '[limits]\nmemoryy = "1G"\n')
    judged = ask("load", raw, signatures(raw, admin), check=True)
    assert [(one.stage, one.verdict) for one in judged.stages[:2]] == [("signature", "pass"), ("schema", "fail")]
    with pytest.raises(Refusal, match="memoryy") as refused:
        ask("load", raw, signatures(raw, admin))
    assert refused.value.code == "manifest_invalid"


def test_there_are_as_many_as_were_loaded(ask: Ask, admin: PrivateKey, request: pytest.FixtureRequest) -> None:
    """More than a page holds; the pages are put together."""
    name = fresh("many", request)
    made = [text(name, f"[limits]\npids = {number}\n") for number in range(1, 301)]
    digests = [ask("load", raw, signatures(raw, admin)).digest for raw in made[: 4 if "asyncio" in name else 300]]
    assert [one.digest for one in ask("list", name)] == digests
