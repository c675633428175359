"""Sandboxes that live, from outside: everybody else's keys, and commands that meet each other at the worst moment."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.service.commands import load_commands
from immured.wire.keys import PrivateKey
from tests.hostile.raw import Talk
from tests.policies import declare

NO_SANDBOX, NO_EXEC = "s" + "0" * 20, "e" + "0" * 20


@pytest.fixture
def owner(daemon: ThrowawayDaemon, admin: PrivateKey) -> Iterator[Talk]:
    talk = Talk(daemon, admin)
    yield talk
    talk.ask("sandbox.prune", alive=True)
    talk.connection.socket.close()


@pytest.fixture
def sandbox(owner: Talk) -> str:
    return str(owner.ask("sandbox.create")["sandboxes"][0]["sandbox"])


# --- another key's ---------------------------------------------------------------------------------------------------

PATH = {"path": "/tmp/x"}
MORE: dict[str, dict[str, Any]] = {
    "sandbox.extend": {"ttl_ms": 1000},
    "sandbox.exec": {"argv": ["/bin/true"]},
    "sandbox.signal": {"exec": NO_EXEC, "signal": 9},
    "sandbox.resize": {"exec": NO_EXEC, "rows": 1, "columns": 1},
    "sandbox.logs": {"exec": NO_EXEC},
    "sandbox.attach": {"exec": NO_EXEC, "input": True},
    "file.put": {**PATH, "data": b"x"},
    "file.extract": {**PATH, "data": b"x"},
    "file.move": {**PATH, "to": "/tmp/y"},
    "file.chmod": {**PATH, "mode": 0o600},
    **{f"file.{name}": PATH for name in ("get", "list", "stat", "mkdir", "remove", "glob", "archive")},
    "changes.diff": PATH,
    "snapshot.save": {"name": "stolen"},
}
OF_NO_SANDBOX = {"sandbox.create", "sandbox.list", "sandbox.prune", "snapshot.list", "snapshot.remove"}
OF_ONE = sorted(
    name
    for name in load_commands()
    if name.partition(".")[0] in ("sandbox", "file", "changes", "snapshot") and name not in OF_NO_SANDBOX
)


@pytest.fixture(params=["default", "elsewhere"])
def stranger(request: pytest.FixtureRequest, daemon: ThrowawayDaemon) -> Iterator[Talk]:
    """A runner's key, of the same tenant and of another."""
    key = PrivateKey.generate()
    with daemon.client() as client:
        if request.param != "default":
            declare(client, f"[tenants.{request.param}]")
        bound = {} if request.param == "default" else {"tenants": [request.param]}
        client.key_add(f"stranger-{secrets.token_hex(4)}", key.public.to_pem(), role="runner", **bound)
    talk = Talk(daemon, key, **({} if request.param == "default" else {"tenant": request.param}))
    yield talk
    talk.connection.socket.close()


def test_to_another_key_there_is_no_such_sandbox_whatever_is_asked(owner: Talk, stranger: Talk) -> None:
    """And what is said of it is what is said of one that never was."""
    name = f"mine-{secrets.token_hex(4)}"
    theirs = owner.ask("sandbox.create", name=name)["sandboxes"][0]["sandbox"]
    going = owner.ask("sandbox.exec", sandbox=theirs, argv=["/bin/cat"], detach=True)["exec"]
    for cmd in OF_ONE:
        for word, nobodys in ((theirs, NO_SANDBOX), (name, "nobody-is-called-so")):
            args = {key: going if value == NO_EXEC else value for key, value in MORE.get(cmd, {}).items()}
            found = stranger.answer(stranger.send(cmd, sandbox=word, **args))
            never = stranger.answer(stranger.send(cmd, sandbox=nobodys, **args))
            assert not found["ok"], cmd
            assert found["error"]["code"] == "not_found", cmd
            told = found["error"]["message"].replace(word, "?")
            assert told == never["error"]["message"].replace(nobodys, "?"), cmd
    assert stranger.ask("sandbox.list")["sandboxes"] == []
    assert stranger.ask("sandbox.prune", alive=True)["removed"] == []
    assert owner.ask("sandbox.show", sandbox=name)["state"] == "ready"


# --- at the worst moment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["sandbox.kill", "sandbox.remove", "sandbox.pause", "sandbox.resume"])
@pytest.mark.parametrize("paused", [False, True])
def test_pausing_and_resuming_meet_what_ends_it(owner: Talk, other: str, paused: bool) -> None:
    for _ in range(4):
        sandbox = owner.ask("sandbox.create")["sandboxes"][0]["sandbox"]
        if paused:
            owner.ask("sandbox.pause", sandbox=sandbox)
        first = owner.send("sandbox.resume" if paused else "sandbox.pause", sandbox=sandbox)
        second = owner.send(other, sandbox=sandbox)
        assert {owner.code(first), owner.code(second)} <= {"ok", "wrong_state", "busy", "not_found"}


def test_one_that_is_killed_while_it_is_saved_is_over_and_no_accident(owner: Talk, sandbox: str) -> None:
    saving = owner.send("snapshot.save", sandbox=sandbox, name=f"never-{secrets.token_hex(4)}")
    killing = owner.send("sandbox.kill", sandbox=sandbox)
    assert owner.code(saving) in ("ok", "wrong_state", "clerk_lost")
    assert owner.code(killing) == "ok"


@pytest.mark.parametrize("paused", [False, True])
def test_nothing_begins_or_goes_on_in_one_that_is_being_saved(owner: Talk, sandbox: str, paused: bool) -> None:
    owner.ask("sandbox.exec", sandbox=sandbox, argv=["/bin/dd", "if=/dev/zero", "of=/tmp/big", "bs=1M", "count=60"])
    if paused:
        owner.ask("sandbox.pause", sandbox=sandbox)
    name = f"saved-{secrets.token_hex(4)}"
    saving, *asked = owner.send_at_once(
        ("snapshot.save", {"sandbox": sandbox, "name": name}),
        ("sandbox.resume" if paused else "sandbox.pause", {"sandbox": sandbox}),
        *([] if paused else [("sandbox.exec", {"sandbox": sandbox, "argv": ["/bin/true"]})]),
    )
    assert [owner.code(one) for one in asked] == ["busy"] * len(asked)
    assert owner.code(saving) == "ok"
    if paused:
        owner.ask("sandbox.resume", sandbox=sandbox)
    assert owner.ask("sandbox.exec", sandbox=sandbox, argv=["/bin/true"])["cause"] == "exited"
    owner.ask("snapshot.remove", name=name)


def test_a_snapshot_that_is_being_removed_is_nobodys_to_begin_with(owner: Talk, sandbox: str) -> None:
    name = f"going-{secrets.token_hex(4)}"
    owner.ask("snapshot.save", sandbox=sandbox, name=name)
    going = owner.send("snapshot.remove", name=name)
    beginning = owner.send("sandbox.create", snapshot=name)
    assert owner.code(going) == "ok"
    assert owner.code(beginning) == "unknown_snapshot"
