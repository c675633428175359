"""Settings as they are written for srt, by its own command line, against a real daemon."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.adapters.conftest import Call, give

pytestmark = pytest.mark.needs_root
SOCKETS = """
import socket
for family in (socket.AF_UNIX, socket.AF_INET):
    try:
        socket.socket(family)
        print("made")
    except OSError as error:
        print(error.errno)
socket.socketpair()
"""


def settings(project: Path, **files: object) -> Path:
    """In the home, under the name that srt looks for."""
    given = {"denyRead": [], "allowWrite": [], "denyWrite": []} | files
    path = project.parent / ".srt-settings.json"
    path.write_text(json.dumps({"network": {"allowedDomains": [], "deniedDomains": []}, "filesystem": given}))
    give(path)
    return path


def test_without_settings_nothing_is_written(call: Call, project: Path) -> None:
    done = call("srt", "cat file; echo x > made; pwd", cwd=project)
    assert done.stdout == f"content\n{project}\n"
    assert "Read-only file system" in done.stderr
    assert sorted(os.listdir(project)) == [".git", "file", "sub"]


def test_a_developers_settings(call: Call, project: Path) -> None:
    """Of the README: write here, keep .env, hide the keys."""
    (project.parent / ".ssh").mkdir()
    (project.parent / ".ssh/id").write_text("KEY")
    settings(project, denyRead=["~/.ssh"], allowWrite=[".", "/tmp"], denyWrite=[".env", "sub"])
    give(project.parent)
    line = (
        "echo new > made; cat ~/.ssh/id; ls ~/.ssh; echo x > .env; echo x > sub/x; echo x > .git/hooks/y;"
        "echo x > .git/config; echo x > .git/index; echo x > .bashrc; echo t > $TMPDIR/t; cat $TMPDIR/t"
    )
    done = call("srt", "-c", line, cwd=project)
    assert done.stdout == "t\n"
    assert (project / "made").read_text() == "new\n"
    assert (project / ".git/index").exists()
    assert (project / ".git/config").read_text().startswith("[core]")
    assert sorted(os.listdir(project)) == [".git", "file", "made", "sub"]
    assert os.listdir(project / ".git/hooks") == []
    assert os.listdir(project / "sub") == []


def test_settings_of_an_allow_list(call: Call, project: Path) -> None:
    """The stricter form: only what is listed can be read."""
    (project.parent / "other").mkdir()
    settings(project, denyRead=None, allowRead=["."], allowWrite=["sub"])
    path = project.parent / ".srt-settings.json"
    given = json.loads(path.read_text())
    del given["filesystem"]["denyRead"]
    path.write_text(json.dumps(given))
    give(project.parent)
    done = call("srt", "cat file; ls ..; ls /var /home; echo x > sub/x; echo x > x", cwd=project)
    assert done.stdout == "content\nproject\n" or done.stdout.startswith("content\n")
    assert "other" not in done.stdout
    assert os.listdir(project / "sub") == ["x"]
    assert not (project / "x").exists()


def test_settings_of_a_denied_home_with_one_directory_left(call: Call, project: Path) -> None:
    """The newer form: everything of the home is denied but for what is read and written again."""
    (project.parent / "private").write_text("p")
    settings(project, denyRead=["~"], allowRead=["."], allowWrite=["."])
    give(project.parent)
    done = call("srt", "ls -A ..; cat file; echo x > made", cwd=project)
    assert done.stdout == "project\ncontent\n"
    assert (project / "made").exists()


def test_domains_are_said_once_and_the_command_runs(call: Call, project: Path) -> None:
    path = project / "settings.json"
    network = {"allowedDomains": ["github.com"], "deniedDomains": ["evil.example"]}
    path.write_text(json.dumps({"network": network, "filesystem": {"denyRead": [], "allowWrite": [], "denyWrite": []}}))
    give(project)
    done = call("srt", "--settings", path, "echo ran", cwd=project)
    assert done.stdout == "ran\n"
    assert done.stderr == (
        "immure: note: srt: lost: network.allowedDomains: "
        "github.com: none is reached, as srt answers for any other host\n"
    )


def test_no_unix_socket_can_be_made_and_a_pair_can(call: Call, project: Path) -> None:
    (project / "sockets.py").write_text(SOCKETS)
    done = call("srt", "/usr/bin/python3", "sockets.py", cwd=project)
    assert (done.returncode, done.stdout) == (0, "1\nmade\n")


@pytest.mark.parametrize(("line", "status"), [("true", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_it_exits_as_the_command_did(call: Call, project: Path, line: str, status: int) -> None:
    assert call("srt", "-c", line, cwd=project).returncode == status


def test_settings_that_are_named_are_never_passed_over(call: Call, project: Path) -> None:
    for text in ("", "{", '{"network": {}}'):
        (project / "bad.json").write_text(text)
        done = call("srt", "-s", "bad.json", "echo ran", cwd=project)
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.startswith("immure: adapter_invalid: ")
    done = call("srt", "-s", "gone.json", "echo ran", cwd=project)
    assert done.returncode == 125
    assert "gone.json cannot be read" in done.stderr


def test_what_is_declared_a_credential_is_not_passed_on(call: Call, project: Path) -> None:
    path = settings(project)
    given = json.loads(path.read_text()) | {"credentials": {"envVars": [{"name": "TOKEN", "mode": "deny"}]}}
    path.write_text(json.dumps(given))
    done = call("srt", "-c", "echo ${TOKEN:-none} $OTHER", cwd=project, env={"TOKEN": "t", "OTHER": "o"})
    assert done.stdout == "none o\n"
