"""`immure manifest import`: TOML out, what was lost on stderr, and the result runs."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from immured.manifest.builtin import parse_toml
from tests.adapters.conftest import Call, give

SETTINGS = '{"network": {"allowedDomains": ["a.example"]}, "filesystem": {"allowWrite": [], "denyRead": []}}'
WORDS = {
    "codex": ["codex.json"],
    "srt": ["srt.json"],
    "nsjail": ["nsjail.cfg"],
    "bwrap": ["bwrap.sh"],
}


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    (tmp_path / "codex.json").write_text('{"type": "read-only"}')
    (tmp_path / "config.toml").write_text('sandbox_mode = "read-only"\n')
    (tmp_path / "srt.json").write_text(SETTINGS)
    (tmp_path / "nsjail.cfg").write_text('name: "n" mount { src: "/usr" dst: "/usr" is_bind: true } hostname: "h"')
    (tmp_path / "bwrap.sh").write_text(
        "#!/bin/sh\nexec bwrap --ro-bind / / --dev /dev \\\n  --unshare-all sh -c 'id'\n"
    )
    return tmp_path


def import_(cwd: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "immured.cli", "manifest", "import", *words]
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("tool", WORDS)
def test_every_tools_file_becomes_a_manifest_that_a_daemon_reads(policies: Path, tool: str) -> None:
    done = import_(policies, "--from", tool, *WORDS[tool])
    assert done.returncode == 0, done.stderr
    parse_toml(done.stdout)
    assert done.stdout.startswith("# Imported from ")


def test_what_was_lost_is_said_twice_and_the_rest_in_the_file(policies: Path) -> None:
    done = import_(policies, "--from", "srt", "srt.json")
    assert done.stderr == (
        "immure: note: lost: network.allowedDomains: a.example: none is reached, as srt answers for any other host\n"
    )
    assert "#   network.allowedDomains: a.example: none is reached" in done.stdout
    assert "# Stricter: less is let through than there." in done.stdout
    assert import_(policies, "--quiet", "--from", "srt", "srt.json").stderr == ""


def test_the_json_form_has_the_manifest_the_findings_and_the_command(policies: Path) -> None:
    done = import_(policies, "--json", "--from", "bwrap", "bwrap.sh")
    record = json.loads(done.stdout)
    assert record["argv"] == ["sh", "-c", "id"]
    assert record["manifest"]["filesystem"]["root"] == "/"
    assert {"source", "verdict", "words"} == set(record["findings"][0])
    assert tomllib.loads(import_(policies, "--from", "bwrap", "bwrap.sh").stdout) == record["manifest"]


def test_the_tools_own_words_are_taken_behind_two_dashes(policies: Path) -> None:
    done = import_(
        policies, "--from", "bwrap", "--", "--ro-bind", "/", "/", "--dev", "/dev", "--unshare-all", "sh", "-c", "id"
    )
    assert tomllib.loads(done.stdout) == tomllib.loads(import_(policies, "--from", "bwrap", "bwrap.sh").stdout)
    policy = ["--sandbox-policy-cwd", str(policies), "--sandbox-policy", '{"type":"read-only"}', "--", "true"]
    done = import_(policies, "--from", "codex", "--", *policy)
    assert tomllib.loads(done.stdout) == tomllib.loads(import_(policies, "--from", "codex", "codex.json").stdout)
    assert tomllib.loads(done.stdout) == tomllib.loads(import_(policies, "--from", "codex", "config.toml").stdout)


def test_a_policy_is_read_from_standard_input(policies: Path) -> None:
    done = import_(policies, "--from", "codex", "-", stdin='{"mode": "read-only"}')
    assert tomllib.loads(done.stdout)["filesystem"] == {"root": "/"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "codex", "gone.json"], "immure: bad_path: gone.json: No such file or directory\n"),
        (["--from", "srt", "codex.json"], "immure: adapter_invalid: settings holds an unknown field 'type'\n"),
        (["--from", "srt", "--", "-s", "x"], "immure: adapter_invalid: a policy of sandbox-runtime's is a file\n"),
        (["--from", "nsjail", "srt.json"], "immure: adapter_invalid: config holds an unknown field 'network'\n"),
        (
            ["--from", "bwrap", "--", "--file", "99", "/x"],
            "immure: adapter_invalid: descriptor 99 cannot be read: Bad file descriptor\n",
        ),
    ],
)
def test_what_is_no_policy_is_refused(policies: Path, words: list[str], said: str) -> None:
    done = import_(policies, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(said)


def test_names_of_strangers_reach_no_terminal_as_they_are(policies: Path) -> None:
    (policies / "evil.cfg").write_text('mount { src: "/x" dst: "/a\\033[31m\\nname = 1" is_bind: true }')
    done = import_(policies, "--from", "nsjail", "evil.cfg")
    assert "\x1b" not in done.stdout + done.stderr
    parse_toml(done.stdout)


@pytest.mark.needs_root
def test_what_comes_out_is_run(call: Call, project: Path) -> None:
    """As a manifest of one's own, by `immure run --manifest`."""
    (project / "policy.json").write_text('{"type": "workspace-write"}')
    give(project)
    done = import_(project, "--from", "codex", "policy.json")
    (project / "policy.toml").write_text(done.stdout)
    ran = call(
        "immure",
        "run",
        "--manifest",
        "policy.toml",
        "--",
        "sh",
        "-c",
        "echo x > made; echo y > .git/config; pwd",
        cwd=project,
    )
    assert ran.stdout == f"{project}\n"
    assert (project / "made").read_text() == "x\n"
    assert "Read-only file system" in ran.stderr
