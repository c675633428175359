"""The native client's readers under the sanitizers, beside the Python ones: the same verdict on any bytes, in the same
words."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immured.client.order import Order
from immured.client.outcome import Collector
from immured.errors import ImmuredError, Refused
from immured.wire.envelope import decode_envelope
from immured.wire.messages import parse_data, parse_hello, parse_reply
from immured.wire.strict_msgpack import unpack
from tests.fuzz.fuzz_wire import known_inputs
from tests.patience import PATIENCE_S

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PARTS = "error text pack unpack keys envelope messages result".split()
KNOWN = known_inputs()

Judge = Callable[[bytes], list[str]]


def result(data: bytes) -> None:
    """A run's result, of which nothing was streamed."""
    reply = parse_reply(data)
    if not reply.ok:
        raise Refused("refused", "a refusal")
    Collector(Order({}, streamed=frozenset({"stdout", "stderr"}))).finish(reply)


READINGS: list[Callable[[bytes], object]] = [unpack, decode_envelope, parse_hello, parse_data, parse_reply, result]


def by_python(data: bytes) -> list[str]:
    verdicts = []
    for reading in READINGS:
        try:
            reading(data)
            verdicts.append("ok")
        except ImmuredError as error:
            verdicts.append(f"{error.code}: {error.message}")
    return verdicts


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """Asks the native readers, each time on memory of its own."""
    place = tmp_path_factory.mktemp("fuzz_client")
    sys.path.insert(0, str(ROOT / "native"))
    try:
        import client_build  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    sources = [HERE / "fuzz_client.c", *(ROOT / "native/client" / f"{part}.c" for part in PARTS)]
    flags = [*client_build.common.DIALECT, *client_build.common.WARNINGS, "-Werror", *client_build.common.SANITIZERS]
    command = ["gcc", *flags, *client_build.prepare(place), *map(str, sources), "-o", str(place / "judge"), "-lsodium"]
    subprocess.run(command, check=True)
    environment = os.environ | {"UBSAN_OPTIONS": "print_stacktrace=1", "ASAN_OPTIONS": "detect_leaks=0"}
    with subprocess.Popen(
        [place / "judge", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:

        def ask(data: bytes) -> list[str]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(struct.pack("=I", len(data)) + data)
            process.stdin.flush()
            said = b""
            while said.count(b"\0") < len(READINGS):
                more = os.read(process.stdout.fileno(), 65536)
                assert more, f"it died of {data[:2000].hex()}"
                said += more
            return said.decode().split("\0")[:-1]

        yield ask
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


def check(judge: Judge, data: bytes) -> None:
    native, python = judge(data), by_python(data)
    for ours, theirs in zip(native, python, strict=True):
        # A message is cut where C has no more room for it, and two faults may be met in another order.
        if "is not valid UTF-8" in ours + theirs or "stands twice" in ours + theirs:
            assert ours.split(": ")[0] == theirs.split(": ")[0]
        else:
            assert ours[:300] == theirs[:300]


QUICK = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NUMBERS = st.integers(-(2**63), 2**64 - 1)
SCALARS = st.booleans() | NUMBERS | st.text(max_size=6) | st.binary(max_size=40) | st.floats() | st.none()
WORDS = (
    "ok result error re req receipt intent seq leaf daemon boot time_ms version limits stream data streams stdout "
    "stderr stdin length sha256 truncated passed sandbox cause exit_code signal failure enforcement usage events "
    "violations"
)
NAMES = st.sampled_from(WORDS.split()) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS | st.sampled_from([b"\1" * 16, b"\2" * 32, 0, 1, "exited", True]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=20,
)
WHOLE: dict[str, object] = {
    "ok": True, "re": b"\1" * 16, "req": b"\2" * 32, "receipt": {"seq": 2, "leaf": b"\2" * 32},
    "intent": {"seq": 1, "leaf": b"\1" * 32},
}  # fmt: skip
RESULT: dict[str, object] = {"sandbox": "s", "cause": "exited", "exit_code": 0, "streams": {}}


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes(judge: Judge, data: bytes) -> None:
    check(judge, data)


@QUICK
@given(VALUES)
def test_any_value(judge: Judge, value: object) -> None:
    check(judge, msgpack.packb(value, use_bin_type=True))


@QUICK
@given(st.dictionaries(NAMES, VALUES, max_size=4), st.dictionaries(NAMES, VALUES, max_size=4))
def test_nearly_a_result(judge: Judge, around: dict[str, object], inside: dict[str, object]) -> None:
    check(judge, msgpack.packb(WHOLE | {"result": RESULT | inside} | around, use_bin_type=True))


@QUICK
@given(st.dictionaries(NAMES, VALUES, max_size=3))
def test_nearly_a_hello_or_data(judge: Judge, changes: dict[str, object]) -> None:
    hello = {"daemon": "d", "boot": b"", "time_ms": 1, "version": "1", "limits": {}}
    check(judge, msgpack.packb(hello | changes, use_bin_type=True))
    check(judge, msgpack.packb({"re": b"\1" * 16, "stream": "stdout", "data": b"x"} | changes, use_bin_type=True))


@QUICK
@given(st.sampled_from(KNOWN), st.data())
def test_bytes_near_what_is_known(judge: Judge, seed: bytes, data: st.DataObject) -> None:
    mutated = bytearray(seed or b"\0")
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    check(judge, bytes(mutated))


def test_what_is_known(judge: Judge) -> None:
    for seed in KNOWN:
        check(judge, seed)


@pytest.mark.parametrize("count", [1, 31, 33, 32_000, 40_000])
def test_many_keys(judge: Judge, count: int) -> None:
    check(judge, msgpack.packb({str(number): 1 for number in range(count)}))
    twice = b"\xdf" + struct.pack(">I", count + 1) + b"".join(
        msgpack.packb(str(number)) + b"\1" for number in [*range(count), 0]
    )  # fmt: skip
    check(judge, twice)
