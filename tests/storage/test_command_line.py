"""`immure volume`, `snapshot` and `image`, as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root


def immure(daemon: ThrowawayDaemon, *words: str) -> subprocess.CompletedProcess[str]:
    place = ["--state", str(daemon.state)]
    depth = 1 if words[0] == "run" else 2
    whole = [sys.executable, "-m", "immured.cli", *words[:depth], *place, *words[depth:]]
    return subprocess.run(
        whole, capture_output=True, text=True, check=False, timeout=PATIENCE_S, stdin=subprocess.DEVNULL
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_volume_from_its_making_to_its_end(daemon: ThrowawayDaemon) -> None:
    assert said(immure(daemon, "volume", "create", "typed", "--size", "32M")) == "typed\n"
    said(immure(daemon, "run", "--volume", "typed:/cache", "--", "/bin/sh", "-c", "echo kept > /cache/x"))
    read = immure(daemon, "run", "--volume", "typed:/cache", "--", "/bin/cat", "/cache/x")
    assert said(read) == "kept\n"
    [row] = [
        one for one in json.loads(said(immure(daemon, "volume", "list", "--json")))["volumes"] if one["name"] == "typed"
    ]
    assert row["bytes"] == 32 << 20
    assert said(immure(daemon, "volume", "list")).splitlines()[0].split()[:2] == ["NAME", "USED"]
    twice = immure(daemon, "volume", "create", "typed")
    assert (twice.returncode, "volume_exists" in twice.stderr) == (1, True)
    assert said(immure(daemon, "volume", "rm", "typed")) == "typed\n"


def test_a_snapshot_from_its_making_to_its_end(daemon: ThrowawayDaemon) -> None:
    said(immure(daemon, "sandbox", "create", "--name", "typed"))
    said(immure(daemon, "sandbox", "exec", "typed", "--", "/bin/sh", "-c", "echo there > /tmp/x"))
    assert said(immure(daemon, "snapshot", "save", "typed", "first")) == "first\n"
    assert "first" in said(immure(daemon, "snapshot", "list"))
    said(immure(daemon, "sandbox", "create", "--name", "fork", "--snapshot", "first"))
    assert said(immure(daemon, "sandbox", "exec", "fork", "--", "/bin/cat", "/tmp/x")) == "there\n"
    for name in ("typed", "fork"):
        said(immure(daemon, "sandbox", "rm", name))
    assert said(immure(daemon, "snapshot", "rm", "first")) == "first\n"


def test_a_volume_without_a_place_is_a_mistake_of_words(daemon: ThrowawayDaemon) -> None:
    done = immure(daemon, "run", "--volume", "typed", "--", "/bin/true")
    assert done.returncode == 125
    assert "--volume NAME:TARGET" in done.stderr
