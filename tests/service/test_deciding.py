"""Commands that change who may do what, at the same time: one after the other, each by what stands at its turn."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from immured.service.daemon_keys import settle
from immured.service.policies import shipped_policy
from immured.service.state import load_state
from immured.wire.keys import PrivateKey
from tests.service.harness import Harness, serving
from tests.service.orders import code_of, done, let_in, started_again, under


def test_of_two_keys_with_one_name_one_is_added(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        clients = [harness.connect() for _ in range(4)]  # each blocks a thread, and the service needs one
        args = [{"name": "ci", "public": PrivateKey.generate().public.raw, "role": "viewer"} for _ in clients]
        replies = await asyncio.gather(
            *(client.ask("key.add", given) for client, given in zip(clients, args, strict=True))
        )
        assert sum(reply.ok for reply in replies) == 1
        assert {code_of(reply) for reply in replies if not reply.ok} == {"bad_argument"}
        assert len(harness.service.authority.keyring) == 2

    serving(tmp_path, scenario)


@pytest.mark.parametrize("change", ["policy", "key"])
def test_what_waited_while_its_rights_changed_is_to_be_sent_again(tmp_path: Path, change: str) -> None:
    async def scenario(harness: Harness) -> None:
        second = await let_in(harness, "second", "admin")
        given: dict[str, Any] = {"name": "ci", "public": PrivateKey.generate().public.raw, "role": "viewer"}
        body = second.envelope("key.add", given)
        async with harness.service.deciding:
            await second.send(body)
            while not any(one.claim.state.name == "OPEN" for one in harness.dispatcher._under_way):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            if change == "policy":
                under(harness, "# another")
            else:
                authority = harness.service.authority
                record = authority.keyring.named("second")
                assert record is not None
                again = type(record).from_map({**record.to_map(), "note": "x"})
                authority.keyring = authority.keyring.with_change(again, as_of=authority.keyring.as_of)
        assert code_of(await second.reply()) == "busy"
        await second.send(body)  # its nonce was not used up
        reply = await second.reply()
        assert reply is not None
        assert reply.ok
        assert len((await done(second, "key.list", {}))["keys"]) == 3

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    ("cmd", "args"),
    [
        ("key.add", {"name": "ci", "public": PrivateKey.generate().public.raw, "role": "viewer"}),
        ("key.suspend", {"key": "bob"}),
        ("key.rotate", {"key": "bob", "public": PrivateKey.generate().public.raw}),
        ("key.revoke", {"key": PrivateKey.generate().id}),
        ("policy.set", {"policy": shipped_policy().text + b"\n# another\n"}),
        ("grant.issue", {"key": "bob", "cmd": "run", "ttl_ms": 1000, "reason": "x"}),
        ("proposal.create", {"cmd": "run", "args": {}, "reason": "x"}),
        ("session.open", {}),
        ("daemon.rotate", {}),
    ],
)
def test_what_no_ledger_takes_is_not_so(tmp_path: Path, cmd: str, args: dict[str, object]) -> None:
    async def scenario(harness: Harness) -> None:
        await let_in(harness, "bob", "viewer")
        authority, keys = harness.service.authority, harness.service.keys.signing

        def stands() -> tuple[object, ...]:
            held = [*authority.grants], [*authority.proposals], [*authority.sessions]
            return (authority.keyring, authority.policy, set(authority.barred), *held)

        before, file = stands(), harness.state.paths.keyring.read_bytes()
        harness.ledger.close()
        assert code_of(await harness.connect().ask(cmd, args)) == "ledger_unavailable"
        assert stands() == before
        assert harness.service.keys.signing == keys
        assert harness.state.paths.keyring.read_bytes() == file
        assert list(harness.state.paths.proposals.iterdir()) == []
        assert started_again(harness).keyring.to_json() == authority.keyring.to_json()
        state, _ = settle(load_state(harness.state.paths.root), None, 0)
        assert state.key.id == keys[0].id

    serving(tmp_path, scenario)
