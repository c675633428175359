"""What a crash left is set aside byte for byte and recorded; any other damage refuses, and nothing is changed."""

from __future__ import annotations

import hashlib

import pytest

from immured.errors import ConfigurationError
from immured.ledger.checkpoint import file_name
from immured.ledger.entry import Entry
from immured.ledger.reader import is_torn, scan
from immured.ledger.recovery import recover
from tests.ledger.memory import SECTOR, Bytes, MemoryStorage
from tests.ledger.sample import START_NS, head, lines, opened, signer, text, vkeys

LINES = lines(8)


def holding(content: bytes, signed: int = 1) -> MemoryStorage:
    """A storage whose file has this content, and checkpoints of sizes 1 and `signed`."""
    storage = MemoryStorage()
    storage.cache, storage.disk = bytearray(content), bytearray(content)
    for size in {1, signed}:
        one = head(LINES, size)
        storage.files[f"checkpoints/{file_name(size)}"] = signer(one.origin).sign(one)
    return storage


KEYS = vkeys(holding(text(LINES)))


def recovered(storage: MemoryStorage) -> list[Entry]:
    """The entries after a recovery."""
    seen: list[Entry] = []
    opened(storage).close()
    scan(storage, storage.size(), {}, seen.append)
    return seen


def torn_files(storage: MemoryStorage) -> dict[str, bytes]:
    return {name: content for name, content in storage.files.items() if name.startswith("quarantine/")}


@pytest.mark.parametrize("kept", range(1, len(LINES[7]) + 1, 11))
def test_a_torn_last_line_is_set_aside_byte_for_byte(kept: int) -> None:
    torn = LINES[7][:kept]
    storage = holding(text(LINES[:7]) + torn)
    entries = recovered(storage)
    assert [entry.line for entry in entries[:7]] == LINES[:7]
    assert list(torn_files(storage).values()) == [torn]


def test_what_was_set_aside_is_recorded() -> None:
    torn = LINES[7][:50]
    storage = holding(text(LINES[:7]) + torn)
    entry = recovered(storage)[7]
    (name,) = torn_files(storage)
    assert entry.type == "ledger.recovered"
    assert entry.data == {
        "file": name.removeprefix("quarantine/"),
        "len": 50,
        "sha256": hashlib.sha256(torn).hexdigest(),
        "at": 7,
    }


def test_a_quarantine_file_is_named_by_place_and_time() -> None:
    storage = holding(text(LINES[:7]) + b"{")
    recover(storage, storage, KEYS, START_NS)
    assert list(torn_files(storage)) == ["quarantine/00000000000000000007-20260921T141320.000000000Z.torn"]


def test_a_whole_ledger_is_left_as_it_is() -> None:
    storage = holding(text(LINES))
    assert [entry.line for entry in recovered(storage)] == LINES
    assert not torn_files(storage)


def test_a_quarantine_that_no_entry_speaks_of_is_recorded_at_the_next_start() -> None:
    storage = holding(text(LINES))
    name = "00000000000000000008-20260921T141320.000000000Z.torn"
    storage.files[f"quarantine/{name}"] = b"torn"
    assert recovered(storage)[8].data["file"] == name


def test_it_is_recorded_once() -> None:
    storage = holding(text(LINES[:7]) + b"{")
    recovered(storage)
    assert [entry.type for entry in recovered(storage)[7:]] == ["ledger.recovered"]


@pytest.mark.parametrize("at", range(7))
def test_damage_before_the_last_line_refuses_and_names_the_line(at: int) -> None:
    damaged = bytearray(text(LINES))
    damaged[len(text(LINES[:at])) + 20] ^= 0x40
    storage = holding(bytes(damaged))
    with pytest.raises(ConfigurationError, match=rf"line {at + 1} \(seq {at}\).*expected") as caught:
        opened(storage, KEYS)
    assert caught.value.code == "ledger_damaged"
    assert storage.content() == damaged
    assert not torn_files(storage)
    assert not storage.locked


def test_a_signed_line_is_never_set_aside() -> None:
    storage = holding(text(LINES)[:-1], signed=8)
    with pytest.raises(ConfigurationError, match="line 8") as caught:
        opened(storage)
    assert caught.value.code == "ledger_damaged"
    assert not torn_files(storage)


def test_missing_signed_lines_refuse() -> None:
    with pytest.raises(ConfigurationError, match="file ends after 5 entries; expected 8"):
        opened(holding(text(LINES[:5]), signed=8))


def test_a_damaged_newest_checkpoint_refuses() -> None:
    storage = holding(text(LINES), signed=8)
    storage.files[f"checkpoints/{file_name(8)}"] = b"damaged"
    with pytest.raises(ConfigurationError, match="00000000000000000008") as caught:
        opened(storage)
    assert caught.value.code == "ledger_damaged"


def test_an_empty_file_refuses() -> None:
    with pytest.raises(ConfigurationError, match="line 1"):
        recover(holding(b""), holding(b""), KEYS, START_NS)


def test_a_file_whose_first_line_is_torn_refuses() -> None:
    storage = holding(LINES[0][:100])
    with pytest.raises(ConfigurationError, match="line 1"):
        recover(storage, storage, KEYS, START_NS)


# --- a batch of which whole sectors never reached the disk ---

PREFIX = text(LINES[:3])
BATCH = text(lines(12, sizes=iter([4, 4] + [300] * 9))[3:])


def with_hole(content: bytes, start: int, end: int) -> bytes:
    return content[:start] + bytes(end - start) + content[end:]


def sector(position: int) -> int:
    return position // SECTOR * SECTOR


FULL = PREFIX + BATCH


def torn(content: bytes) -> bool:
    found = scan(Bytes(content), len(content), {})
    assert found.problem is not None
    return is_torn(Bytes(content), found.problem.offset, len(content), found.problem.seq)


def test_a_batch_whose_first_sector_is_missing_is_torn() -> None:
    assert torn(with_hole(FULL, len(PREFIX), sector(len(PREFIX)) + SECTOR))


@pytest.mark.parametrize("number", range(1, 6))
def test_a_batch_with_a_sector_missing_is_torn(number: int) -> None:
    start = sector(len(PREFIX)) + number * SECTOR
    assert torn(with_hole(FULL, start, start + SECTOR))


def test_a_batch_that_never_came_but_for_its_length_is_torn() -> None:
    assert torn(with_hole(FULL, len(PREFIX), len(FULL)))


def test_a_batch_with_two_holes_is_torn() -> None:
    start = sector(len(PREFIX)) + SECTOR
    holed = with_hole(FULL, start, start + SECTOR)
    assert torn(with_hole(holed, start + 3 * SECTOR, start + 4 * SECTOR))


def test_zeros_that_are_no_whole_sector_are_damage() -> None:
    start = sector(len(PREFIX)) + SECTOR
    assert not torn(with_hole(FULL, start + 1, start + SECTOR))


def test_a_single_zero_is_damage() -> None:
    assert not torn(with_hole(FULL, len(PREFIX) + 30, len(PREFIX) + 31))


def test_a_hole_with_another_flip_behind_it_is_damage() -> None:
    start = sector(len(PREFIX)) + SECTOR
    holed = bytearray(with_hole(FULL, start, start + SECTOR))
    holed[-1500] ^= 1
    assert not torn(bytes(holed))


def test_a_hole_before_more_than_a_batch_is_damage() -> None:
    many = text(lines(4000, sizes=iter([600] * 4000)))
    assert not torn(with_hole(many, 2 * SECTOR, 3 * SECTOR))


def test_a_torn_batch_is_set_aside_whole() -> None:
    start = sector(len(PREFIX)) + SECTOR
    content = with_hole(FULL, start, start + SECTOR)
    found = scan(Bytes(content), len(content), {})
    assert found.problem is not None
    storage = holding(content)
    entries = recovered(storage)
    assert entries[found.problem.seq].type == "ledger.recovered"
    assert list(torn_files(storage).values()) == [content[found.problem.offset :]]


def test_every_flip_without_a_newer_checkpoint_refuses_or_loses_at_most_a_line_without_its_newline() -> None:
    whole = text(LINES[:4])
    start = len(text(LINES[:3]))
    for position in range(len(whole)):
        for bit in (0, 3, 7):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            storage = holding(bytes(flipped))
            try:
                recover(storage, storage, KEYS, START_NS)
            except ConfigurationError:
                continue
            aside = list(torn_files(storage).values())
            if aside:
                assert position == len(whole) - 1
                assert aside == [bytes(flipped[start:])]
            else:
                assert position > start  # the last line, which nothing vouches for yet


def test_a_visitor_that_fails_leaves_the_ledger_unlocked() -> None:
    storage = holding(text(LINES))

    def visit(entry: Entry) -> None:
        raise ValueError(entry.seq)

    with pytest.raises(ValueError, match="0"):
        opened(storage, visit=visit)
    assert not storage.locked


def test_a_recovery_that_a_full_disk_cannot_record_refuses_and_is_recorded_later() -> None:
    storage = holding(text(LINES[:7]) + b"{")
    storage.capacity = len(text(LINES[:7]))
    with pytest.raises(ConfigurationError) as caught:
        opened(storage)
    assert caught.value.code == "ledger_unavailable"
    storage.capacity = None
    assert recovered(storage)[7].type == "ledger.recovered"
