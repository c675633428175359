"""What is executed is in the intent by its digest, is allowed by its manifest, and is that very file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from immured import Client, RunResult
from immured.client.errors import Refusal
from tests.overlays import on_overlay
from tests.pinning.conftest import digest, manifest, put, row

pytestmark = pytest.mark.needs_root

Entries = Callable[[str], list[dict[str, Any]]]
Intent = Callable[[int], list[dict[str, Any]]]
AsCaller = Callable[[Callable[[Client], Any]], Any]
SH = os.path.realpath("/bin/sh")


def test_a_program_of_the_hosts(client: Client, pinned: Intent) -> None:
    result = client.run(["cat", "/proc/self/comm"], manifest=manifest("cat"))
    assert (result.exit_code, result.stdout) == (0, b"cat\n")
    assert pinned(result.intent.seq) == list(result.executables) == [row("/usr/bin/cat")]


def test_nothing_is_pinned_where_the_manifest_does_not_say_so(client: Client, entries: Entries) -> None:
    client.run(["/bin/true"])
    client.run(["/bin/true"], manifest=manifest("/bin/true", command={"pin": False}))
    assert all("executables" not in one["data"] for one in entries("run.accepted")[-2:])


def test_what_is_ordered_with_pin_and_no_list_is_entered_all_the_same(client: Client, pinned: Intent) -> None:
    result = client.run(["sh", "-c", "exit 3"], manifest={"schema": 1, "command": {"pin": True}})
    assert result.exit_code == 3
    assert pinned(result.intent.seq) == [row("/usr/bin/sh", SH)]


def test_a_callers_own_script(as_caller: AsCaller, own: Path, pinned: Intent) -> None:
    script = put(own / "build.sh", '#!/bin/sh -e\necho "$0" "$@"\n')
    wanted = manifest("./build.sh", "sh", filesystem={"read": [str(own)]}, command={"cwd": str(own)})
    result: RunResult = as_caller(lambda client: client.run(["./build.sh", "one", "two"], manifest=wanted))
    assert result.stdout == b"./build.sh one two\n"
    assert pinned(result.intent.seq) == [row("./build.sh", script, changeable=True), row("/bin/sh", SH)]


def test_an_interpreter_that_is_not_allowed(as_caller: AsCaller, own: Path, entries: Entries) -> None:
    put(own / "build.sh", "#!/bin/sh\n")
    wanted = manifest(str(own / "build.sh"), filesystem={"read": [str(own)]})
    before = len(entries("run.accepted"))
    error = refused(as_caller, [str(own / "build.sh")], wanted)
    assert error.code == "denied"
    assert error.message == (
        "the manifest 'inline' is not for the program '/bin/sh', which interprets "
        f"'{own}/build.sh': its command.allow does not name it with these arguments"
    )
    assert error.details["path"] == "'/bin/sh'"
    assert error.details["sha256"] == digest(SH)
    assert len(entries("run.accepted")) == before
    assert entries("command.denied")[-1]["data"]["message"] == error.message


def test_an_interpreter_is_allowed_with_arguments(as_caller: AsCaller, own: Path) -> None:
    script = str(put(own / "x", "#!/bin/sh -e\necho ok\n"))
    other = str(put(own / "y", "#!/bin/sh -x\necho ok\n"))
    allow = (script, other, {"program": "sh", "arguments": [["-e", script, "..."]]})
    wanted = manifest(*allow, filesystem={"read": [str(own)]})
    assert as_caller(lambda client: client.run([script, "a"], manifest=wanted)).stdout == b"ok\n"
    assert refused(as_caller, [other], wanted).code == "denied"


def test_env_is_an_interpreter_as_any_other(as_caller: AsCaller, own: Path, pinned: Intent) -> None:
    script = put(own / "x", "#!/usr/bin/env sh\necho ok\n")
    reading = {"filesystem": {"read": [str(own)]}}
    assert refused(as_caller, [str(script)], manifest(str(script), "sh", **reading)).code == "denied"
    allowed = manifest(str(script), "/usr/bin/env", **reading)
    result = as_caller(lambda client: client.run([str(script)], manifest=allowed))
    # What env executes in its turn is a later exec, and not pinned.
    assert [one["path"] for one in pinned(result.intent.seq)] == [str(script), "/usr/bin/env"]


def test_a_digest_that_is_asked_for(client: Client) -> None:
    right = manifest({"program": "/usr/bin/true", "sha256": digest("/usr/bin/true")})
    wrong = manifest({"program": "/usr/bin/true", "sha256": "0" * 64})
    assert client.run(["/usr/bin/true"], manifest=right).exit_code == 0
    with pytest.raises(Refusal) as error:
        client.run(["/usr/bin/true"], manifest=wrong)
    assert error.value.code == "denied"
    assert f"sha256:{digest('/usr/bin/true')}" in error.value.message
    assert "0" * 64 in error.value.remedy


def test_the_callers_own_path_leads_to_nothing_else(as_caller: AsCaller, own: Path) -> None:
    put(own / "cat", "#!/bin/sh\necho another\n")
    wanted = manifest("cat", "sh", filesystem={"read": [str(own)]}, command={"pass_env": ["PATH"]})
    error = refused(as_caller, ["cat"], wanted, env={"PATH": f"{own}:/usr/bin"})
    assert (error.code, error.message) == ("denied", "the manifest 'inline' lets no run set 'PATH'")


def test_the_first_that_path_finds_is_the_one(as_caller: AsCaller, own: Path, pinned: Intent) -> None:
    for name in ("first", "second"):
        (own / name).mkdir()
    put(own / "first" / "tool", "no program\n", 0o644)
    put(own / "second" / "tool", "#!/bin/sh\necho second\n")
    path = f"{own}/first:{own}/second:/usr/bin:/bin"
    wanted = manifest("tool", "sh", filesystem={"read": [str(own)]}, command={"env": {"PATH": path}})
    result = as_caller(lambda client: client.run(["tool"], manifest=wanted))
    assert result.stdout == b"second\n"
    assert pinned(result.intent.seq)[0]["path"] == f"{own}/second/tool"


@pytest.mark.parametrize(
    ("name", "code"),
    [("missing", "executable_not_found"), ("plain", "not_executable"), ("fifo", "not_executable"),
     ("directory", "not_executable"), ("text", "not_executable"), ("orphan", "executable_not_found")],
)  # fmt: skip
def test_what_cannot_be_executed_fails_as_without(
    as_caller: AsCaller, own: Path, name: str, code: str, pinned: Intent
) -> None:
    put(own / "plain", "#!/bin/sh\n", 0o644)
    put(own / "text", "hello\n")
    put(own / "orphan", "#!/no/such/interpreter\n")
    (own / "directory").mkdir()
    os.mkfifo(own / "fifo", 0o777)
    wanted = manifest(str(own / name), filesystem={"read": [str(own)]})
    result = as_caller(lambda client: client.run([str(own / name)], manifest=wanted))
    assert result.cause == "setup_failed"
    assert result.failure["code"] == code
    assert pinned(result.intent.seq) == []


def test_what_cannot_be_read_says_what_to_do(as_caller: AsCaller, own: Path) -> None:
    secret = own / "secret"
    secret.write_bytes(Path("/usr/bin/true").read_bytes())
    secret.chmod(0o711)
    wanted = manifest(str(secret), filesystem={"read": [str(own)]})
    result = as_caller(lambda client: client.run([str(secret)], manifest=wanted))
    assert result.failure["code"] == "not_pinned"
    assert result.failure["message"].startswith(f"{secret} may be executed, and not read")
    assert "command.pin = false" in result.failure["remedy"]


def test_a_file_is_read_once_and_again_when_it_changed(as_caller: AsCaller, own: Path, pinned: Intent) -> None:
    script = put(own / "x", "#!/bin/sh\necho one\n")
    wanted = manifest(str(script), "sh", filesystem={"read": [str(own)]})
    for word in ("one", "two"):
        put(script, f"#!/bin/sh\necho {word}\n")
        result = as_caller(lambda client: client.run([str(script)], manifest=wanted))
        assert result.stdout.decode().strip() == word
        assert pinned(result.intent.seq)[0]["sha256"] == hashlib.sha256(script.read_bytes()).hexdigest()


def test_a_batch(client: Client, entries: Entries) -> None:
    wanted = manifest("/usr/bin/true", "/usr/bin/false", {"program": "/usr/bin/id", "sha256": "0" * 64})
    orders = [["/usr/bin/true"]] * 6 + [["/usr/bin/false"], ["/usr/bin/id"], ["/usr/bin/true"]]
    batch = client.batch(orders, manifest=wanted)
    found = batch.results
    assert [one.exit_code for one in found] == [0] * 6 + [1, None, 0]
    assert found[7].failure is not None
    assert found[7].failure["code"] == "denied"
    assert found[6].raw["executables"] == [row("/usr/bin/false")]
    (summary,) = batch.summaries
    told = {one["data"]["pinned"]: one for one in entries("batch.pinned") if one["data"]["batch"] == summary.batch}
    rows = {
        one["run"]: one
        for entry in entries("batch.progress")
        if entry["data"]["batch"] == summary.batch
        for one in entry["data"]["outcomes"]
    }
    assert len(told) == 2
    for index in (0, 5, 6, 8):
        entry = told[rows[index]["pinned"]]
        assert entry["data"]["executables"] == [row(orders[index][0])]
        assert entry["seq"] < found[index].receipt.seq
    assert "pinned" not in rows[7]


def test_a_plan_says_that_it_pins(client: Client) -> None:
    result = client.call("plan", {"argv": ["cat"], "manifest": manifest("cat")}).result
    steps = result["steps"]
    assert isinstance(steps, list)
    assert [one["step"] for one in steps][-4:] == ["pin", "seccomp", "explain", "exec"]


def test_the_deadline_begins_with_the_program(client: Client, pinned: Intent) -> None:
    result = client.run(["sleep", "30"], manifest=manifest("sleep", limits={"wall": "300ms"}))
    assert result.cause == "timeout"
    assert [one["path"] for one in pinned(result.intent.seq)] == ["/usr/bin/sleep"]


def test_under_a_filter_that_allows_next_to_nothing(client: Client) -> None:
    denied = ["newfstatat", "openat", "open", "stat", "fstat", "access", "readlink", "pread64"]
    profile = {"syscalls": {"profile": "compute", "deny": denied}}
    result = client.run(["/bin/true"], manifest=manifest("/bin/true", **profile))
    if on_overlay("/usr/bin/true"):
        # Whether it is what it was is looked at once more after GO, and this filter refuses even that: it is not run.
        assert result.failure is not None
        assert (result.cause, result.failure["code"]) == ("setup_failed", "not_pinned")
        return
    # A dynamic program cannot even open its libraries: it was executed.
    assert result.cause == "exited"
    assert result.raw["executables"] == [row("/bin/true", os.path.realpath("/bin/true"))]


class Said(NamedTuple):
    """A refusal, as it comes out of another process."""

    code: str
    message: str
    details: dict[str, Any]


def refused(as_caller: AsCaller, argv: list[str], wanted: dict[str, Any], **more: Any) -> Said:
    def act(client: Client) -> Said:
        with pytest.raises(Refusal) as error:
            client.run(argv, manifest=wanted, **more)
        return Said(error.value.code, error.value.message, dict(error.value.details))

    found: Said = as_caller(act)
    return found
