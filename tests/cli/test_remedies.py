"""Who typed something that is refused reads what to type instead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.cli.conftest import PYTHON, say

pytestmark = pytest.mark.needs_root

VOLUME = "a volume holds 16M to 1024T: `immure volume create NAME --size 16M`"
INSIDE = "write it from / on, as it is called inside: /work/src, not src"


@pytest.fixture(scope="module")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running, running.client() as client:
        client.sandbox(name="dev", ttl="10m")
        yield running


@pytest.mark.parametrize(
    ("command", "rest", "remedy"),
    [
        ("run", "--memory 10 -- /bin/true", "did you mean '10M'?"),
        ("sandbox exec", "dev --memory 10 -- /bin/true", "did you mean '10M'?"),
        ("sandbox exec", "dev --cwd rel -- /bin/true", INSIDE),
        ("volume create", "cache --size 1K", VOLUME),
        ("volume create", "cache --size 0", VOLUME),
        ("volume create", "cache --size 1025T", VOLUME),
    ],
)
def test_the_remedy_is_in_the_words_of_the_command_line(
    daemon: ThrowawayDaemon, command: str, rest: str, remedy: str
) -> None:
    said = say([*PYTHON, *command.split(), "--state", str(daemon.state), *rest.split()])
    assert said[0] != 0
    assert said[2].decode().splitlines()[1:] == [f"remedy: {remedy}"]
