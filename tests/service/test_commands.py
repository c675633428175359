"""From envelope to handler: every reason to say no, in the ledger where it was a decision, and what a repeat gets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from immured.errors import ConfigurationError
from immured.identity.keyring import KeyRecord, Role
from immured.identity.policy.parse import parse_policy
from immured.identity.policy.permissions import RIGHTS
from immured.service.commands import CommandSpec, index, load_commands
from immured.service.context import Service, now_ms
from immured.service.dispatch import Dispatcher
from immured.service.misbehaviour import DenialBound, Misbehaviour
from immured.service.policies import shipped_policy
from immured.service.request import Answer, Request
from immured.wire.envelope import Envelope, decode_envelope, encode_envelope, seal
from immured.wire.keys import PrivateKey
from immured.wire.messages import COMMAND, Reply
from tests.service.harness import Harness, serving, until


def code_of(reply: Reply | None) -> str:
    assert reply is not None
    assert reply.error is not None, reply.result
    return str(reply.error["code"])


def admit(harness: Harness, role: Role, **bindings: frozenset[int] | frozenset[str]) -> PrivateKey:
    """A new key in the keyring, as if it had always been there."""
    key = PrivateKey.generate()
    authority = harness.service.authority
    name = f"k{len(authority.keyring)}"
    record = KeyRecord(key.public, name, role, "2026-01-02T03:04:05Z", **bindings)  # type: ignore[arg-type]
    authority.keyring = authority.keyring.with_key(record, as_of=0)
    return key


def test_a_commands_permission_is_its_own_name() -> None:
    assert {spec.name: spec.permission for spec in load_commands().values()} == {name: name for name in load_commands()}


def test_no_right_is_a_command() -> None:
    assert not set(load_commands()) & set(RIGHTS)


async def nothing(service: Service, request: Request) -> Answer:
    return Answer({})


@pytest.mark.parametrize("permission", [None, "", "open", "status", "speak"])
def test_a_command_without_a_permission_of_its_own_does_not_load(permission: str | None) -> None:
    with pytest.raises(ConfigurationError, match="declares no permission"):
        index([CommandSpec("open", permission, nothing)])  # type: ignore[arg-type]


def test_two_commands_of_one_name_do_not_load() -> None:
    spec = CommandSpec("status", "status", nothing)
    with pytest.raises(ConfigurationError):
        index([spec, spec])


def test_a_handler_that_asked_nobody_answers_nobody(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        told = CommandSpec("sandbox.show", "sandbox.show", nothing)
        dispatcher = Dispatcher(harness.service, index([told]), in_flight=8)
        harness.server._on_frame = dispatcher.frame
        assert code_of(await harness.connect().ask("sandbox.show", {"sandbox": "s"})) == "internal"

    serving(tmp_path, scenario)


def test_policy_is_asked_before_the_arguments_are_read(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        wrong = {"no such": "argument"}
        assert code_of(await harness.connect(key=admit(harness, Role.RUNNER)).ask("key.add", wrong)) == "denied"
        assert code_of(await harness.connect().ask("key.add", wrong)) == "unknown_field"

    serving(tmp_path, scenario)


def changed(body: bytes, **fields: Any) -> bytes:
    envelope = decode_envelope(body)
    values = {"type": envelope.type, "payload": envelope.payload, "signatures": envelope.signatures, **fields}
    made = Envelope(**values)
    return encode_envelope(made.type, made.payload, made.signatures)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"signatures": ()}, "unsigned"),
        ({"signatures": (("ed25519:" + "0" * 32, b"x" * 64),)}, "unknown_key"),
        ({"payload": b"\x80"}, "bad_signature"),
    ],
)
def test_what_nobody_signed_is_refused_and_counted(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect(uid=1000)
        await client.send(changed(client.envelope("run", {"argv": ["/bin/true"]}), **change))
        reply = await client.reply()
        assert code_of(reply) == code
        assert reply is not None
        assert reply.receipt is None
        assert harness.of_type("command.denied") == []
        assert harness.service.misbehaviour.take() == [{"uid": 1000, "count": 1, "codes": {code: 1}}]
        assert (await client.ask("status", {})).ok

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"aud": "ed25519:" + "0" * 32}, "wrong_audience"),
        ({"iat": now_ms() - 400_000, "exp": now_ms() - 100_000}, "expired"),
        ({"iat": now_ms() + 3_600_000, "exp": now_ms() + 3_600_001}, "not_yet_valid"),
        ({"iat": now_ms(), "exp": now_ms() + 3_600_000}, "bad_command"),
        ({"tenant": "../up"}, "bad_argument"),
    ],
)
def test_a_command_out_of_its_frame_is_denied_in_the_ledger(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    async def scenario(harness: Harness) -> None:
        reply = await harness.connect().ask("run", {"argv": ["/bin/true"]}, **change)
        assert code_of(reply) == code
        [denied] = harness.of_type("command.denied")
        assert reply.receipt is not None
        assert (denied["seq"], denied["data"]["code"]) == (reply.receipt.seq, code)
        assert harness.launcher.gone == []

    serving(tmp_path, scenario)


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x80", b"\x81\xa3cmd\xa3run"])
def test_a_signed_payload_that_is_no_command_is_denied(tmp_path: Path, payload: bytes) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.send(seal(COMMAND, payload, [harness.admin]))
        assert code_of(await client.reply()) in ("bad_msgpack", "bad_command")
        assert len(harness.of_type("command.denied")) == 1
        assert (await client.ask("status", {})).ok

    serving(tmp_path, scenario)


def test_repeated_stale_commands_do_not_fill_the_ledger(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        harness.service.denials = DenialBound(per_interval=3)
        client = harness.connect(uid=1000)
        for _ in range(10):
            await client.send(client.envelope("run", {"argv": ["/bin/true"]}, iat=0, exp=1))
            assert code_of(await client.reply()) == "expired"
        assert len(harness.of_type("command.denied")) == 3
        assert harness.service.misbehaviour.take() == [{"uid": 1000, "count": 7, "codes": {"expired": 7}}]

    serving(tmp_path, scenario)


def test_the_same_stale_command_is_entered_once(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect(uid=1000)
        stale = client.envelope("run", {"argv": ["/bin/true"]}, iat=0, exp=1)
        for _ in range(10):
            await client.send(stale)
            assert code_of(await client.reply()) == "expired"
        assert len(harness.of_type("command.denied")) == 1

    serving(tmp_path, scenario)


def test_the_same_envelope_runs_once_and_is_answered_twice(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        body = client.envelope("run", {"argv": ["/bin/echo", "hello"]})
        replies = []
        for _ in range(2):
            await client.send(body)
            replies.append(await client.reply())
        assert replies[0] == replies[1]
        assert harness.launcher.gone == [1]

    serving(tmp_path, scenario)


def test_a_nonce_on_another_command_is_replayed(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        nonce = os.urandom(16)
        await client.ask("run", {"argv": ["/bin/true"]}, nonce=nonce)
        assert code_of(await client.ask("run", {"argv": ["/bin/false"]}, nonce=nonce)) == "replayed"
        assert harness.launcher.gone == [1]

    serving(tmp_path, scenario)


def test_anothers_envelope_does_nothing_for_a_thief(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        owner, thief = harness.connect(uid=0), harness.connect(uid=1000)
        body = owner.envelope("run", {"argv": ["/bin/echo", "secret"]})
        await owner.send(body)
        assert (await owner.reply()) is not None
        await thief.send(body)
        assert code_of(await thief.reply()) == "replayed"

    serving(tmp_path, scenario)


def test_while_it_runs_a_repeat_gets_the_intents_receipt(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        body = client.envelope("run", {"argv": ["/bin/sleep", "60"]})
        await client.send(body)
        await until(lambda: harness.launcher.gone == [1])
        await client.send(body)
        reply = await client.reply()
        assert code_of(reply) == "in_progress"
        [accepted] = harness.of_type("run.accepted")
        assert reply is not None
        assert reply.intent is not None
        assert reply.intent.seq == accepted["seq"]

    serving(tmp_path, scenario)


def test_a_denied_command_is_denied_once(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect(key=admit(harness, Role.RUNNER))
        body = client.envelope("key.list", {})
        for _ in range(5):
            await client.send(body)
            assert code_of(await client.reply()) == "denied"
        assert len(harness.of_type("command.denied")) == 1

    serving(tmp_path, scenario)


@pytest.mark.parametrize(("cmd", "args"), [("key.add", {}), ("key.list", {})])
def test_a_runner_may_not_see_to_keys(tmp_path: Path, cmd: str, args: dict[str, object]) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect(key=admit(harness, Role.RUNNER))
        assert code_of(await client.ask(cmd, args)) == "denied"
        [denied] = harness.of_type("command.denied")
        assert denied["data"]["cmd"] == cmd

    serving(tmp_path, scenario)


def test_a_bound_key_is_refused_to_other_users_and_keeps_its_nonce(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        key = admit(harness, Role.RUNNER, uids=frozenset({1000}))
        thief, owner = harness.connect(uid=1001, key=key), harness.connect(uid=1000, key=key)
        body = owner.envelope("run", {"argv": ["/bin/true"]})
        await thief.send(body)
        assert code_of(await thief.reply()) == "peer_not_bound"
        await owner.send(body)
        reply = await owner.reply()
        assert reply is not None
        assert reply.ok

    serving(tmp_path, scenario)


@pytest.mark.parametrize("cmd", ["key.suspend", "key.revoke"])
def test_what_a_stopped_key_has_under_way_ends(tmp_path: Path, cmd: str) -> None:
    async def scenario(harness: Harness) -> None:
        stolen, other = (harness.connect(key=admit(harness, Role.RUNNER)) for _ in range(2))
        for client in (stolen, other):
            await client.send(client.envelope("run", {"argv": ["/bin/sleep", "60"]}))
        await until(lambda: len(harness.launcher.gone) == 2)
        admin = harness.connect()
        assert (await admin.ask(cmd, {"key": stolen.key.id})).ok
        assert await stolen.reply() is None
        await until(lambda: len(harness.of_type("run.finished")) == 1 and len(harness.service.registry) == 1)
        [live] = harness.service.registry
        assert live.key_id == other.key.id

    serving(tmp_path, scenario)


def test_who_stops_himself_is_told_so(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        harness.service.authority.set_policy(
            parse_policy(
                shipped_policy().text
                + b'[[rules]]\nname = "x"\nroles = ["runner"]\nallow = ["key.revoke"]\nscope = "own"\n'
            )
        )
        client = harness.connect(key=admit(harness, Role.RUNNER))
        await client.send(client.envelope("run", {"argv": ["/bin/sleep", "60"]}))
        await until(lambda: len(harness.launcher.gone) == 1)
        assert (await client.ask("key.revoke", {"key": client.key.id})).ok
        assert await client.reply() is None
        await until(lambda: len(harness.of_type("run.finished")) == 1)

    serving(tmp_path, scenario)


def test_a_key_that_expires_ends_nothing_that_was_begun(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client, admin = harness.connect(key=admit(harness, Role.RUNNER)), harness.connect()
        await client.send(client.envelope("run", {"argv": ["/bin/sleep", "60"]}))
        await until(lambda: len(harness.launcher.gone) == 1)
        public = PrivateKey.generate().public.raw
        assert (await admin.ask("key.rotate", {"key": client.key.id, "public": public, "overlap_ms": 0})).ok
        assert code_of(await harness.connect(key=client.key).ask("status", {})) == "key_expired"
        assert len(harness.service.registry) == 1

    serving(tmp_path, scenario)


def test_an_unknown_command_is_told_the_nearest(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        reply = await harness.connect().ask("statsu", {})
        assert code_of(reply) == "unknown_command"
        assert reply.error is not None
        assert "'status'" in str(reply.error["remedy"])

    serving(tmp_path, scenario)


def test_an_added_key_may_give_orders_at_once(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        key = PrivateKey.generate()
        added = await harness.connect().ask("key.add", {"name": "ci", "public": key.public.raw, "role": "runner"})
        assert added.ok
        assert added.receipt is not None
        assert (await harness.connect(key=key).run("/bin/true")).ok
        assert key.id.encode() in harness.state.paths.keyring.read_bytes()

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    "change",
    [
        {"public": b"short"},
        {"public": bytes(32)},
        {"role": "root"},
        {"name": "../x"},
        {"uids": ["1000"]},
        {"uids": [-1]},
        {"tenants": ["A B"]},
        {"owner": "me"},
    ],
)
def test_a_key_that_is_none_is_not_added(tmp_path: Path, change: dict[str, object]) -> None:
    async def scenario(harness: Harness) -> None:
        args = {"name": "ci", "public": PrivateKey.generate().public.raw, "role": "runner", **change}
        assert code_of(await harness.connect().ask("key.add", args)) in ("bad_argument", "unknown_field")
        assert len(harness.service.authority.keyring) == 1

    serving(tmp_path, scenario)


def test_the_keys_are_listed_without_secrets(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        reply = await harness.connect().ask("key.list", {})
        assert reply.result is not None
        keys: Any = reply.result["keys"]
        assert [record["name"] for record in keys] == ["admin"]
        assert "private" not in str(keys)

    serving(tmp_path, scenario)


def test_a_sandbox_can_be_killed_by_its_name(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        runner, killer = harness.connect(), harness.connect()
        await runner.send(runner.envelope("run", {"argv": ["/bin/sleep", "60"]}))
        await until(lambda: harness.launcher.gone == [1])
        [live] = harness.service.registry
        killed = await killer.ask("kill", {"sandbox": live.sandbox})
        assert killed.ok
        assert harness.service.registry.find("default", live.sandbox) is None
        reply = await runner.reply()
        assert reply is not None
        assert reply.result is not None
        assert reply.result["cause"] == "killed"
        [done] = harness.of_type("command.done")
        assert done["data"]["sandbox"] == live.sandbox

    serving(tmp_path, scenario)


def test_anothers_sandbox_is_not_to_be_killed(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        owner, other = harness.connect(), harness.connect(key=admit(harness, Role.RUNNER))
        await owner.send(owner.envelope("run", {"argv": ["/bin/sleep", "60"]}))
        await until(lambda: harness.launcher.gone == [1])
        [live] = harness.service.registry
        assert code_of(await other.ask("kill", {"sandbox": live.sandbox})) == "bad_argument"
        assert harness.launcher.kills == []

    serving(tmp_path, scenario)


def test_the_status_shows_a_runner_its_own_sandboxes(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        owner, other = harness.connect(), harness.connect(key=admit(harness, Role.RUNNER))
        await owner.send(owner.envelope("run", {"argv": ["/bin/sleep", "60"]}))
        await until(lambda: harness.launcher.gone == [1])
        shown = (await other.ask("status", {})).result
        assert shown is not None
        assert (shown["live"], shown["runs"]) == (0, [])

    serving(tmp_path, scenario)


def test_a_plan_says_what_a_run_would_do(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        reply = await harness.connect().ask("plan", {"argv": ["/bin/true"], "limits": {"wall": "5s"}})
        assert reply.result is not None
        steps: Any = reply.result["steps"]
        assert steps[-1]["argv"] == ["/bin/true"]
        assert reply.result["enforcement"] == {**reply.result["enforcement"], "wall": "launcher timer"}  # type: ignore[dict-item]
        assert harness.launcher.runs == {}

    serving(tmp_path, scenario)


def test_strangers_share_one_entry_past_the_bound() -> None:
    counted = Misbehaviour()
    for uid in range(300):
        counted.add(uid, "unsigned")
    entries = counted.take()
    assert len(entries) == 257
    assert entries[-1] == {"count": 44, "codes": {"unsigned": 44}}
    assert not counted
