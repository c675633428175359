"""`immure sandbox signal`: a detached exec is ended without its sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from immured import Client
from immured.client import Sandbox
from immured.client.throwaway import ThrowawayDaemon
from tests.cli.conftest import PYTHON, Said, say
from tests.patience import until

pytestmark = pytest.mark.needs_root

TRAPS = "trap 'echo told; exit 5' TERM; echo ready; while :; do read -rt 0.05; done"


@pytest.fixture(scope="module")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running


@pytest.fixture(scope="module")
def client(daemon: ThrowawayDaemon) -> Iterator[Client]:
    with daemon.client() as connected:
        yield connected


@pytest.fixture
def sandbox(client: Client) -> Iterator[Sandbox]:
    with client.sandbox(name="signals", ttl="10m") as made:
        yield made


@pytest.fixture
def immure(daemon: ThrowawayDaemon) -> Callable[..., Said]:
    def run(*words: str) -> Said:
        return say([*PYTHON, "sandbox", "signal", "--state", str(daemon.state), *words])

    return run


def test_term_is_what_is_sent(sandbox: Sandbox, immure: Callable[..., Said]) -> None:
    one = sandbox.start(["/bin/bash", "-c", TRAPS])
    until(lambda: b"ready" in one.logs().output)
    assert immure("signals", one.id) == (0, b"", b"")
    ended = one.wait()
    assert (ended.cause, ended.exit_code) == ("exited", 5)
    assert b"told" in one.logs().output


@pytest.mark.parametrize("name", ["KILL", "SIGKILL", "sigkill", "9"])
def test_another_is_named_or_numbered_and_the_sandbox_lives(
    sandbox: Sandbox, immure: Callable[..., Said], name: str
) -> None:
    one = sandbox.start(["/bin/bash", "-c", TRAPS])
    assert immure(sandbox.id, one.id, name) == (0, b"", b"")
    assert one.wait().cause in ("killed", "signaled")
    assert sandbox.exec(["/bin/true"]).ok


def test_what_is_no_signal_is_a_mistake_in_the_words(immure: Callable[..., Said]) -> None:
    status, _, said = immure("signals", "e0", "NONE")
    assert (status, b"there is no signal NONE" in said) == (2, True)


def test_what_is_not_there_is_said(sandbox: Sandbox, immure: Callable[..., Said]) -> None:
    status, _, said = immure(sandbox.id, "e" + 20 * "0")
    assert (status, said.split(b":")[1].strip()) == (1, b"not_found")
