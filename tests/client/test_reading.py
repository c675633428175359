"""Standard input is read to its end and no further, and its reading can be called off."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from immured.client.reading import StoppableReader
from tests.descriptors import descriptors
from tests.patience import PATIENCE_S

Pipe = tuple[BinaryIO, BinaryIO]


@pytest.fixture(params=[0, -1], ids=["unbuffered", "buffered"])
def pipe(request: pytest.FixtureRequest) -> Iterator[Pipe]:
    """A pipe's read end, as a file of either kind, and its write end."""
    read, write = os.pipe()
    with open(read, "rb", buffering=request.param) as reading, open(write, "wb", buffering=0) as writing:
        yield reading, writing


def test_a_piece_comes_as_soon_as_it_is_there(pipe: Pipe) -> None:
    reading, writing = pipe
    writing.write(b"line\n")
    assert StoppableReader(reading).read() == b"line\n"


def test_the_end_is_empty(pipe: Pipe) -> None:
    reading, writing = pipe
    writing.close()
    assert StoppableReader(reading).read() == b""


def test_a_read_that_waits_is_called_off(pipe: Pipe) -> None:
    reader = StoppableReader(pipe[0])
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(reader.read()))
    thread.start()
    reader.stop()
    thread.join(PATIENCE_S)
    assert got == [b""]


def test_what_comes_after_the_stop_is_left_in_the_pipe(pipe: Pipe) -> None:
    reading, writing = pipe
    reader = StoppableReader(reading)
    reader.stop()
    reader.read()
    writing.write(b"for somebody else")
    assert reading.read(8) == b"for some"


def test_nothing_yet_on_a_non_blocking_file_is_not_its_end(pipe: Pipe) -> None:
    reading, writing = pipe
    os.set_blocking(reading.fileno(), False)
    reader = StoppableReader(reading)
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(reader.read()))
    thread.start()
    writing.write(b"late")
    thread.join(PATIENCE_S)
    assert got == [b"late"]


def test_a_file_of_no_descriptor_is_read_too() -> None:
    assert StoppableReader(io.BytesIO(b"bytes")).read() == b"bytes"


def test_text_is_not_bytes() -> None:
    with pytest.raises(TypeError, match="mode 'rb'"):
        StoppableReader(io.StringIO("text")).read()  # type: ignore[arg-type]


def test_its_own_descriptor_goes_with_it(pipe: Pipe) -> None:
    before = descriptors()
    reader = StoppableReader(pipe[0])
    assert descriptors() - before
    del reader
    assert descriptors() - before == set()
