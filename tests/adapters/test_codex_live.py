"""Policies as Codex writes them, by its helper's command line, against a real daemon."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.adapters.conftest import NOBODY, Call, give
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root
TOOL = "codex-linux-sandbox"
PATH_SOCKET = """
import socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except OSError as error:
    print(error.errno)
"""


def legacy(project: Path, command: str, **policy: object) -> list[str | Path]:
    """As Codex called its helper until early 2026."""
    said = json.dumps({"type": "workspace-write", **policy})
    return ["--sandbox-policy-cwd", project, "--sandbox-policy", said, "--", "sh", "-c", command]


def profile(project: Path, command: str, *entries: object, network: str = "restricted") -> list[str | Path]:
    """As it calls it since."""
    said = {"type": "managed", "file_system": {"type": "restricted", "entries": entries}, "network": network}
    return [
        "--sandbox-policy-cwd", project, "--command-cwd", project, "--permission-profile", json.dumps(said), "--",
        "sh", "-c", command,
    ]  # fmt: skip


def special(kind: str, access: str, **more: str) -> object:
    return {"path": {"type": "special", "value": {"kind": kind, **more}}, "access": access}


def test_a_workspace_is_written_and_nothing_else(call: Call, project: Path) -> None:
    done = call(
        TOOL, *legacy(project, "pwd; echo new > made; echo x > ../outside; echo x > /etc/x; cat file"), cwd=project
    )
    assert done.stdout == f"{project}\ncontent\n"
    assert done.returncode == 0
    assert (project / "made").read_text() == "new\n"
    assert (project / "made").stat().st_uid == NOBODY.pw_uid
    assert not (project.parent / "outside").exists()
    assert done.stderr.count("Read-only file system") == 2


@pytest.mark.parametrize(
    "trick",
    [
        "echo x > .git/config",
        "echo x > .git/hooks/post-checkout",
        "mv .git elsewhere && mkdir .git",
        "rm -rf .git",
        "mkdir .codex && echo x > .codex/config.toml",
        "ln -s /tmp .agents",
        "cp -r .git copy && rm -rf .git && mv copy .git",
    ],
)
def test_what_git_and_agents_run_by_themselves_stays_as_it_is(call: Call, project: Path, trick: str) -> None:
    before = sorted((one, one.read_bytes()) for one in (project / ".git").rglob("*") if one.is_file())
    done = call(TOOL, *legacy(project, trick), cwd=project)
    assert done.returncode != 0
    assert sorted((one, one.read_bytes()) for one in (project / ".git").rglob("*") if one.is_file()) == before
    assert not {".codex", ".agents"} & set(os.listdir(project))


def test_git_finds_the_repository_above_a_workspace_that_has_none(call: Call, workspace: Path) -> None:
    git = shutil.which("git")
    assert git is not None
    subprocess.run([git, "init", "-q", workspace / "repo"], check=True, timeout=60)
    (workspace / "repo/sub").mkdir()
    give(workspace)
    command = "git rev-parse --show-toplevel && git status --short && mkdir .git/hooks; touch fine"
    done = call(TOOL, *legacy(workspace / "repo/sub", command), cwd=workspace / "repo/sub")
    assert done.stdout == f"{workspace / 'repo'}\n"
    assert os.listdir(workspace / "repo/sub") == ["fine"]


def test_a_read_only_policy_reads_everything_that_its_caller_may(call: Call, project: Path) -> None:
    words = ["--sandbox-policy-cwd", project, "--sandbox-policy", '{"mode":"read-only"}', "--"]
    done = call(TOOL, *words, "sh", "-c", "cat file; head -c 4 /etc/passwd; echo; echo x > made", cwd=project)
    assert done.stdout == "content\nroot\n"
    assert done.returncode == 2
    assert call(TOOL, *words, "cat", "/etc/shadow", cwd=project).returncode == 1


def test_there_is_no_network_and_the_command_is_told(call: Call, project: Path) -> None:
    done = call(TOOL, *legacy(project, "env | grep ^CODEX"), cwd=project)
    assert done.stdout.startswith("CODEX_SANDBOX_NETWORK_DISABLED=1\n")
    reached = "/usr/bin/python3 -c 'import socket; socket.socket().connect((\"127.0.0.1\", 1))'"
    assert "PermissionError" in call(TOOL, *legacy(project, reached), cwd=project).stderr


def test_no_listener_of_the_callers_is_spoken_to(call: Call, project: Path) -> None:
    """A socket with a path in the workspace itself: no mount is in the way, the filter is."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(project / "socket"))
        listener.listen()
        (project / "socket").chmod(0o777)
        (project / "ask.py").write_text(PATH_SOCKET)
        done = call(TOOL, *legacy(project, f"/usr/bin/python3 ask.py {project}/socket"), cwd=project)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("command", "status"), [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_it_exits_as_the_command_did(call: Call, project: Path, command: str, status: int) -> None:
    done = call(TOOL, *legacy(project, command), cwd=project)
    assert (done.returncode, done.stdout) == (status, "")


def test_input_output_and_environment_are_the_commands(call: Call, project: Path) -> None:
    env = {"ASKED": "yes", "IMMURE_COMPAT_SAY": "none"}
    done = call(
        TOOL,
        *legacy(project, "cat; echo $ASKED; env | grep -c IMMURE_; echo no >&2"),
        cwd=project,
        stdin="in\n",
        env=env,
    )
    assert (done.stdout, done.stderr) == ("in\nyes\n0\n", "no\n")


def test_a_profile_with_denied_and_opened_places(call: Call, project: Path) -> None:
    (project / "private/open").mkdir(parents=True)
    (project / "private/secret").write_text("s")
    (project / "private/open/note").write_text("n")
    (project / "kept").mkdir()
    give(project)
    entries = [
        special("root", "read"), special("project_roots", "write"),
        special("project_roots", "deny", subpath="private"), special("project_roots", "read", subpath="private/open"),
        special("project_roots", "read", subpath="kept"), special("slash_tmp", "write"),
    ]  # fmt: skip
    command = (
        "ls private; cat private/open/note; echo x > kept/new; echo y > made && cat made; echo z > /tmp/t && cat /tmp/t"
    )
    done = call(TOOL, *profile(project, command, *entries), cwd=project)
    assert done.stdout == "open\nny\nz\n"
    assert "Read-only file system" in done.stderr
    assert not (project / "kept/new").exists()


def test_a_restricted_profile_does_not_show_the_rest_of_the_host(call: Call, project: Path) -> None:
    (project.parent / "other").mkdir()
    give(project.parent)
    command = f"cat file; ls {project.parent}; ls /home /root /var/lib; test -x /usr/bin/env && echo programs"
    done = call(
        TOOL, *profile(project, command, special("minimal", "read"), special("project_roots", "write")), cwd=project
    )
    assert done.stdout == "content\nproject\nprograms\n"


def test_a_denied_pattern_hides_what_it_means(call: Call, project: Path) -> None:
    (project / "sub/a.env").write_text("SECRET=1")
    give(project)
    pattern = {"path": {"type": "glob_pattern", "pattern": "**/*.env"}, "access": "deny"}
    entries = [special("root", "read"), special("project_roots", "write"), pattern]
    done = call(TOOL, *profile(project, "cat sub/a.env; cat file", *entries), cwd=project)
    assert done.stdout == "content\n"


def test_a_policy_with_a_network_is_refused_unless_it_is_run_without(call: Call, project: Path) -> None:
    words = legacy(project, "echo ran", network_access=True)
    done = call(TOOL, *words, cwd=project)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == (
        "immure: adapter_unsupported: the policy lets the command reach the network\n"
        "remedy: network_access = false; or do without: immure compat --without-network, "
        "IMMURE_COMPAT_WITHOUT_NETWORK=1\n"
    )
    done = call(TOOL, *words, cwd=project, env={"IMMURE_COMPAT_WITHOUT_NETWORK": "1"})
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "Codex: lost: network: the policy gives all of it" in done.stderr


def test_a_client_that_is_ended_takes_the_run_along_and_leaves_nothing(daemon: ThrowawayDaemon, project: Path) -> None:
    words = legacy(project, "echo begun; sleep 600")
    command = [sys.executable, "-m", "immured.cli", "compat", "--state", daemon.state, "--as", "nobody", TOOL, *words]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"begun\n"
        assert {".agents", ".codex"} <= set(os.listdir(project))
        started.terminate()
        assert started.wait(PATIENCE_S) == 143
    assert sorted(os.listdir(project)) == [".git", "file", "sub"]


def test_limits_are_said_before_the_tools_name(call: Call, project: Path) -> None:
    done = call(TOOL, *legacy(project, "sleep 60"), cwd=project, env={"IMMURE_COMPAT_WALL": "300ms"})
    assert done.returncode == 124
