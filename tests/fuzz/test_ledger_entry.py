"""The native half of a line under the sanitizers, beside the reference in Python: the same bytes, and none beside."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immured.ledger.entry import MAX_INTEGER, Body, build_line, encode_body, encode_value, leaf_hash
from immured.ledger.timestamps import timestamp
from tests.patience import PATIENCE_S

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LINES = (ROOT / "tests/vectors/ledger/current.jsonl").read_bytes().splitlines()
PLENTY = 1 << 18

Ask = Callable[[str, bytes, int], bytes | None]


@pytest.fixture(scope="session")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Puts a question to the sanitized program: what it says, None where that did not fit the room it was given."""
    place = tmp_path_factory.mktemp("fuzz_ledger_entry")
    sys.path.insert(0, str(ROOT / "native"))
    try:
        import launcher_build  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    sources = [
        HERE / "fuzz_ledger_entry.c",
        ROOT / "native/core/ledger_entry.c",
        ROOT / "native/launcher/sha256.c",
        ROOT / "native/launcher/sha256_x86.c",
    ]
    flags = [*launcher_build.DIALECT, *launcher_build.WARNINGS, "-Werror", *launcher_build.SANITIZERS]
    including = [f"-I{ROOT / 'native/core'}", f"-I{ROOT / 'native/launcher'}"]
    command = ["gcc", *flags, *including, *map(str, sources), "-o", str(place / "entry")]
    subprocess.run(command, check=True)
    environment = os.environ | {"UBSAN_OPTIONS": "print_stacktrace=1", "ASAN_OPTIONS": "detect_leaks=0"}
    with subprocess.Popen([place / "entry"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        to, back = process.stdin, process.stdout
        assert to is not None
        assert back is not None

        def put(what: str, data: bytes, room: int = PLENTY) -> bytes | None:
            to.write(what.encode() + struct.pack("=II", room, len(data)) + data)
            to.flush()
            head = back.read(4)
            assert len(head) == 4, f"it ended with {process.wait()}"
            size = int(struct.unpack("=I", head)[0])
            return None if size == 0xFFFFFFFF else back.read(size)

        yield put
        to.close()
        assert process.wait(PATIENCE_S) == 0


def as_it_enters(value: object) -> bytes:
    return (
        encode_body("run.accepted", {}, {"": value}).members.removeprefix(b'"actor":{},"data":{"":').removesuffix(b"}")
    )


many = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
octets = (
    st.binary(max_size=1200)
    | st.text(max_size=400).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.builds(lambda raw, times: raw * times, st.text(max_size=4).map(lambda text: text.encode("utf-8", "replace")),
                st.integers(200, 600))
)  # fmt: skip


@many
@given(octets)
def test_bytes_enter_as_the_reference_has_them(ask: Ask, raw: bytes) -> None:
    assert ask("o", raw, PLENTY) == as_it_enters(raw)


@many
@given(st.text(max_size=1200))
def test_text_enters_as_the_reference_has_it(ask: Ask, text: str) -> None:
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return
    assert ask("t", raw, PLENTY) == as_it_enters(text)


@many
@given(octets)
def test_what_is_utf8_is_what_python_takes_for_it(ask: Ask, raw: bytes) -> None:
    try:
        raw.decode()
        expected = b"1"
    except UnicodeDecodeError:
        expected = b"0"
    assert ask("u", raw, PLENTY) == expected
    if expected == b"0":
        assert ask("s", raw, PLENTY) is None, "what is no text became a string"


@many
@given(octets, st.integers(0, 300))
def test_no_byte_is_written_past_the_room(ask: Ask, raw: bytes, room: int) -> None:
    whole = ask("o", raw, PLENTY)
    assert whole is not None
    assert ask("o", raw, room) == (whole if len(whole) <= room else None)


@many
@given(st.integers(-(2**63), 2**63 - 1) | st.sampled_from([MAX_INTEGER, -MAX_INTEGER, MAX_INTEGER + 1, -(2**63)]))
def test_integers_enter_as_the_reference_has_them(ask: Ask, value: int) -> None:
    assert ask("i", struct.pack("=q", value), PLENTY) == json.dumps(encode_value(value)).encode()


@many
@given(
    st.integers(0, MAX_INTEGER),
    st.integers(0, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
    st.sampled_from(LINES).map(lambda line: line[line.index(b'"actor"') : line.rindex(b',"prev"')])
    | st.binary(max_size=300),
)
def test_lines_are_sealed_as_the_reference_does(ask: Ask, seq: int, ns: int, prev: bytes, members: bytes) -> None:
    name = "run.accepted"
    data = struct.pack("=Qq", seq, ns) + prev + bytes([len(name)]) + name.encode() + members
    line = build_line(seq, timestamp(ns), Body(name, members), prev.hex())
    assert ask("l", data, PLENTY) == line + b"\n" + leaf_hash(line)
    assert ask("l", data, len(line)) is None
