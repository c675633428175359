"""Manifests from the editor to the ledger, by the command line: written, signed, loaded, run under, revoked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.manifest.builtin import parse_toml
from tests.entries import entries_in
from tests.signed.line import Line

TEXT = """\
schema = 1
name = "{name}"
class = "default"

[command]
allow = ["/bin/echo", "/usr/bin/env"]
"""


@pytest.fixture
def file(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A manifest of this test's own."""
    name = request.node.name[:40].replace("[", "-").replace("]", "").replace("_", "-").lower()
    (tmp_path / "own.toml").write_text(TEXT.format(name=name))
    return "own.toml"


def digest_of(immure: Line, file: str) -> str:
    return parse_toml((immure.here / file).read_bytes()).digest


def entries(daemon: ThrowawayDaemon, kind: str) -> list[dict[str, Any]]:
    return [entry["data"] for entry in entries_in(daemon.state) if entry["type"] == kind]


def load(immure: Line, file: str) -> str:
    immure.sign(file)
    immure("manifest", "load", file)
    return digest_of(immure, file)


def test_a_run_names_the_loaded_file_and_the_ledger_says_which_it_was(
    immure: Line, daemon: ThrowawayDaemon, file: str
) -> None:
    digest = load(immure, file)
    assert immure("run", "--manifest", file, "--", "/bin/echo", "hello") == "hello\n"
    intent = entries(daemon, "run.accepted")[-1]
    approved = entries_in(daemon.state)[intent["manifest_entry"]]
    assert (approved["type"], approved["data"]["digest"]) == ("manifest.loaded", digest)
    assert intent["manifest"] == digest


def test_what_only_tightens_leaves_it_that_manifest(immure: Line, daemon: ThrowawayDaemon, file: str) -> None:
    digest = load(immure, file)
    said = immure("run", "--manifest", file, "--memory", "64M", "--env", "A=b", "--", "/usr/bin/env")
    assert "A=b\n" in said
    assert entries(daemon, "run.accepted")[-1]["manifest"] == digest


def test_what_adds_to_it_is_sent_and_is_another(immure: Line, daemon: ThrowawayDaemon, file: str) -> None:
    digest = load(immure, file)
    immure("run", "--manifest", file, "--ro", "/usr/share/doc:/doc", "--", "/bin/echo")
    assert entries(daemon, "run.accepted")[-1]["manifest"] != digest


def test_a_signed_file_that_is_not_loaded_is_not_run(immure: Line, file: str) -> None:
    immure.sign(file)
    said = immure("run", "--manifest", file, "--", "/bin/echo", status=125)
    assert f"immure: unknown_manifest: no manifest {digest_of(immure, file)!r} is loaded" in said
    assert "remedy: load it: immure manifest load FILE" in said
    assert "; or send it whole, as the command line does where no FILE.sig is beside FILE" in said
    (immure.here / f"{file}.sig").unlink()
    assert immure("run", "--manifest", file, "--", "/bin/echo", "whole") == "whole\n"


def test_a_file_that_was_changed_since_is_not_run(immure: Line, file: str) -> None:
    load(immure, file)
    with (immure.here / file).open("a") as more:
        more.write("# nothing much\n")
    assert "unknown_manifest" in immure("run", "--manifest", file, "--", "/bin/echo", status=125)
    assert "signature_invalid" in immure("manifest", "load", file, status=1)


def test_sandboxes_batches_and_plans_name_it_as_well(immure: Line, daemon: ThrowawayDaemon, file: str) -> None:
    digest = load(immure, file)
    immure("sandbox", "rm", immure("sandbox", "create", "--manifest", file).strip())
    assert entries(daemon, "sandbox.created")[-1]["manifest"] == digest
    immure("batch", "--manifest", file, "-", stdin='["/bin/echo","x"]\n')
    assert entries(daemon, "batch.accepted")[-1]["manifest"] == digest
    assert json.loads(immure("plan", "--manifest", file, "--json", "--", "/bin/echo"))["manifest"] == digest


def test_each_stage_is_told(immure: Line, file: str) -> None:
    assert "immure: manifest_unsigned:" in immure("manifest", "load", file, status=1)
    immure.sign(file)
    lines = immure("manifest", "load", file, "--check").splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["pass", stage] for stage in ("signature", "schema", "capabilities")
    ]
    assert lines[-1] == f"{digest_of(immure, file)}  would be loaded"
    assert immure("manifest", "verify", file).splitlines() == lines[:-1]
    assert immure("manifest", "load", file).splitlines()[-1].endswith("  loaded")
    assert immure("manifest", "load", file).splitlines()[-1].endswith("  was loaded already")


def test_what_is_added_is_told_beside_the_last_one_of_its_name(immure: Line, file: str) -> None:
    load(immure, file)
    text = (immure.here / file).read_text()
    (immure.here / file).write_text(text + '[filesystem]\nwrite = ["/srv/more"]\n')
    immure.sign(file)
    said = immure("manifest", "load", file)
    assert "beside the last one of its name" in said
    assert "+ high      filesystem.write          writes to /srv/more, which it could not" in said.splitlines()


def test_a_loaded_one_is_listed_shown_compared_and_printed(immure: Line, file: str) -> None:
    digest = load(immure, file)
    name = parse_toml((immure.here / file).read_bytes()).name
    row = next(line for line in immure("manifest", "list", "--name", name).splitlines() if line.startswith(digest))
    assert row.split()[1:4] == [name, "default", "in_force"]
    shown = immure("manifest", "show", digest)
    assert "command.allow             allows the program /bin/echo with any arguments" in shown.splitlines()
    assert immure("manifest", "show", digest, "--raw") == (immure.here / file).read_text()
    assert immure("manifest", "diff", digest, "--against", file) == "they admit the same\n"


def test_a_revoked_one_is_over_for_good(immure: Line, file: str) -> None:
    digest = load(immure, file)
    assert immure("manifest", "revoke", digest, "--reason", "the tests are done") == f"{digest}  revoked\n"
    said = immure("run", "--manifest", file, "--", "/bin/echo", status=125)
    assert "immure: manifest_revoked:" in said
    assert "the tests are done" in said
    assert "immure: manifest_revoked:" in immure("manifest", "load", file, status=1)
    assert "revoked     the tests are done" in immure("manifest", "show", digest)


def test_learning_goes_on_from_a_signed_file(immure: Line, file: str) -> None:
    """It is read, not named: what is learned is a new one."""
    immure.sign(file)
    said = immure.done("learn", "--manifest", file, "-o", "learned.toml", "--", "/bin/echo")
    assert "a loaded manifest cannot be added to" not in said.stderr
