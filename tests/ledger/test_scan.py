"""The reader in C and the reference have one verdict: on every line, on every ledger, from wherever they begin."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from immured._ledger_read import read_line, read_piece
from immured.ledger import scan as module
from immured.ledger.chain import Chain
from immured.ledger.checkpoint import Checkpoint
from immured.ledger.entry import MAX_DEPTH, MAX_LINE, Entry, LineError, build_line, encode_body, leaf_hash, parse_line
from immured.ledger.reader import Scan, Standing, begin, scan
from immured.ledger.scan import swift
from immured.ledger.timestamps import timestamp
from immured.ledger.tree import Frontier
from tests.ledger.memory import Bytes
from tests.ledger.sample import ACTOR, START_NS, head, lines, text
from tests.ledger.test_entry import BAD, GOOD

DATA = {"a": 1, "b": [True, False, -5, {"c": "d"}], "é": 'grüße \\ " \n', "k" * 40: {}, "": [], "path": "/\u200b"}
RICH = build_line(7, timestamp(START_NS), encode_body("run.accepted", ACTOR, DATA), "ab" * 32)


def agree(line: bytes) -> bool:
    """Whether both take this line; they must say the same of it, and read the same in it."""
    read = read_line(line)
    try:
        entry = parse_line(line)
    except LineError:
        entry = None
    assert (read is None) == (entry is None), f"{'not ' if read is None else ''}taken in C: {line!r}"
    if read is None or entry is None:
        return False
    seq, ts, type_, actor, data, prev, leaf = read
    assert (seq, ts, type_, prev.hex(), leaf) == (entry.seq, entry.ts, entry.type, entry.prev, entry.leaf)
    assert (json.loads(actor), json.loads(data)) == (entry.actor, entry.data)
    return True


def with_data(data: str) -> bytes:
    return GOOD.replace('{"a":1}', data, 1).encode("utf-8", "surrogatepass")


# --- lines


@pytest.mark.parametrize("name", BAD)
def test_what_the_reference_refuses_is_refused(name: str) -> None:
    assert not agree(BAD[name][0].encode())


@pytest.mark.parametrize(
    "data",
    [
        "{}", "{ }", '{"a" :\t1 , "b":[ ] }', '{"a":[1 ,2]}', '{"":1}', '{"a":0}', '{"a":-0}', '{"a":9007199254740991}',
        '{"a":-9007199254740991}', r'{"a":"\u00e9\ud83d\ude00\/\b\f\n\r\t\"\\"}', r'{"\u0061":1,"b":2}', '{"a":"\x7f"}',
        r'{"a":"\\ud800"}', r'{"a":"\u0000"}', '{"a":"\u2028😀é"}', '{"a":true,"b":false}', '{"a":"null"}',
        '{"a":' + "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2) + "}", '{"abcdefgh":1,"abcdefghi":2,"abcdefg":3}',
    ],
)  # fmt: skip
def test_what_json_allows_is_taken(data: str) -> None:
    assert agree(with_data(data))


@pytest.mark.parametrize(
    "data",
    [
        '{"a":01}', '{"a":1.5}', '{"a":1.}', '{"a":1e3}', '{"a":1E+3}', '{"a":1e}', '{"a":-}', '{"a":+1}', '{"a":.5}',
        '{"a":9007199254740992}', '{"a":-9007199254740992}', '{"a":10000000000000000000000}', '{"a":NaN}',
        '{"a":Infinity}', '{"a":-Infinity}', '{"a":null}', '{"a":[null]}', '{"a":nul}', '{"a":True}', '{"a":tru}',
        '{"a":1,}', '{"a":[1,]}', "{,}", '{"a"}', '{"a":}', "{a:1}", "{'a':1}", '{"a":1 "b":2}', '{"a":[1 2]}',
        '{"a":1,"a":2}', r'{"a":1,"\u0061":2}', r'{"é":1,"\u00e9":2}', r'{"😀":1,"\ud83d\ude00":2}', '{"":1,"":2}',
        r'{"a":"\ud800"}', r'{"a":"\udc00"}', r'{"a":"\ud800x"}', r'{"a":"\ud800\u0041"}', r'{"a":"\ud800\ud800"}',
        r'{"\ud800":1}', '{"a":"\ud800"}', r'{"a":"\x41"}', r'{"a":"\u12"}', r'{"a":"\u12g4"}', r'{"a":"\U00000041"}',
        '{"a":"\t"}', '{"a":"\x00"}', '{"a":"\x1f"}', '{"a":"', '{"a":"\\', '{"a":1}}', '{"a":1}x', '{"a":1\x0c}',
        '{"a":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}", "[" * 5000, '{"a":/*x*/1}', '{"a":0x10}',
        '{"a":"x"\u00a0}', '{"abcdefgh":1,"b":2,"abcdefgh":3}',
    ],
)  # fmt: skip
def test_what_is_no_entry_is_not_taken(data: str) -> None:
    assert not agree(with_data(data))


@pytest.mark.parametrize(
    "raw", [b"\x80", b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"\xe2\x82", b"\xc3", b"\xf0\x9f\x98", b"\xc3\x28"]
)  # fmt: skip
def test_what_is_not_utf8_is_not_taken(raw: bytes) -> None:
    assert not agree(with_data('{"a":"here"}').replace(b"here", raw))
    assert not agree(with_data('{"a":"here"}').replace(b"here", b"x" * 40 + raw + b"y" * 40))


@pytest.mark.parametrize(
    "first", ["\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]
)
def test_every_length_of_a_character_is_taken(first: str) -> None:
    assert agree(with_data(f'{{"a":"{first}{"x" * 15}{first}"}}'))


@pytest.mark.parametrize("count", [2, 31, 32, 33, 34, 1000, 6000])
def test_a_name_that_stands_twice_is_found_among_however_many(count: int) -> None:
    names = [f'"{n}":1' for n in range(count)]
    assert agree(with_data("{" + ",".join(names) + "}"))
    assert not agree(with_data("{" + ",".join([*names, '"0":2']) + "}"))
    assert not agree(with_data("{" + ",".join([*names, f'"{count - 1}":2']) + "}"))


def test_names_are_compared_within_their_own_map() -> None:
    assert agree(with_data('{"a":{"a":{"a":1},"b":[{"a":1},{"a":2}]},"b":{"a":1}}'))
    assert not agree(with_data('{"x":{"b":1,"a":{"b":1},"b":2}}'))


@pytest.mark.parametrize("field", ["v", "seq", "ts", "type", "actor", "data", "prev"])
def test_a_field_that_is_missing_or_twice_or_escaped(field: str) -> None:
    fields = json.loads(GOOD)
    value = json.dumps(fields[field])
    assert not agree(json.dumps({name: one for name, one in fields.items() if name != field}).encode())
    assert not agree(GOOD.replace("{", f'{{"{field}":{value},', 1).encode())
    escaped = "".join(f"\\u{ord(char):04x}" for char in field)
    assert agree(GOOD.replace(f'"{field}"', f'"{escaped}"', 1).encode())
    assert not agree(GOOD.replace("{", f'{{"{escaped}":{value},', 1).encode())


def test_text_that_says_the_same_in_escapes_is_the_same() -> None:
    assert agree(GOOD.replace('"run.accepted"', r'"run\u002eaccepted"').encode())
    assert agree(GOOD.replace("2026-", r"\u0032026-").encode())
    assert agree(GOOD.replace('"ab', r'"\u0061b').encode())


@pytest.mark.parametrize("size", [MAX_LINE, MAX_LINE + 1])
def test_a_line_may_be_so_long(size: int) -> None:
    short = with_data('{"a":""}')
    assert agree(short.replace(b'""', b'"' + b"x" * (size - len(short)) + b'"')) is (size == MAX_LINE)


@pytest.mark.parametrize(
    "ts",
    ["2024-02-29T00:00:00", "2000-02-29T23:59:59", "1900-02-28T00:00:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59",
     "2023-02-29T00:00:00", "1900-02-29T00:00:00", "0000-01-01T00:00:00", "2026-00-01T00:00:00", "2026-13-01T00:00:00",
     "2026-01-00T00:00:00", "2026-01-32T00:00:00", "2026-04-31T00:00:00", "2026-01-01T24:00:00", "2026-01-01T23:60:00",
     "2026-01-01T23:59:60", "2026-1-01T00:00:00", "2026-01-01 00:00:00", "2026-01-01t00:00:00"],
)  # fmt: skip
def test_days_and_hours(ts: str) -> None:
    agree(GOOD.replace("2026-11-21T23:30:00", ts).encode())


@pytest.mark.parametrize(
    "type_",
    ["a.b", "a", ".a", "a.", "a..b", "a.1", "1.a", "a1.b_", "_a.b", "a.B", "a-b.c", "a.b.c.d", "é.a", "a." + "b" * 62,
     "a." + "b" * 63],
)  # fmt: skip
def test_names_of_types(type_: str) -> None:
    agree(GOOD.replace("run.accepted", type_).encode())


TOKENS = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"0", b"-", b".", b"e", b"null", b"true", b"\\u0061",
    b"\\ud83d", b"\\ude00", b"\x00", b"\t", b"\r", b"\x7f", b"\xc3\xa9", b"\xed\xa0\x80", b'"a":1,', b"{}", b"[]",
)  # fmt: skip


def mutated(chance: random.Random, line: bytes) -> bytes:
    """The line with a few small things done to it that mean something to JSON."""
    made = bytearray(line)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(made) + 1)
        what = chance.randrange(5)
        if what == 0 and at < len(made):
            made[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            del made[at : at + chance.choice((1, 1, 2, 8))]
        elif what == 2:
            made[at:at] = chance.choice(TOKENS)
        elif what == 3:
            other = chance.randrange(len(made) + 1)
            made[at:at] = made[min(at, other) : max(at, other)][: chance.choice((1, 4, 40))]
        elif at < len(made):
            made[at] = chance.choice(b'"\\{}[],: 019-.azAZ_\xff')
    return bytes(made)


@pytest.mark.parametrize("seed", range(4))
def test_lines_with_small_things_done_to_them(seed: int) -> None:
    chance = random.Random(seed)
    seeds = [GOOD.encode(), RICH, lines(3)[2], with_data(r'{"a":"\u00e9\ud83d\ude00","b":[[],{},-1,true,"x"]}')]
    taken = sum(agree(mutated(chance, chance.choice(seeds))) for _ in range(15_000))
    assert 500 < taken < 14_500  # it has to be seen both ways


VALUES = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.text() | st.floats() | st.none() | st.just(2**53 - 1),
    lambda some: st.lists(some, max_size=4) | st.dictionaries(st.text(max_size=5), some, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), st.booleans(), st.sampled_from([None, 0, 1]))
def test_whatever_json_there_is(data: dict[str, object], ascii_only: bool, indent: int | None) -> None:
    made = json.dumps(data, ensure_ascii=ascii_only, indent=indent).replace("\n", " ")
    agree(with_data(made))


@given(st.binary(max_size=300))
@example(b"")
@example(b"{}")
@example(b"{")
def test_whatever_bytes_there_are(raw: bytes) -> None:
    agree(raw)


# --- ledgers


def rotated(made: list[bytes], **changed: object) -> bytes:
    """The line that begins a file after these, as the reference demands it; or with some of it changed."""
    leaves = [leaf_hash(line) for line in made]
    tree = Frontier(leaves)
    origin = head(made, len(made)).origin
    data = {
        "origin": origin, "first": 0, "entries": len(made), "bytes": len(text(made)), "size": len(made),
        "root": tree.root().hex(), "frontier": [root.hex() for root in tree.roots()], "sha256": "0" * 64,
        "segment": "0" * 20, **changed,
    }  # fmt: skip
    body = encode_body("ledger.rotated", {"ledger": origin}, data)
    return build_line(len(made), timestamp(START_NS + 10**12), body, leaves[-1].hex())


def with_rotations(*counts: int) -> list[bytes]:
    """A ledger's lines, sealed after so many each time."""
    made = lines(counts[0])
    for count in counts[1:]:
        made.append(rotated(made))
        for _ in range(count):
            body = encode_body("run.accepted", ACTOR, {"n": len(made)})
            ns = START_NS + 10**12 + len(made)
            made.append(build_line(len(made), timestamp(ns), body, leaf_hash(made[-1]).hex()))
    return made


LINES = with_rotations(9, 5, 4)
WHOLE = text(LINES)
SIZES = (1, 3, 9, 10, 16, len(LINES))
HEADS = {size: head(LINES, size) for size in SIZES}
WANTED = ("run.finished", "ledger.rotated")


def told(found: Scan) -> tuple[object, ...]:
    """All of what a scan says."""
    chain = found.chain
    where = (chain.size, chain.tree.root(), chain.last_leaf, chain.last_ts, chain.origin)
    return (where, found.end, found.problem, found.covered)


def same(
    content: bytes,
    heads: Mapping[int, Checkpoint],
    since: Callable[[], Standing | None] = lambda: None,
    *,
    threads: int = 1,
) -> Scan:
    """What both find; they have to find the same, and show the same entries and leaves."""
    log, seen = Bytes(content), list[Entry]()
    expected = scan(log, len(content), heads, seen.append, since())
    every, leaves, wanted = list[Entry](), bytearray(), list[Entry]()
    found = swift(log, len(content), heads, every.append, since(), leaves=leaves.extend, threads=threads)
    assert told(found) == told(expected)
    assert every == seen
    assert leaves == b"".join(entry.leaf for entry in seen)
    some = swift(log, len(content), heads, wanted.append, since(), wanted=WANTED, threads=threads)
    assert told(some) == told(expected)
    assert wanted == [entry for entry in seen if entry.type in WANTED]
    assert told(swift(log, len(content), heads, None, since(), threads=threads)) == told(expected)
    return found


@pytest.fixture(params=[300, 700, 1 << 20])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How much is read at a time: lines end and heads stand at every place of a piece."""
    monkeypatch.setattr(module, "_PIECE", request.param)
    return int(request.param)


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("heads", [HEADS, {}, {len(LINES): HEADS[len(LINES)]}])
def test_a_whole_ledger(threads: int, heads: dict[int, Checkpoint]) -> None:
    found = same(WHOLE, heads, threads=threads)
    assert found.problem is None
    assert (found.chain.size, found.covered) == (len(LINES), len(LINES) if heads else 0)


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("threads", [1, 3])
def test_every_byte_that_is_another(threads: int) -> None:
    for position in range(threads, len(WHOLE), 7):
        altered = bytearray(WHOLE)
        altered[position] ^= 1 << (position % 8)
        found = same(bytes(altered), HEADS, threads=threads)
        assert found.problem is not None


@pytest.mark.usefixtures("piece")
def test_every_end() -> None:
    for length in range(0, len(WHOLE), 11):
        assert same(WHOLE[:length], HEADS).problem is not None
        same(WHOLE[:length], {})


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("at", range(len(LINES)))
def test_lines_that_are_gone_doubled_exchanged_or_empty(at: int) -> None:
    for made in (
        LINES[:at] + LINES[at + 1 :],
        LINES[: at + 1] + LINES[at:],
        [*LINES[:at], b"", *LINES[at:]],
        [*LINES[:at], *reversed(LINES[at : at + 2]), *LINES[at + 2 :]],
        [*LINES[:at], LINES[at].replace(b"1", b"2"), *LINES[at + 1 :]],
    ):
        same(text(made), HEADS)
        same(text(made), {})


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("size", SIZES)
def test_a_head_that_does_not_agree(size: int) -> None:
    origin = HEADS[1].origin
    for wrong in (Checkpoint(origin, size, bytes(32)), Checkpoint("immured/" + "0" * 32, size, HEADS[size].root)):
        assert same(WHOLE, {**HEADS, size: wrong}).problem is not None


@pytest.mark.usefixtures("piece")
def test_heads_beyond_the_end() -> None:
    found = same(WHOLE, {**HEADS, 100: Checkpoint(HEADS[1].origin, 100, bytes(32))})
    assert found.problem is not None
    assert found.problem.code == "missing_lines"


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize(
    "changed",
    [
        {"root": "0" * 64},
        {"frontier": []},
        {"bytes": 1},
        {"size": 3},
        {"origin": "immured/" + "1" * 32},
        {"frontier": "x"},
    ],
)
def test_a_rotation_that_says_what_was_not_so(changed: dict[str, object]) -> None:
    made = lines(6)
    made.append(rotated(made, **changed))
    found = same(text(made), {})
    assert found.problem is not None
    assert (found.problem.code, found.problem.line) == ("bad_rotation", 7)


@pytest.mark.usefixtures("piece")
def test_what_is_kept_of_a_ledger() -> None:
    at = len(text(LINES[:9]))
    log = Bytes(WHOLE)

    def standing() -> Standing:
        began = begin(log, at, HEADS)
        assert isinstance(began, Standing)
        return began

    found = same(WHOLE, HEADS, standing)
    assert found.problem is None
    assert (found.chain.size, found.covered, found.end) == (len(LINES), len(LINES), len(WHOLE))
    for position in range(at, len(WHOLE), 13):
        altered = bytearray(WHOLE)
        altered[position] ^= 1
        same(bytes(altered), HEADS, standing)


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("count", range(1, len(LINES)))
def test_going_on_from_anywhere(count: int) -> None:
    def standing() -> Standing:
        part = text(LINES[:count])
        found = scan(Bytes(part), len(part), {})
        covered = max((size for size in SIZES if size <= count), default=0)
        previous = len(text(LINES[: count - 1]))
        return Standing(found.chain, found.end, previous, covered, len(text(LINES[:covered])))

    assert same(WHOLE, HEADS, standing).problem is None
    altered = bytearray(WHOLE)
    altered[len(text(LINES[:count])) - 20] ^= 1
    same(bytes(altered), HEADS, standing)


@settings(deadline=None)
@given(st.data(), st.sampled_from([257, 600, 4096]), st.sampled_from([1, 2]))
def test_whatever_is_done_to_a_ledger(data: st.DataObject, piece: int, threads: int) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(0, 3))):
        at, end = (data.draw(st.integers(0, len(content))) for _ in range(2))
        what = data.draw(st.sampled_from(["cut", "put", "copy", "flip", "newline"]))
        if what == "cut":
            del content[at:end]
        elif what == "put":
            content[at:at] = data.draw(st.binary(max_size=30))
        elif what == "copy":
            content[at:at] = content[at:end]
        elif what == "newline":
            content[at:at] = b"\n"
        elif at < len(content):
            content[at] ^= 1
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(module, "_PIECE", piece)
        same(bytes(content), data.draw(st.sampled_from([HEADS, {}, {3: HEADS[3]}])), threads=threads)


def test_a_ledger_larger_than_a_piece() -> None:
    made = lines(6_000, sizes=iter(range(50, 6_100)))
    heads = {size: head(made, size) for size in (1, 1024, 2048, 5999)}
    content = text(made)
    assert len(content) > 3 << 20
    assert same(content, heads, threads=2).covered == 5999
    altered = bytearray(content)
    altered[2_500_000] ^= 1
    problem = same(bytes(altered), heads, threads=2).problem
    assert problem is not None
    assert 2_500_000 - 2_000 < problem.offset <= 2_500_000


def test_a_file_that_shrinks_meanwhile_ends_there() -> None:
    assert told(swift(Bytes(WHOLE), len(WHOLE) + 5000, HEADS)) == told(scan(Bytes(WHOLE), len(WHOLE) + 5000, HEADS))


def test_a_file_that_never_ends_its_line_is_read_no_further() -> None:
    class Endless:
        asked = 0

        def read(self, offset: int, length: int) -> bytes:
            self.asked += length
            return (WHOLE + b"x" * length)[offset : offset + length] if offset < len(WHOLE) else b"x" * length

    endless = Endless()
    problem = swift(endless, 1 << 40, {}, threads=2).problem
    assert problem is not None
    assert problem.code == "line_too_long"
    assert endless.asked <= 8 << 20


def test_an_error_of_the_disk_is_the_callers() -> None:
    class Broken:
        def read(self, offset: int, length: int) -> bytes:
            if offset >= 2 << 20:
                raise OSError(5, "Input/output error")
            return content[offset : offset + length]

    content = text(lines(3_000, sizes=iter([900] * 3_000)))
    with pytest.raises(OSError, match="Input/output"):
        swift(Broken(), len(content), {}, threads=2)


# --- pieces


def test_a_piece_says_where_its_lines_end() -> None:
    part = read_piece(text(LINES[:4]), None)
    assert [part.end_of(n) for n in range(5)] == [len(text(LINES[:n])) for n in range(5)]
    assert (part.lines, part.end, part.hits, part.seq) == (4, len(text(LINES[:4])), [0, 1, 2, 3], 0)
    with pytest.raises(IndexError):
        part.end_of(5)


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n", LINES[0], b"{}\n"])
def test_a_piece_without_a_good_line(data: bytes) -> None:
    part = read_piece(data, None)
    assert (part.lines, part.end, part.leaves, part.hits, part.end_of(0)) == (0, 0, b"", [], 0)


def test_a_piece_stops_at_what_is_left_to_the_caller() -> None:
    assert read_piece(WHOLE, (), b"ledger.rotated").lines == 9
    assert read_piece(WHOLE, (b"ledger.rotated", b"ledger.created")).hits == [0, 9, 15]
    assert read_piece(WHOLE, [b"run.lost"]).hits == []


def test_no_more_than_256_types_can_be_asked_for() -> None:
    with pytest.raises(ValueError, match="256"):
        read_piece(WHOLE, [b"x"] * 257)


def test_a_chain_that_begins_anew_is_not_taken_from_another() -> None:
    assert swift(Bytes(WHOLE), len(WHOLE), HEADS, since=Standing(Chain())).problem is None
