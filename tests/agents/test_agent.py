"""The example of an agent does what it says, against a real daemon, for a user who is not root."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import immured.client.changes
import immured.client.files  # noqa: F401 - now: the caller may not be able to read where they are
from examples import agent
from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.patience import PATIENCE_S
from tests.walls.acting import AsUserError, as_user

pytestmark = pytest.mark.needs_root

CALLER = 1000

Acting = Callable[[Callable[[Client], Any]], Any]


@pytest.fixture
def project() -> Iterator[Path]:
    """A directory of the caller's, with numbers to report."""
    base = Path(tempfile.mkdtemp(prefix="immured-agent-"))
    base.chmod(0o755)
    path = base / "project"
    path.mkdir()
    (path / "numbers.txt").write_text("1\n2.5\n10\n")
    for one in (path, path / "numbers.txt"):
        os.chown(one, CALLER, CALLER)
    yield path
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def key(client: Client) -> PrivateKey:
    """The caller's, let in as a runner."""
    private = PrivateKey.generate()
    client.key_add("agent", private.public.to_pem(), role="runner", uids=[CALLER])
    return private


@pytest.fixture
def acting(daemon: ThrowawayDaemon, key: PrivateKey) -> Acting:
    """Does something as the caller, with a client of theirs."""
    daemon_key = daemon.daemon_key.read_bytes()

    def act(work: Callable[[Client], Any]) -> Any:
        def connected() -> Any:
            with Client(daemon.socket, key, daemon_key, timeout=PATIENCE_S) as client:
                return work(client)

        return as_user(CALLER, connected)

    return act


def test_it_writes_runs_reads_the_error_fixes_and_accepts(project: Path, acting: Acting) -> None:
    def work(client: Client) -> tuple[str, list[str], list[bool]]:
        said: list[str] = []
        there: list[bool] = []

        def say(line: str) -> None:
            said.append(line)
            there.append((project / "report.py").exists())

        return agent.main(project, client, say), said, there

    printed, said, there = acting(work)
    assert printed == "mean 4.5\nlargest 10.0\n"
    assert [line.partition(":")[0] for line in said[:3]] == ["round 1", "round 2", "round 3"]
    assert "has no attribute 'meen'. Did you mean: 'mean'?" in said[0]
    assert "name 'mx' is not defined. Did you mean: 'max'?" in said[1]
    assert "+import statistics" in said[3]
    assert said[-1] == "accepted: 1 change(s)"
    assert there == [False] * (len(said) - 1) + [True]  # nothing of the host's changed before
    made = project / "report.py"
    assert "statistics.mean(numbers)" in made.read_text()
    assert made.stat().st_uid == CALLER
    assert (project / "numbers.txt").read_text() == "1\n2.5\n10\n"


def test_nothing_is_left_behind(project: Path, acting: Acting) -> None:
    def work(client: Client) -> int:
        agent.main(project, client, lambda _: None)
        return len(client.sandboxes(labels={"made-by": "agent"}))

    assert acting(work) == 0


def test_a_model_that_does_not_learn_changes_nothing(project: Path, acting: Acting) -> None:
    manifest = {"schema": 1, "name": "agent", "class": "default", "filesystem": {"capture": [str(project)]}}

    def work(client: Client) -> None:
        with client.sandbox(manifest=manifest) as sandbox:
            agent.work(sandbox, project, agent.TASK, lambda _task, _attempts: "boom(\n", lambda _: None)

    with pytest.raises(AsUserError, match="after 5 rounds"):
        acting(work)
    assert sorted(path.name for path in project.iterdir()) == ["numbers.txt"]
