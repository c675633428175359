"""A broken build that answers without an entry: the server's own count says what is not in the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from immured.errors import Refused
from immured.identity.actor import Actor
from immured.service.commands import load_commands
from immured.service.decided import READS, only_looked
from immured.service.dispatch import Dispatcher
from immured.service.request import Answer, Request
from immured.wire.messages import Receipt
from tests.service.harness import Client, Harness, serving


class Forgetful(Dispatcher):
    """Denies, and tells nobody."""

    async def _enter_denial(self, error: Refused, actor: Actor, said: Mapping[str, object]) -> Receipt | None:
        return None


async def decisions(client: Client) -> Any:
    found: Any = (await client.ask("metrics", {})).result
    return found["audit_ok"]["decisions"]


async def measured(client: Client, cmd: str, args: dict[str, object]) -> tuple[Any, Any]:
    before = await decisions(client)
    await client.ask(cmd, args)
    return before, await decisions(client)


@pytest.mark.parametrize("broken", [False, True])
def test_a_denial_without_its_entry_is_missing(tmp_path: Path, broken: bool) -> None:
    async def scenario(harness: Harness) -> None:
        if broken:
            harness.dispatcher = Forgetful(harness.service, load_commands(), in_flight=16)
            harness.server._on_frame = harness.dispatcher.frame
        client = harness.connect()
        before, after = await measured(client, "kill", {"sandbox": "s-nobodys"})
        assert after["counted"] - before["counted"] == 1
        assert after["missing"] == int(broken)
        if broken:
            assert after["missing_by_command"] == {"kill": 1}
            assert [one["cmd"] for one in after["missing_first"]] == ["kill"]
        assert len(harness.of_type("command.denied")) == int(not broken)

    serving(tmp_path, scenario)


def test_a_command_that_acts_without_a_word_is_missing(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        async def silent(_: object, request: Request) -> Answer:
            request.warrant.covers(request.warrant.place())
            return Answer({})

        commands = load_commands()
        spec = commands["volume.create"]
        commands["volume.create"] = type(spec)(spec.name, spec.permission, silent)
        harness.dispatcher = Dispatcher(harness.service, commands, in_flight=16)
        harness.server._on_frame = harness.dispatcher.frame
        _, after = await measured(harness.connect(), "volume.create", {})
        assert after["missing_by_command"] == {"volume.create": 1}

    serving(tmp_path, scenario)


def test_what_only_looks_is_no_decision_and_what_is_turned_away_is_none_yet(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        before, after = await measured(client, "status", {})
        assert after["counted"] == before["counted"]
        assert after["reads"] - before["reads"] == 2  # the first `metrics`, and `status`
        harness.service.stopping = True
        _, stopping = await measured(client, "run", {"argv": ["/bin/true"]})
        assert (stopping["counted"], stopping["undecided"]) == (after["counted"], after["undecided"] + 1)

    serving(tmp_path, scenario)


def test_a_run_is_one_decision(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        before, after = await measured(harness.connect(), "run", {"argv": ["/bin/true"]})
        assert (after["counted"] - before["counted"], after["missing"]) == (1, 0)

    serving(tmp_path, scenario)


def test_reads_are_commands(tmp_path: Path) -> None:
    assert READS - set(load_commands()) <= {"ledger.query"}


def test_a_manifest_that_is_loaded_needs_an_entry_and_one_that_was_only_judged_none() -> None:
    assert not only_looked("manifest.load", {"stored": True})
    assert not only_looked("manifest.load", {})
    assert only_looked("manifest.load", {"stored": False})
    assert not only_looked("volume.create", {"stored": False})
