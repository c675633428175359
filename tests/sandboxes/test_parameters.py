"""What is filled into a manifest, from the order to the sandbox and the ledger: runs, batches, sandboxes, plans,
snapshots, both clients and the command line; and no value that leaves its bounds."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import AsyncClient, Client
from immured.client.errors import Refusal
from immured.client.snapshots import Snapshots
from immured.client.throwaway import ThrowawayDaemon
from immured.manifest.signature import show_signatures, sign
from immured.wire.keys import PrivateKey
from tests.patience import PATIENCE_S
from tests.terminal.person import IMMURE

Entries = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def shelf() -> Iterator[Path]:
    """A directory with two projects in it, and beside it one that is nobody's business."""
    base = Path(tempfile.mkdtemp(prefix="immured-shelf-"))
    base.chmod(0o755)
    for name in ("shelf/one", "shelf/two", "secret"):
        place = base / name
        place.mkdir(parents=True)
        (place / "file").write_text(f"{name}\n")
    yield base / "shelf"
    shutil.rmtree(base)


def manifest(shelf: Path) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "shelf",
        "command": {"cwd": "${project}", "env": {"WORDS": "${words}"}},
        "filesystem": {"read": ["${project}"]},
        "limits": {"pids": "${pids}"},
        "parameters": {
            "project": {"type": "path", "within": [str(shelf)]},
            "words": {"type": "text", "pattern": "a-z0-9 ", "longest": 20, "default": "none"},
            "pids": {"type": "integer", "least": 2, "most": 20, "default": 10},
        },
    }


LOOK = ["/bin/sh", "-c", "cat file; echo $WORDS; pwd; ulimit -a >/dev/null"]


def test_a_run_is_filled_in_and_its_intent_says_with_what(client: Client, entries: Entries, shelf: Path) -> None:
    values: dict[str, Any] = {"project": shelf / "one", "words": "two words"}
    result = client.run(LOOK, manifest=manifest(shelf), parameters=values)
    assert result.stdout.decode() == f"shelf/one\ntwo words\n{shelf}/one\n"
    [accepted] = entries("run.accepted", result.sandbox)
    assert accepted["data"]["parameters"] == {"project": str(shelf / "one"), "words": "two words", "pids": 10}


def test_a_plan_says_with_what_and_to_what_it_comes(client: Client, shelf: Path) -> None:
    said: Any = client.plan(LOOK, manifest=manifest(shelf), parameters={"project": shelf / "two", "pids": 4})
    assert said["parameters"] == {"project": str(shelf / "two"), "words": "none", "pids": 4}
    assert said["limits"]["pids"] == "4"
    assert str(shelf / "two") in json.dumps(said["steps"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "parameters.project has no value"),
        ({"project": "/etc"}, "parameters.project is '/etc', which does not lie beneath "),
        ({"project": "{shelf}/../secret"}, "which is not in its shortest form"),
        ({"project": "{shelf}/one", "pids": 21}, "parameters.pids is 21; it may be 2 to 20"),
        ({"project": "{shelf}/one", "words": "$(id)"}, "parameters.words is '$(id)', which holds '$'"),
        ({"project": "{shelf}/one", "projct": "x"}, "parameters.projct is not declared by the manifest"),
        ({"project": "{shelf}/one", "words": ["x"]}, "parameters.words is an array, not a text"),
    ],
)
def test_what_leaves_its_bounds_runs_nothing(
    client: Client, entries: Entries, shelf: Path, values: dict[str, Any], message: str
) -> None:
    given = {name: one.replace("{shelf}", str(shelf)) if isinstance(one, str) else one for name, one in values.items()}
    before = len(entries("run.accepted"))
    args = {"argv": LOOK, "manifest": manifest(shelf), "parameters": given}
    for cmd, more in (("run", args), ("plan", args), ("sandbox.create", {**args, "argv": ...})):
        with pytest.raises(Refusal) as refused:
            client.call(cmd, {name: one for name, one in more.items() if one is not ...})
        assert refused.value.code == "bad_argument"
        assert message in refused.value.message
    assert len(entries("run.accepted")) == before


def test_a_manifest_without_parameters_takes_none(client: Client) -> None:
    with pytest.raises(Refusal) as refused:
        client.run(["/bin/true"], parameters={"n": 1})
    assert (refused.value.code, refused.value.message) == (
        "bad_argument", "parameters.n is not declared: the manifest has no parameters",
    )  # fmt: skip


def test_parameters_are_a_map(client: Client) -> None:
    with pytest.raises(Refusal) as refused:
        client.call("run", {"argv": ["/bin/true"], "parameters": [1]})
    assert (refused.value.code, refused.value.message) == ("bad_argument", "args.parameters is an array, not a map")


@pytest.mark.parametrize("link", ["within the directory", "in the middle", "to a neighbour"])
def test_no_link_leads_out_of_what_bounds_it(client: Client, shelf: Path, link: str) -> None:
    if link == "in the middle":
        (shelf / "way").symlink_to(shelf.parent)
        project = shelf / "way" / "secret"
    else:
        project = shelf / "way"
        project.symlink_to(shelf.parent / "secret" if link == "within the directory" else shelf / "one")
    given = {"project": project}
    result = client.run(["/bin/cat", str(project / "file")], manifest=manifest(shelf), parameters=given)
    assert result.failure is not None
    assert (result.cause, result.failure["code"], result.stdout) == ("setup_failed", "path_denied", b"")
    plain = {"schema": 1, "filesystem": {"read": [str(project)]}}  # the author's own path may lead through links
    assert client.run(["/bin/cat", str(project / "file")], manifest=plain).exit_code == 0


def test_a_loaded_manifest_is_filled_in_by_its_digest(daemon: ThrowawayDaemon, client: Client, shelf: Path) -> None:
    """The signature is of the file; what is filled in needs none."""
    name = f"loaded-{secrets.token_hex(4)}"
    text = (
        f'schema = 1\nname = "{name}"\n[command]\n'
        'allow = [{ program = "cat", arguments = [["${project}/file"]] }]\n'
        f'[filesystem]\nread = ["${{project}}"]\n[parameters.project]\ntype = "path"\nwithin = ["{shelf}"]\n'
    ).encode()
    key = PrivateKey.from_pem((daemon.state / "keys" / "admin.pem").read_bytes())
    now = int(time.time() * 1000)
    loaded = client.manifests.load(text, show_signatures([sign(key, text, now, now + 3_600_000)]))
    for project in ("one", "two"):
        path = f"{shelf}/{project}"
        result = client.run(["cat", f"{path}/file"], manifest=loaded.digest, parameters={"project": path})
        assert result.stdout.decode() == f"shelf/{project}\n"
    with pytest.raises(Refusal) as refused:
        client.run(["cat", f"{shelf}/two/file"], manifest=loaded.digest, parameters={"project": f"{shelf}/one"})
    assert refused.value.code == "denied"


def test_a_batchs_runs_are_filled_in_together_and_each_by_itself(
    client: Client, daemon: ThrowawayDaemon, entries: Entries, shelf: Path
) -> None:
    runs: list[Any] = [
        LOOK,
        {"argv": LOOK, "parameters": {"project": f"{shelf}/two", "words": "own"}},
        {"argv": LOOK, "parameters": {"project": f"{shelf}/two", "words": "own too"}},
    ]
    found = dict(client.batch(runs, manifest=manifest(shelf), parameters={"project": f"{shelf}/one"}))
    outputs = [found[index].stdout.decode().splitlines()[:2] for index in range(3)]
    assert outputs == [["shelf/one", "none"], ["shelf/two", "own"], ["shelf/two", "own too"]]
    accepted = entries("batch.accepted")[-1]["data"]
    assert accepted["parameters"] == {"project": f"{shelf}/one"}
    assert [row.get("parameters", {}).get("words") for row in accepted["commands"]] == [None, "own", "own too"]


def test_a_batch_with_one_run_out_of_bounds_runs_nothing(client: Client, shelf: Path) -> None:
    runs: list[Any] = [LOOK, {"argv": LOOK, "parameters": {"project": "/etc"}}]
    with pytest.raises(Refusal) as refused:
        list(client.batch(runs, manifest=manifest(shelf), parameters={"project": f"{shelf}/one"}))
    assert refused.value.code == "bad_argument"
    assert refused.value.message.startswith("run 1: parameters.project is '/etc'")


def test_a_sandbox_is_filled_in_for_all_its_execs(client: Client, entries: Entries, shelf: Path) -> None:
    with client.sandbox(manifest=manifest(shelf), parameters={"project": shelf / "one", "words": "a"}) as sandbox:
        assert sandbox.exec(LOOK).stdout.decode() == f"shelf/one\na\n{shelf}/one\n"
        values = {"project": f"{shelf}/one", "words": "a", "pids": 10}
        assert sandbox.refresh().raw["parameters"] == values
        [created] = entries("sandbox.created", sandbox.id)
        assert created["data"]["parameters"] == values
        with pytest.raises(Refusal) as refused:
            client.call("sandbox.exec", {"sandbox": sandbox.id, "argv": ["/bin/true"], "parameters": values})
        assert refused.value.code == "unknown_field"


def test_a_snapshot_is_for_sandboxes_that_are_filled_in_alike(client: Client, shelf: Path) -> None:
    name = f"n-{secrets.token_hex(4)}"
    tables = manifest(shelf)
    with client.sandbox(manifest=tables, parameters={"project": shelf / "one"}) as sandbox:
        sandbox.exec(["/bin/sh", "-c", "echo kept > /tmp/kept"])
        Snapshots(client).save(sandbox.id, name)
    try:
        with client.sandbox(manifest=tables, parameters={"project": shelf / "one"}, snapshot=name) as again:
            assert again.exec(["/bin/cat", "/tmp/kept"]).stdout == b"kept\n"
        with pytest.raises(Refusal) as refused:
            client.sandbox(manifest=tables, parameters={"project": shelf / "two"}, snapshot=name)
        assert refused.value.code == "snapshot_mismatch"
        assert refused.value.details["parameters"] == {"project": f"{shelf}/one", "words": "none", "pids": 10}
    finally:
        Snapshots(client).remove(name)


def test_the_asyncio_client_fills_in_too(daemon: ThrowawayDaemon, shelf: Path) -> None:
    async def work() -> tuple[bytes, bytes]:
        key, pin = daemon.state / "keys" / "admin.pem", str(daemon.daemon_key)
        async with AsyncClient(socket=str(daemon.socket), key=key, daemon_key=pin) as client:
            values: dict[str, Any] = {"project": shelf / "one", "words": "async"}
            ran = await client.run(LOOK, manifest=manifest(shelf), parameters=values)
            async with await client.sandbox(manifest=manifest(shelf), parameters=values) as sandbox:
                return ran.stdout, (await sandbox.exec(LOOK)).stdout

    expected = f"shelf/one\nasync\n{shelf}/one\n".encode()
    assert asyncio.run(work()) == (expected, expected)


def test_the_command_line_fills_in(daemon: ThrowawayDaemon, shelf: Path, tmp_path: Path) -> None:
    """`--set` in `run`, `plan`, `sandbox create` and `batch`; and what is wrong, by exit status 125 and in words."""
    file = tmp_path / "shelf.toml"
    file.write_text(
        f'schema = 1\nname = "shelf"\n[command]\ncwd = "${{project}}"\n[filesystem]\nread = ["${{project}}"]\n'
        f'[parameters.project]\ntype = "path"\nwithin = ["{shelf}"]\n'
    )

    def immure(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*IMMURE, words[0], "--state", str(daemon.state), *words[1:]],
            capture_output=True, text=True, check=False, input=stdin, timeout=PATIENCE_S, cwd=tmp_path,
            env={**os.environ},
        )  # fmt: skip

    one = ("--manifest", str(file), "--set", f"project={shelf}/one")
    assert immure("run", *one, "--", "cat", "file").stdout == "shelf/one\n"
    planned = immure("plan", *one, "--", "cat", "file").stdout
    assert f"parameters\n  project     {shelf}/one" in planned
    lines = [["cat", "file"], {"argv": ["cat", "file"], "parameters": {"project": f"{shelf}/two"}}]
    results = immure("batch", *one, "-", stdin="".join(f"{json.dumps(line)}\n" for line in lines))
    assert sorted(json.loads(line)["stdout"] for line in results.stdout.splitlines()) == ["shelf/one\n", "shelf/two\n"]
    refused = immure("run", "--manifest", str(file), "--set", "project=/etc", "--", "cat", "file")
    assert refused.returncode == 125
    assert refused.stderr.startswith("immure: bad_argument: parameters.project is '/etc', which does not lie beneath")
    assert "remedy: it may be a path beneath" in refused.stderr
