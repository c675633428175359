"""A disk that fails at every call: no answer without a durable memory, and never a second history."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immured.ledger.witness import Witness
from immured.ledger.witness_state import WitnessState, origin_hash
from tests.ledger.witness.logs import Log, made

CALLS = ("open", "fchmod", "fsync", "rename")


class Died(BaseException):
    """The process is no more."""


class Disk:
    """The calls that keep a checkpoint, in order; the `fail`-th of them does not come to be."""

    def __init__(self, patch: pytest.MonkeyPatch, fail: int | None = None, error: BaseException | None = None) -> None:
        self.calls: list[str] = []
        self._fail, self._error = fail, error
        for name in CALLS:
            patch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if name == "open" and not arguments[1] & (os.O_CREAT | os.O_DIRECTORY):
                return real(*arguments, **keywords)  # of reading
            what = name
            if name == "open":
                what = "open file" if arguments[1] & os.O_CREAT else "open folder"
            self.calls.append(what)
            if self._fail == len(self.calls) - 1:
                assert self._error is not None
                raise self._error
            return real(*arguments, **keywords)

        return call


@pytest.fixture
def log() -> Log:
    return Log().grow(40)


def test_the_file_its_name_and_its_folder_are_durable_before_the_answer(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness, _ = made(tmp_path, log)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        assert witness.add_checkpoint(log.body(0, 8)).status == 200
    assert disk.calls == ["open file", "fchmod", "fsync", "rename", "open folder", "fsync"]


@pytest.mark.parametrize("dies", [False, True], ids=["fails", "dies"])
@pytest.mark.parametrize("at", range(6))
def test_one_history_whatever_call_fails(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch, at: int, dies: bool
) -> None:
    witness, state = made(tmp_path, log)
    assert witness.add_checkpoint(log.body(0, 8)).status == 200
    fork = log.fork(3, 20)
    with monkeypatch.context() as patch:
        Disk(patch, at, Died() if dies else OSError(errno.EIO, "Input/output error"))
        if dies:
            with pytest.raises(Died):
                witness.add_checkpoint(log.body(8, 20))
        else:
            answer = witness.add_checkpoint(log.body(8, 20))
            assert answer.status == 500
            assert "—".encode() not in answer.body
    again = Witness(state, state.cosigner()) if dies else witness
    for attempt in (fork.body(8, 20), fork.body(20, 23), fork.body(3, 20)):
        assert again.add_checkpoint(attempt).status in (409, 422)
    known = int(again.add_checkpoint(log.body(0, 40)).body)
    assert known in (8, 20)  # the one before or the one after; nobody was told of the second
    assert again.add_checkpoint(log.body(known, 40)).status == 200


def test_what_a_failed_sync_left_is_written_again_before_it_is_cosigned(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is there, and may not be after the next crash: the same again is no repetition."""
    witness, _ = made(tmp_path, log)
    with monkeypatch.context() as patch:
        Disk(patch, 5, OSError(errno.EIO, "Input/output error"))
        assert witness.add_checkpoint(log.body(0, 8)).status == 500
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        assert witness.add_checkpoint(log.body(8, 8)).status == 200
    assert disk.calls[-2:] == ["open folder", "fsync"]


def test_what_a_crash_left_half_written_is_swept_away(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness, state = made(tmp_path, log)
    with monkeypatch.context() as patch:
        Disk(patch, 3, Died())
        patch.setattr(Path, "unlink", lambda *_arguments, **_keywords: None)
        with pytest.raises(Died):
            witness.add_checkpoint(log.body(0, 8))
    place = state.where(origin_hash(log.origin))
    assert any(one.name.startswith(".") for one in place.iterdir())
    there = WitnessState(tmp_path)
    there.lock()
    there.unlock()
    assert sorted(one.name for one in place.iterdir()) == ["keys"]
