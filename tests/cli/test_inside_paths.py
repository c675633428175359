"""A path in a sandbox is the sandbox's: what this host has by that name, and lets us do with it, decides nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from immured.cli.changes import changes
from immured.cli.files import files


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this host's may be read: root, as whom tests run, may read everything."""
    monkeypatch.setattr(os, "access", lambda *_args, **_kwargs: False)


@pytest.mark.usefixtures("unreadable")
@pytest.mark.parametrize(
    "words",
    [
        (files, "ls", "dev", "/tmp"),
        (files, "get", "dev", "/etc/shadow", "-"),
        (files, "stat", "dev", "/root"),
        (files, "mv", "dev", "/etc", "/tmp"),
        (files, "glob", "dev", "/tmp"),
        (changes, "diff", "dev", "/tmp"),
        (changes, "accept", "dev", "/etc/shadow"),
        (changes, "discard", "dev", "/tmp"),
    ],
    ids=lambda words: " ".join([words[0].name, *words[1:]]),
)
def test_it_is_the_daemon_that_is_asked(words: tuple[object, ...], tmp_path: Path) -> None:
    group, *rest = words
    asked = CliRunner().invoke(group, [*rest, "--state", str(tmp_path)])  # type: ignore[arg-type, list-item]
    assert getattr(asked.exception, "code", None) == "no_key", asked.output
