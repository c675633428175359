"""The ledger's reader in C under the sanitizers, beside the reference: lines with small things done to them."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest

from immured.ledger.entry import MAX_LINE, Entry, LineError, parse_line
from tests.ledger.sample import lines, text
from tests.ledger.test_entry import GOOD
from tests.ledger.test_scan import RICH, mutated, with_data
from tests.patience import PATIENCE_S

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "native"
FLAGS = (
    "-std=gnu11 -D_GNU_SOURCE= -O1 -g -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover"
    " -fno-omit-frame-pointer"
).split()
SOURCES = [
    HERE / "fuzz_ledger_scan.c",
    *(NATIVE / "core" / f"{name}.c" for name in ("ledger_line", "ledger_scan", "ledger_tree")),
    NATIVE / "launcher" / "sha256.c",
    NATIVE / "launcher" / "sha256_x86.c",
]
ANSWER = struct.Struct("=8I")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fuzz_ledger_scan") / "fuzz"
    includes = [f"-I{NATIVE / 'core'}", f"-I{NATIVE / 'launcher'}"]
    subprocess.run(["gcc", *FLAGS, *includes, *SOURCES, "-o", made], check=True)
    return made


def answers(program: Path, pieces: list[bytes]) -> list[tuple[int, ...]]:
    asked = b"".join(struct.pack("=I", len(piece)) + piece for piece in pieces)
    done = subprocess.run([program], input=asked, capture_output=True, check=False, timeout=2 * PATIENCE_S)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    return list(ANSWER.iter_unpack(done.stdout))


def read(line: bytes) -> Entry | None:
    try:
        return parse_line(line)
    except LineError:
        return None


def expected(piece: bytes) -> tuple[int, ...]:
    """What the reference makes of it."""
    good: list[Entry] = []
    end = 0
    for line in piece.split(b"\n")[:-1]:
        entry = read(line)
        if entry is None or entry.type == "ledger.rotated":
            break
        if good and (entry.seq != good[0].seq + len(good) or entry.prev != good[-1].leaf.hex()):
            break
        good.append(entry)
        end += len(line) + 1
    checksum = 0
    for byte in b"".join(entry.leaf for entry in good):
        checksum = (checksum * 31 + byte) & 0xFFFFFFFF
    hits = sum(entry.type == "run.accepted" for entry in good)
    first = read(piece.partition(b"\n")[0])
    return (len(good), end, hits, checksum, first is not None, first.seq & 0xFFFFFFFF if first is not None else 0)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_lines_and_pieces(program: Path, seed: int) -> None:
    chance = random.Random(1_000 + seed)
    whole = text(lines(6))
    seeds = [GOOD.encode() + b"\n", RICH + b"\n", with_data(r'{"a":"\u00e9\ud83d\ude00","b":[[],{}]}') + b"\n", whole]
    pieces = [mutated(chance, chance.choice(seeds)) for _ in range(4_000)] + seeds
    found = answers(program, pieces)
    assert len(found) == len(pieces)
    for piece, said in zip(pieces, found, strict=True):
        assert said[:6] == expected(piece), piece


def test_every_end_of_a_line(program: Path) -> None:
    """Whatever a line breaks off in, nothing behind it is looked at."""
    rich = with_data(r'{"a":"é😀\u00e9\ud83d\ude00\n","b":[1,-2,true,false,{"c":[]}],"long":"' + "x" * 40 + '"}')
    pieces = [rich[:length] for length in range(len(rich) + 1)]
    for piece, said in zip(pieces, answers(program, pieces), strict=True):
        assert said[:6] == expected(piece), piece


@pytest.mark.parametrize(
    "data",
    [
        "{" + '"":1,' * 20_000,
        "{" + '"":1,' * 13_000,
        "{" + ",".join(f'"{number:x}":1' for number in range(6_000)) + "}",
        '{"a":' + "[" * 60_000,
        '{"a":' * 12_000,
        '{"a":"' + "\\u0041" * 10_000 + '"}',
        '{"' + "\\ud83d\\ude00" * 5_000 + '":1}',
        '{"a":"' + "\\" * 60_001 + '"}',
        '{"a":"' + "é" * 30_000 + '"}',
        '{"a":' + "9" * 60_000 + "}",
        '{"a":"' + "x" * MAX_LINE + '"}',
    ],
)
def test_extremes(program: Path, data: str) -> None:
    piece = with_data(data) + b"\n"
    (said,) = answers(program, [piece])
    assert said[:6] == expected(piece)
