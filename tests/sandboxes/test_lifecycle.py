"""A sandbox from its creation to its end, against a real daemon."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client import sandbox_questions as questions
from immured.client.question import Question
from immured.client.sandbox import Exec, Sandbox
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from tests.patience import until
from tests.sandboxes.waiting import code

pytestmark = pytest.mark.needs_root

Entries = Callable[..., list[dict[str, Any]]]


def test_what_one_exec_writes_the_next_one_reads(sandbox: Sandbox) -> None:
    assert sandbox.exec(["/bin/sh", "-c", "echo kept > /tmp/note"]).exit_code == 0
    assert sandbox.exec(["/bin/cat", "/tmp/note"]).stdout == b"kept\n"


def test_two_sandboxes_share_nothing(client: Client, sandbox: Sandbox) -> None:
    with client.sandbox() as other:
        sandbox.exec(["/bin/sh", "-c", "echo mine > /tmp/note; echo mine > /dev/shm/note"])
        assert other.exec(["/bin/ls", "/tmp/note", "/dev/shm/note"]).exit_code == 2


def test_its_life_is_three_entries(client: Client, entries: Entries) -> None:
    with client.sandbox(labels={"a": "b"}, ttl=90) as made:
        made.exec(["/bin/true"])
    [created] = entries("sandbox.created", made.id)
    [ready] = entries("sandbox.ready", made.id)
    [ended] = entries("sandbox.ended", made.id)
    assert created["data"]["labels"] == {"a": "b"}
    assert created["data"]["ttl_ms"] == 90_000
    assert created["data"]["manifest"].startswith("sha256:")
    assert ready["data"]["intent"] == ended["data"]["intent"] == created["seq"]
    assert ended["data"]["cause"] == "killed"
    assert "admin" in ended["data"]["reason"]
    assert ended["data"]["usage"]["cpu_ms"] >= 0


def test_a_name_is_one_sandboxs_and_free_again_when_it_ended(client: Client) -> None:
    with client.sandbox(name="work") as first:
        with pytest.raises(ImmuredError) as refused:
            client.sandbox(name="work")
        assert code(refused) == "name_taken"
        assert client.open("work").id == first.id
        first.kill()
        with client.sandbox(name="work") as second:
            assert client.open("work").id == second.id != first.id


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"name": "No Capitals"}, "bad_argument"),
        ({"name": "s" + "0" * 20}, "bad_argument"),
        ({"name": ""}, "bad_argument"),
        ({"labels": {"x y": "z"}}, "bad_argument"),
        ({"labels": {"x": "\n"}}, "bad_argument"),
        ({"ttl": "25h"}, "bad_argument"),
        ({"ttl": 0}, "bad_argument"),
        ({"restart": "perhaps"}, "bad_argument"),
        ({"limits": {"memory": "900G"}}, "bad_argument"),
        ({"manifest": "sha256:" + "0" * 64}, "unknown_manifest"),
        ({"manifest": {"schema": 1, "name": "x", "class": "default", "tenants": ["other"]}}, "denied"),
        ({"cwd": "relative"}, "bad_argument"),
        ({"files": {"/etc/passwd": b""}}, "bad_argument"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(
    client: Client, entries: Entries, options: dict[str, Any], wanted: str
) -> None:
    before = len(entries("sandbox.created"))
    with pytest.raises(ImmuredError) as refused:
        client.sandbox(**options)
    assert code(refused) == wanted
    assert len(entries("sandbox.created")) == before


def test_a_wall_that_cannot_be_built_is_told_and_the_sandbox_never_lived(client: Client, entries: Entries) -> None:
    manifest = {"schema": 1, "name": "x", "class": "default", "filesystem": {"read": ["/no/such/place"]}}
    with pytest.raises(ImmuredError) as refused:
        client.sandbox(manifest=manifest)
    assert code(refused) == "path_missing"
    [row] = [one for one in client.sandboxes(state="failed") if one.facts.cause == "setup_failed"]
    assert entries("sandbox.ended", row.id)[0]["data"]["failure"]["code"] == "path_missing"
    client.prune()


def test_files_and_environment_of_its_own(client: Client) -> None:
    options: dict[str, Any] = {"files": {"/tmp/in": b"put in"}, "env": {"GREETING": "hello"}, "cwd": "/tmp"}
    with client.sandbox(**options) as made:
        result = made.exec(["/bin/sh", "-c", "cat in; echo $GREETING; pwd"])
        assert result.stdout == b"put inhello\n/tmp\n"
        assert made.exec(["/bin/sh", "-c", "echo $GREETING"], env={"GREETING": "other"}).stdout == b"other\n"


def test_paused_nothing_runs_and_no_exec_is_taken(sandbox: Sandbox) -> None:
    counting = sandbox.start(["/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"])
    until(lambda: counting.logs().next > 20)
    assert sandbox.pause().state == "paused"
    stands_still(counting)
    seen = counting.logs().next
    with pytest.raises(ImmuredError) as refused:
        sandbox.exec(["/bin/true"])
    assert code(refused) == "wrong_state"
    assert sandbox.resume().state == "ready"
    until(lambda: counting.logs().next > seen)


def stands_still(counting: Exec) -> None:
    """What it wrote before it was paused may still be on its way to its log; then there is no more."""

    def is_silent() -> bool:
        seen = counting.logs().next
        time.sleep(0.3)
        return counting.logs().next == seen

    until(is_silent)


def test_pausing_twice_is_a_wrong_state_and_changes_are_entries(sandbox: Sandbox, entries: Entries) -> None:
    sandbox.pause()
    with pytest.raises(ImmuredError) as refused:
        sandbox.pause()
    assert code(refused) == "wrong_state"
    sandbox.resume()
    sandbox.extend("1h")
    changes = [one["data"]["change"] for one in entries("sandbox.changed", sandbox.id)]
    assert changes == ["paused", "resumed", "extended"]
    accepted = {one["seq"] for one in entries("command.accepted", sandbox.id)}
    assert {one["data"]["intent"] for one in entries("sandbox.changed", sandbox.id)} <= accepted


def test_its_time_ends_it(client: Client, entries: Entries) -> None:
    made = client.sandbox(ttl=5.0)
    until(lambda: made.refresh().state == "ended")
    assert made.refresh().cause == "expired"
    with pytest.raises(ImmuredError) as refused:
        made.exec(["/bin/true"])
    assert code(refused) == "wrong_state"
    until(lambda: entries("sandbox.ended", made.id))  # nobody asked for it: it is over before that is on disk
    assert entries("sandbox.ended", made.id)[0]["data"]["cause"] == "expired"
    made.remove()


def test_extended_it_lives_on(client: Client) -> None:
    with client.sandbox(ttl=15) as made:
        before = made.refresh().expires_ms
        assert made.extend(600).expires_ms > before + 500_000
        time.sleep(max(0.0, before / 1000 - time.time()) + 0.5)
        assert made.exec(["/bin/true"]).exit_code == 0
        with pytest.raises(ImmuredError) as refused:
            made.extend("25h")
        assert code(refused) == "bad_argument"


def test_killed_it_stays_listed_until_it_is_removed(client: Client) -> None:
    made = client.sandbox()
    assert made.kill()["ended"] is True
    assert made.refresh().state == "ended"
    assert made.kill()["ended"] is True  # twice is once
    made.remove()
    with pytest.raises(ImmuredError) as refused:
        made.refresh()
    assert code(refused) == "not_found"


def test_with_it_its_execs_end(client: Client, entries: Entries) -> None:
    with client.sandbox() as made:
        going = made.start(["/bin/sleep", "1000"])
    [finished] = entries("exec.finished", made.id)
    assert finished["data"]["exec"] == going.id
    assert finished["data"]["cause"] == "killed"


def test_many_at_once_each_with_an_intent_and_pruned_together(client: Client, entries: Entries) -> None:
    before = len(entries("sandbox.created"))
    made = client.ask(questions.create(count=20, labels={"batch": "one"}))
    assert len({one.id for one in made}) == 20
    assert {one.state for one in made} == {"ready"}
    assert len(entries("sandbox.created")) == before + 20
    assert len(list(client.sandboxes(labels={"batch": "one"}))) == 20
    with client.sandbox() as spared:
        removed = client.prune(labels={"batch": "one"}, alive=True)
        assert set(removed) == {one.id for one in made}
        assert spared.exec(["/bin/true"]).exit_code == 0
    assert list(client.sandboxes(labels={"batch": "one"})) == []


def test_prune_leaves_those_that_live(client: Client) -> None:
    with client.sandbox() as living:
        over = client.sandbox()
        over.kill()
        removed = client.prune()
        assert over.id in removed
        assert living.id not in removed


def test_listing_goes_by_pages(client: Client) -> None:
    made = client.ask(questions.create(count=5, labels={"page": "x"}))
    first = client.ask(Question("sandbox.list", {"limit": 2, "labels": {"page": "x"}}, lambda said: said))
    assert len(first.result["sandboxes"]) == 2  # type: ignore[arg-type]
    rest = {"after": first.result["next"], "labels": {"page": "x"}}
    last = client.ask(Question("sandbox.list", rest, lambda said: said))
    assert len(last.result["sandboxes"]) == 3  # type: ignore[arg-type]
    assert "next" not in last.result
    client.prune(labels={"page": "x"}, alive=True)
    assert len(made) == 5


def test_another_keys_sandbox_is_not_found(daemon: ThrowawayDaemon, client: Client, tmp_path: Path) -> None:
    runner = tmp_path / "runner.pem"
    made = json.loads(daemon.immure("key", "new", "--out", str(runner), "--json").stdout)
    daemon.immure(
        *("key", "add", "--role", "runner", "other", made["public"]),
        *("--socket", str(daemon.socket), "--key", str(daemon.admin_key)),
    )
    with client.sandbox(name="private") as mine, daemon.client(runner) as other:
        for word in (mine.id, "private"):
            with pytest.raises(ImmuredError) as refused:
                other.open(word)
            assert code(refused) == "not_found"
        assert list(other.sandboxes()) == []
        asked: tuple[Question[Any], ...] = (
            questions.kill(mine.id),
            questions.pause(mine.id),
            questions.stats(mine.id),
        )
        for question in asked:
            with pytest.raises(ImmuredError) as refused:
                other.ask(question)
            assert code(refused) == "not_found"
        with other.sandbox() as theirs:
            assert client.open(theirs.id).id == theirs.id  # an admin's key sees all
            assert client.prune() is not None
            assert theirs.exec(["/bin/true"]).exit_code == 0  # prune is one's own


def test_nothing_is_left_of_those_that_ended(client: Client, daemon: ThrowawayDaemon) -> None:
    with client.sandbox() as warm:
        warm.exec(["/bin/true"])
    broker = Path(f"/proc/{daemon.pid}")
    before = len(os.listdir(broker / "fd"))
    for _ in range(10):
        with client.sandbox() as made:
            made.start(["/bin/sleep", "1000"])
            made.exec(["/bin/true"])
    until(lambda: len(os.listdir(broker / "fd")) <= before)


def test_its_figures(sandbox: Sandbox) -> None:
    sandbox.exec(
        ["/bin/sh", "-c", "head -c 3000000 /dev/zero > /tmp/big; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]
    )
    going = sandbox.start(["/bin/sleep", "1000"])
    until(lambda: sandbox.stats().execs == 1)
    figures = sandbox.stats()
    assert (figures.disk_bytes or 0) >= 3_000_000
    assert (figures.disk_files or 0) >= 1
    assert figures.usage["cpu_ms"] > 0
    going.kill()
