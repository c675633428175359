"""The state directory's disk is really full: a small file system of its own, filled to the last byte."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from tests.preflight.places import full, memory

pytestmark = pytest.mark.needs_root


@pytest.fixture
def daemon() -> Iterator[ThrowawayDaemon]:
    place = Path(tempfile.mkdtemp(prefix="small-"))
    place.chmod(0o755)
    try:
        with memory(place, size="12m", uid=0):
            ThrowawayDaemon.immure("init", "--state", str(place / "state"))
            with ThrowawayDaemon(state=place / "state") as running:
                yield running
    finally:
        place.rmdir()


def test_the_reply_comes_and_says_that_nothing_can_be_entered(daemon: ThrowawayDaemon) -> None:
    place = daemon.state.parent
    with daemon.client() as client:
        assert client.preflight().ready
        with full(place):
            while True:  # the room that was taken ahead of the file's end
                seen = client.preflight()
                if seen.receipt is None:
                    break
            failing = [row for row in seen.of("audit") if row.verdict == "fail"]
            assert {row.code for row in failing} == {"ledger_unavailable"}
            assert all(f"the disk that holds {daemon.state}/ledger is full" in row.words for row in failing)
            assert all(row.remedy.startswith("free space on the file system of") for row in failing)
            assert not seen.ready
            assert {row.verdict for row in seen.of("persona")} == {"pass"}
            with pytest.raises(Refusal, match="ledger_unavailable"):
                client.run(["/bin/true"])
        after = client.preflight()
        assert (after.ready, after.receipt is not None) == (True, True)
        assert client.run(["/bin/true"]).exit_code == 0


def test_room_that_is_left_for_an_entry_and_not_for_a_run_is_said(daemon: ThrowawayDaemon) -> None:
    """A run's outcome needs more room than a preflight's entry: it fails before the ledger is full altogether."""
    with daemon.client() as client, full(daemon.state.parent):
        while (seen := client.preflight()).ready:
            continue
        assert seen.receipt is not None
        (row,) = [row for row in seen.of("audit") if row.verdict == "fail"]
        assert row.code == "ledger_unavailable"
