"""A run from PREPARE to EXITED."""
from __future__ import annotations

from immured.isolation.abi import Cause
from tests.warden.cell import Cell, Wish


def test_the_output_and_status_of_a_program_come_back(cell: Cell) -> None:
    run = cell.run(Wish(["sh", "-c", "cat; echo out; echo err >&2; exit 7"]), stdin=b"in ")
    assert (run.stdout, run.stderr, run.outcome.cause, run.outcome.si_status) == (b"in out\n", b"err\n", Cause.EXITED, 7)
