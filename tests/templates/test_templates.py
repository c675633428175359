"""A template's sandboxes against a real daemon: ready ahead, taken once, never shared, nobody's before."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.errors import Refusal
from immured.client.sandbox import Sandbox
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ConfigurationError
from immured.ledger.timestamps import parse_timestamp
from immured.service.templates.read import parse_template, read_templates
from immured.wire.keys import PrivateKey
from tests.entries import entries_in
from tests.hostile.raw import Talk
from tests.patience import until

WHO = """
import json, os, random, sys, uuid
print(json.dumps({
    "hash": hash("x"), "random": random.random(), "uuid": str(uuid.uuid4()), "pid": os.getpid(), "argv": sys.argv,
    "uid": open("/proc/self/uid_map").read(), "modules": "decimal" in sys.modules, "env": os.environ.get("A"),
    "cwd": os.getcwd(), "input": sys.stdin.read(), "ns": os.readlink("/proc/self/ns/mnt"), "name": __name__,
}))
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThrowawayDaemon]:
    base = tmp_path_factory.mktemp("templates")
    for directory in (base, base.parent):
        directory.chmod(0o711)
    state = base / "state"
    ThrowawayDaemon.immure("init", "--state", str(state))
    (state / "templates").mkdir()
    (state / "templates/py.toml").write_text('warm = 2\nmodules = ["decimal", "uuid"]\n')
    (state / "templates/broken.toml").write_text('modules = ["no_such_module_anywhere"]\n')
    (state / "templates/others.toml").write_text('tenants = ["else"]\n')
    with ThrowawayDaemon(state=state) as running:
        yield running


@pytest.fixture(scope="module")
def client(daemon: ThrowawayDaemon) -> Iterator[Client]:
    with daemon.client() as connected:
        yield connected


def templates(client: Client) -> dict[str, dict[str, Any]]:
    rows: Any = client.call("template.list").result["templates"]
    return {row["template"]: row for row in rows}


def until_ready(client: Client) -> None:
    until(lambda: templates(client)["py"]["ready"] == 2)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def who(sandbox: Sandbox, **options: Any) -> dict[str, Any]:
    result = sandbox.python(WHO, **options)
    assert result.ok, result.stderr.decode()
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def entries(daemon: ThrowawayDaemon, kind: str, sandbox: str) -> list[dict[str, Any]]:
    return [one for one in entries_in(daemon.state) if one["type"] == kind and one["data"].get("sandbox") == sandbox]


@pytest.mark.needs_root
def test_every_one_is_a_sandbox_and_an_interpreter_of_its_own(client: Client) -> None:
    until_ready(client)
    with client.sandbox(template="py") as first, client.sandbox(template="py") as second:
        assert first.id != second.id
        one = who(first, argv=["a", "b"], env={"A": "1"}, cwd="/tmp", stdin=b"mine")
        two = who(second)
    for name in ("hash", "random", "uuid", "uid", "ns"):
        assert one[name] != two[name], name
    assert (one["argv"], one["env"], one["cwd"], one["input"]) == (["-c", "a", "b"], "1", "/tmp", "mine")
    assert (two["argv"], two["env"], two["input"]) == (["-c"], None, "")
    assert one["modules"]
    assert one["name"] == "__main__"


@pytest.mark.needs_root
def test_it_is_refilled_and_taken_by_its_caller_alone(client: Client, daemon: ThrowawayDaemon) -> None:
    until_ready(client)
    before = now_ms()
    with client.sandbox(template="py", name="taken", labels={"a": "b"}, ttl=60, restart="adopt") as sandbox:
        after = now_ms()
        facts = sandbox.refresh()
        assert (facts.name, facts.labels, facts.key, facts.restart) == ("taken", {"a": "b"}, client.key_id, "adopt")
        assert facts.expires_ms is not None
        assert before + 60_000 <= facts.expires_ms <= after + 60_000
        assert sandbox.exec(["/bin/echo", "beside"]).stdout == b"beside\n"
        assert [one.id for one in client.sandboxes(labels={"a": "b"})] == [sandbox.id]
        (made,) = entries(daemon, "sandbox.created", sandbox.id)
        (taken,) = entries(daemon, "command.accepted", sandbox.id)
        assert "daemon" in made["actor"]
        assert (taken["actor"]["key"], taken["data"]["template"]) == (client.key_id, "py")
        assert made["seq"] < taken["seq"]
        until_ready(client)


@pytest.mark.needs_root
def test_a_name_that_two_ask_for_at_once_is_ones(client: Client, daemon: ThrowawayDaemon) -> None:
    until_ready(client)
    talk = Talk(daemon, PrivateKey.from_pem(daemon.admin_key.read_bytes()))
    with talk.connection:
        both = [talk.send("sandbox.create", template="py", name="wanted") for _ in range(2)]
        codes = [talk.code(one) for one in both]
    assert sorted(codes) == ["name_taken", "ok"]
    client.prune(alive=True)
    until_ready(client)


@pytest.mark.needs_root
def test_it_runs_one_order_and_ends(client: Client) -> None:
    with client.sandbox(template="py") as sandbox:
        assert sandbox.python("raise SystemExit(7)").exit_code == 7
        with pytest.raises(Refusal):
            sandbox.python("print(1)")
        failed = sandbox.exec(["/bin/true"])
        assert failed.ok


@pytest.mark.needs_root
def test_its_walls_are_its_manifests(client: Client) -> None:
    with client.sandbox(template="py") as sandbox:
        result = sandbox.python("open('/etc/x', 'w')")
        assert result.exit_code == 1
        assert b"Read-only file system" in result.stderr


@pytest.mark.needs_root
def test_more_than_are_ready_are_made_when_they_are_asked_for(client: Client) -> None:
    taken = [client.sandbox(template="py") for _ in range(4)]
    assert len({who(one)["hash"] for one in taken}) == 4
    for one in taken:
        one.remove()


@pytest.mark.needs_root
def test_what_a_template_says_is_not_said_again(client: Client) -> None:
    with pytest.raises(Refusal, match="and `template` too"):
        client.sandbox(template="py", limits={"memory": "64M"})
    with pytest.raises(Refusal, match="and `template` too"):
        client.sandbox(template="py", parameters={"n": 1})
    with pytest.raises(Refusal) as refused:
        client.sandbox(template="none")
    assert refused.value.code == "unknown_template"
    with pytest.raises(Refusal) as refused:
        client.sandbox(template="others")
    assert refused.value.code == "unknown_template"
    assert "others" not in templates(client)


@pytest.mark.needs_root
def test_a_template_whose_program_does_not_wait_says_why(client: Client) -> None:
    until(lambda: "failure" in templates(client)["broken"])
    assert "no_such_module_anywhere" in templates(client)["broken"]["failure"]
    with pytest.raises(Refusal) as refused:
        client.sandbox(template="broken")
    assert refused.value.code == "template_failed"


@pytest.mark.needs_root
def test_the_command_line_lists_them_and_says_why_there_is_none(client: Client, daemon: ThrowawayDaemon) -> None:
    until(lambda: "failure" in templates(client)["broken"])
    until_ready(client)
    said = ThrowawayDaemon.immure("template", "list", "--state", str(daemon.state), "--as", "root").stdout.splitlines()
    assert [line.split()[0] for line in said] == ["NAME", "broken", "py"]
    assert "0 of" in said[1]
    assert "2 of 2" in said[2]
    assert "decimal, uuid" in said[2]


def one_that_waits(client: Client, daemon: ThrowawayDaemon) -> Sandbox:
    until_ready(client)
    made = {one["data"]["sandbox"] for one in entries_in(daemon.state) if one["data"].get("template") == "py"}
    return next(one for one in client.sandboxes() if one.facts.live and one.facts.restart == "end" and one.id in made)


@pytest.mark.needs_root
def test_saved_while_it_waits_it_stands_still_as_before(client: Client, daemon: ThrowawayDaemon) -> None:
    waiting = one_that_waits(client, daemon)
    waiting.snapshot("of-one-that-waits")
    refused = waiting.exec(["/bin/true"]).failure
    waiting.remove()
    assert refused is not None
    assert "paused" in str(refused["message"])


@pytest.mark.needs_root
def test_one_whose_program_ended_as_it_waited_ends_and_another_waits(client: Client, daemon: ThrowawayDaemon) -> None:
    waiting = one_that_waits(client, daemon)
    (program,) = waiting.execs()
    waiting.find(program.id).kill()
    until(lambda: not waiting.refresh().live)
    assert waiting.facts.raw["reason"] == "its template's program waits no more"
    until_ready(client)


@pytest.mark.needs_root
def test_what_it_waited_is_none_of_its_wall_time(client: Client, daemon: ThrowawayDaemon) -> None:
    until_ready(client)
    began = time.monotonic()
    time.sleep(2)
    waited_ms = (time.monotonic() - began) * 1000
    with client.sandbox(template="py") as sandbox:
        used = sandbox.python("").usage["wall_ms"]
    (made,) = entries(daemon, "sandbox.created", sandbox.id)
    lived_ms = (time.time_ns() - parse_timestamp(made["ts"])) / 1e6
    assert used <= lived_ms - waited_ms + 1


def test_those_that_nobody_took_end_with_a_restart(daemon: ThrowawayDaemon, client: Client) -> None:
    until_ready(client)
    free = {one.id for one in client.sandboxes() if one.facts.live and one.facts.restart == "end"}
    assert len(free) >= 2
    client.close()  # whoever asks next, in whatever order, connects anew
    daemon.stop()
    daemon.start()
    until_ready(client)
    assert not free & {one.id for one in client.sandboxes() if one.facts.live}


PARAMETERS = """
[manifest]
schema = 1
[manifest.command]
cwd = "${project}"
[manifest.parameters.project]
type = "path"
within = ["/srv"]
"""


def test_a_template_fills_in_its_manifest() -> None:
    template = parse_template("t", PARAMETERS + '[parameters]\nproject = "/srv/app"')
    assert template.manifest.command.cwd == b"/srv/app"
    assert template.manifest.given == (("project", "/srv/app"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("warm = 0", "warm"),
        ("warm = true", "warm"),
        ("wram = 1", "wram"),
        ('modules = ["os; x"]', "module"),
        ('modules = "os"', "modules"),
        ("program = []", "interpreter"),
        ("[manifest]\nschema = 2", "schema"),
        ('[manifest]\nschema = 1\n[manifest.filesystem]\nread = ["/srv"]', "caller"),
        ("x", "Expected"),
        ("[parameters]\nn = 1", "not declared"),
        ("parameters = 1", "table"),
        (PARAMETERS, "parameters.project has no value"),
        (PARAMETERS + '[parameters]\nproject = "/etc"', "does not lie beneath"),
    ],
)
def test_a_template_that_is_none_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        parse_template("t", text)
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"t\.toml"):
        read_templates(tmp_path)


def test_a_template_of_others_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("")
    assert [one.name for one in read_templates(tmp_path)] == ["t"]
    (tmp_path / "t.toml").chmod(0o666)
    with pytest.raises(ConfigurationError, match="others"):
        read_templates(tmp_path)


def test_a_daemon_that_is_stopped_while_a_template_is_made_does_not_wait_for_the_next_try(tmp_path: Path) -> None:
    """It did, until its patience was over."""
    tmp_path.chmod(0o711)
    tmp_path.parent.chmod(0o711)
    state = tmp_path / "state"
    ThrowawayDaemon.immure("init", "--state", str(state))
    (state / "templates").mkdir()
    (state / "templates/py.toml").write_text("warm = 1\n")
    with ThrowawayDaemon(state=state) as daemon:
        assert daemon.stop() == 0
        assert "did not end in time" not in daemon.log.read_text()
