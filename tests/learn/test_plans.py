"""What the launcher takes of a plan that learns, and what of its log, from whoever speaks to it."""

from __future__ import annotations

import os

from immured.isolation.abi import BindFlag, Learned, Op
from immured.isolation.learned import learned_map
from immured.isolation.plan import Step
from tests.warden.cell import Cell, Pipes, Wish
from tests.warden.conftest import cell, cells, controllers, harness, subtree

__all__ = ["cell", "cells", "controllers", "harness", "subtree"]


def refusal(cell: Cell, flags: BindFlag) -> str:
    bind = Step(Op.BIND, (int(flags),), (b"/srv", b"/srv"))
    with Pipes(b"") as pipes:
        cell.order(Wish(["/bin/true"], mounts=[bind]).packed(), pipes.theirs)
        return cell.failure().text


def test_a_layer_is_never_written_through(cell: Cell) -> None:
    assert "a layer that is written through" in refusal(cell, BindFlag.LAYER | BindFlag.WRITE)


def test_a_layer_is_never_the_operators(cell: Cell) -> None:
    assert "a layer that is written through" in refusal(cell, BindFlag.LAYER | BindFlag.GRANTED)


def row(kind: int, number: int, text: bytes, length: int | None = None) -> bytes:
    head = (kind, number, len(text) if length is None else length)
    return b"".join(one.to_bytes(4, "little") for one in head) + text


def test_a_log_that_lies_about_itself_is_read_up_to_there() -> None:
    good = row(Learned.READ, 0, b"/a") + row(Learned.CALL, 0, b"") + row(Learned.NAME, 1, b"/\xff")
    whole = learned_map(good)
    assert (whole["paths"], whole["cut"]) == ({"read": ["/a"], "name": [b"/\xff"]}, False)
    for bad in (
        row(77, 0, b"x"),
        row(0, 0, b""),
        row(Learned.READ, 0, b"/b", 4_000_000_000),
        b"\1",
        row(Learned.CUT, 0, b""),
    ):
        found = learned_map(good + bad)
        assert (found["paths"], found["cut"]) == (whole["paths"], True), bad


def test_any_bytes_are_some_log() -> None:
    for size in range(200):
        found = learned_map(os.urandom(size))
        assert set(found) == {"paths", "calls", "addresses", "cut"}
