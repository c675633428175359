"""A start reads on from the resume where that can be believed, and everything where it cannot. Nothing is weaker."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.errors import ConfigurationError
from immured.ledger.checkpoint import file_name
from immured.ledger.entry import Entry
from immured.ledger.keeping import FOREVER, Keep, Keyed, Need, Op, Tie
from immured.ledger.ledger import Ledger
from immured.ledger.reader import scan
from immured.ledger.resume import RESUME, Resume, UnusableError
from immured.ledger.saving import Pace
from tests.ledger.memory import MemoryStorage
from tests.ledger.sample import ACTOR, KEY, created, opened, signer, vkeys
from tests.patience import PATIENCE_S

ALWAYS = Pace(entries=1, aside=False)
MINUTE = 60_000
NOW = 2 * 10**12


class Notes:
    """A keeper of entries by what their data say; and what it was shown."""

    def __init__(self, rules: str = "notes/1") -> None:
        self.rules = rules
        self.seen: list[tuple[int, int]] = []
        self.horizon = 0

    def keep(self, type_: str, actor: Mapping[str, Any], data: Mapping[str, Any], /) -> Keep | None:
        del type_, actor
        name = data.get("keep")
        if name == "forever":
            return Keep(forever=True)
        if name == "until":
            return Keep(data["ms"])
        if name == "opens":
            return Keep(data.get("ms", 0), True)
        if name == "closes":
            return Keep(tie=Tie.OUTCOME, intent=data["intent"])
        if name == "last":
            return Keep(keyed=(Keyed(Op.REPLACE, data["key"], data.get("ms", FOREVER)),))
        return None

    def visit(self, entry: Entry, needs: int = Need.ALL) -> None:
        self.seen.append((entry.seq, needs))

    def forgotten(self, until_ms: int) -> None:
        self.horizon = until_ms

    def seqs(self) -> list[int]:
        return [seq for seq, _ in self.seen]


def notes(
    storage: MemoryStorage, keeper: Notes, clock: Callable[[], int] = lambda: 2 * 10**18, **options: Any
) -> Ledger:
    settings: dict[str, Any] = {"keeper": keeper, "whole_bytes": 0, "pace": ALWAYS, "clock": clock, **options}
    return opened(storage, **settings)


def written(*data: Mapping[str, object], closed: bool = True) -> MemoryStorage:
    """A ledger of these entries, from index 1 on."""
    storage = created()
    ledger = notes(storage, Notes())
    for one in data:
        ledger.entry("note.made", ACTOR, one).wait(PATIENCE_S)
    if closed:
        ledger.close()
    return storage


def shown(storage: MemoryStorage, clock: Callable[[], int] = lambda: 2 * 10**18, **options: Any) -> list[int]:
    """What a start is shown."""
    keeper = Notes()
    notes(storage, keeper, clock, **options).close()
    return keeper.seqs()


PLAIN: list[Mapping[str, object]] = [{"text": "x"}] * 20


def test_only_what_is_needed_is_shown() -> None:
    storage = written({"keep": "forever"}, *PLAIN, {"keep": "last", "key": "k"}, {"keep": "last", "key": "k"})
    assert shown(storage) == [1, 23]


def test_what_came_after_is_shown_whole() -> None:
    storage = written({"keep": "forever"}, *PLAIN)
    # By somebody who keeps nothing, and changes nothing of what is kept.
    ledger = opened(storage, clock=lambda: 2 * 10**18)
    for _ in range(3):
        ledger.entry("note.made", ACTOR, {}).wait(PATIENCE_S)
    ledger.close()
    keeper = Notes()
    notes(storage, keeper).close()
    assert keeper.seen == [(1, Need.SAY), (22, Need.ALL), (23, Need.ALL), (24, Need.ALL)]


def test_an_intent_is_shown_until_its_outcome() -> None:
    storage = written({"keep": "opens"}, *PLAIN, {"keep": "opens"}, {"keep": "closes", "intent": 1})
    assert shown(storage) == [22]


def test_with_its_outcome_as_long_as_it_is_needed() -> None:
    until = NOW + MINUTE
    storage = written({"keep": "opens", "ms": until}, *PLAIN, {"keep": "closes", "intent": 1})
    keeper = Notes()
    notes(storage, keeper).close()
    assert keeper.seen == [(1, Need.ACT), (22, Need.ACT)]
    keeper = Notes()
    notes(storage, keeper, lambda: (until + MINUTE) * 10**6).close()
    assert keeper.seen == []
    assert until <= keeper.horizon <= until + MINUTE


def test_what_is_needed_for_a_time_is_told_of_when_that_is_over() -> None:
    storage = written({"keep": "until", "ms": NOW + 1}, {"keep": "until", "ms": 5}, *PLAIN)
    keeper = Notes()
    notes(storage, keeper).close()
    assert keeper.seqs() == [1]
    assert 5 <= keeper.horizon <= NOW


def test_a_clock_that_was_set_back_behind_what_was_forgotten_has_everything_read() -> None:
    storage = written({"keep": "until", "ms": NOW + 1}, *PLAIN)
    assert shown(storage, lambda: 4 * 10**18) == []
    assert shown(storage, lambda: 4 * 10**18) == []
    assert shown(storage)[:3] == [0, 1, 2]


def test_what_a_resume_kept_is_kept_on_by_the_next() -> None:
    storage = written({"keep": "forever"}, {"keep": "opens"}, *PLAIN)
    for _ in range(3):
        keeper = Notes()
        ledger = notes(storage, keeper)
        ledger.entry("note.made", ACTOR, {}).wait(PATIENCE_S)
        ledger.close()
        assert keeper.seqs() == [1, 2]


def test_a_ledger_that_is_killed_is_read_on_from_its_last_resume() -> None:
    storage = created()
    ledger = notes(storage, Notes())
    for number in range(30):
        ledger.entry("note.made", ACTOR, {"keep": "opens"} if number == 3 else {}).wait(PATIENCE_S)
        if number == 20:
            with ledger.turn():
                ledger.durable.sign()
    left = MemoryStorage()
    left.files, left.cache, left.disk = dict(storage.files), bytearray(storage.content()), bytearray(storage.content())
    ledger.close()
    assert shown(left) == [4, *range(22, 31)]


def test_an_entry_that_is_not_durable_changes_nothing_of_what_is_kept() -> None:
    """The outcome is on its way when the state is saved, and lost with the power."""
    storage = created()
    ledger = notes(storage, Notes())
    ledger.entry("note.made", ACTOR, {"keep": "opens"}).wait(PATIENCE_S)
    with ledger.turn():
        outcome = ledger.entry("note.made", ACTOR, {"keep": "closes", "intent": 1})
        ledger.durable.sign()
        left = MemoryStorage()
        left.files, left.cache = dict(storage.files), bytearray(storage.content())
        left.disk = bytearray(left.cache)
    outcome.wait(PATIENCE_S)
    ledger.close()
    assert RESUME in left.files
    assert shown(left) == [1]


def test_without_a_keeper_it_is_read_on_too_and_the_resume_stands() -> None:
    storage = written({"keep": "forever"}, *PLAIN)
    before = storage.files[RESUME]
    opened(storage, whole_bytes=0).close()
    assert storage.files[RESUME] == before


def test_who_wants_every_entry_is_shown_every_one() -> None:
    storage = written(*PLAIN)
    seen: list[int] = []
    opened(storage, whole_bytes=0, visit=lambda entry: seen.append(entry.seq)).close()
    assert seen == list(range(21))


# --- what may not be believed


def everything(storage: MemoryStorage, caplog: pytest.LogCaptureFixture, why: str, **options: Any) -> None:
    """Every entry is read, and the log says why."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "immured"):
        assert shown(storage, **options) == list(range(22))
    assert why in caplog.text
    assert shown(storage) == [1], "it was made anew"


@pytest.fixture
def good() -> MemoryStorage:
    return written({"keep": "forever"}, *PLAIN)


def again(storage: MemoryStorage, change: Callable[[dict[str, Any]], None], key: Ed25519PrivateKey = KEY) -> None:
    """The resume, with something else in it, signed by that key."""
    told = Resume.decode(storage.files[RESUME], vkeys(storage))
    fields = {name: getattr(told, name) for name in Resume.__slots__}
    change(fields)
    storage.files[RESUME] = Resume(**fields).encode(key)


def test_one_that_somebody_else_signed(good: MemoryStorage, caplog: pytest.LogCaptureFixture) -> None:
    again(good, lambda _: None, Ed25519PrivateKey.generate())
    everything(good, caplog, "no key of the ledger's signed it")


def test_one_by_other_rules(good: MemoryStorage, caplog: pytest.LogCaptureFixture) -> None:
    again(good, lambda fields: fields.update(rules="notes/0"))
    everything(good, caplog, "another version wrote it")


def test_one_whose_checkpoint_is_gone(good: MemoryStorage, caplog: pytest.LogCaptureFixture) -> None:
    del good.files[f"checkpoints/{file_name(22)}"]
    everything(good, caplog, "the checkpoint of its size")


def test_one_that_ends_elsewhere(good: MemoryStorage, caplog: pytest.LogCaptureFixture) -> None:
    again(good, lambda fields: fields.update(end=fields["end"] - 1))
    everything(good, caplog, "entry 21: not JSON")


def test_one_of_another_line(good: MemoryStorage, caplog: pytest.LogCaptureFixture) -> None:
    again(good, lambda fields: fields.update(leaf=bytes(32)))
    everything(good, caplog, "is not the one that it knows")


def test_one_that_needs_a_line_which_is_not_there(good: MemoryStorage, caplog: pytest.LogCaptureFixture) -> None:
    told = Resume.decode(good.files[RESUME], vkeys(good))
    altered = told.kept.says[:-1] + bytes([told.kept.says[-1] ^ 1])
    again(good, lambda fields: fields.update(kept=type(told.kept)(0, b"", {}, altered, b"", {})))
    everything(good, caplog, "entry 1 is not the one that it knows")


def test_one_of_another_tree(good: MemoryStorage, caplog: pytest.LogCaptureFixture) -> None:
    def change(fields: dict[str, Any]) -> None:
        tree = fields["tree"].copy()
        fields["tree"] = type(tree).resumed(22, [bytes(32), *tree.roots()[1:]])

    again(good, change)
    everything(good, caplog, "its tree is not the one")


def test_every_byte_of_it_counts(good: MemoryStorage) -> None:
    content = good.files[RESUME]
    keys = vkeys(good)
    for at in range(len(content)):
        for flipped in (1, 0x80):
            bad = content[:at] + bytes([content[at] ^ flipped]) + content[at + 1 :]
            with pytest.raises(UnusableError):
                Resume.decode(bad, keys)


def test_nothing_that_is_none_is_taken_for_one(good: MemoryStorage) -> None:
    chance = random.Random(1)
    keys = vkeys(good)
    made: list[Any] = [b"", b"\xc0", b"\x93\xc0\xc0\xc0", msgpack.packb([b"", b"", b""]), msgpack.packb({}), b"\x81"]
    made += [chance.randbytes(chance.randrange(64)) for _ in range(500)]
    for content in made:
        with pytest.raises(UnusableError):
            Resume.decode(content, keys)


def test_a_signed_one_of_other_fields_is_none() -> None:
    from immured.wire.envelope import pae

    told = msgpack.packb({"origin": "x"})
    signed = KEY.sign(pae("application/vnd.immured.ledger-resume.v1", told))
    with pytest.raises(UnusableError, match="another version"):
        Resume.decode(msgpack.packb([told, signed, b""]), [signer("x").verifier])
    checkpoint_like = KEY.sign(told)
    with pytest.raises(UnusableError, match="no key"):
        Resume.decode(msgpack.packb([told, checkpoint_like, b""]), [signer("x").verifier])


# --- and damage


@pytest.mark.parametrize("whole_bytes", [0, 1 << 20])
def test_damage_after_it_refuses_and_names_the_line(whole_bytes: int) -> None:
    storage = written(*PLAIN)
    ledger = opened(storage)
    for _ in range(5):
        ledger.entry("note.made", ACTOR, {}).wait(PATIENCE_S)
    ledger.close()
    assert storage.cache is not None
    start = storage.content().rfind(b'"seq":23') + 10
    storage.cache[start] ^= 1
    with pytest.raises(ConfigurationError, match=r"line 24 \(seq 23\)"):
        shown(storage, whole_bytes=whole_bytes)


def test_damage_before_it_refuses_where_the_ledger_is_small() -> None:
    storage = written(*PLAIN)
    assert storage.cache is not None
    storage.cache[storage.content().find(b'"seq":5,') + 20] ^= 1
    with pytest.raises(ConfigurationError, match=r"line 6 \(seq 5\)"):
        shown(storage, whole_bytes=1 << 20)


def test_lines_that_are_gone_are_missed() -> None:
    storage = written(*PLAIN)
    whole = storage.content()
    storage.truncate(whole.find(b'"seq":9,') - 7)
    with pytest.raises(ConfigurationError, match="21, as a checkpoint says"):
        shown(storage)


def test_a_torn_tail_after_it_is_set_aside_and_recorded_once() -> None:
    storage = written(*PLAIN)
    assert storage.cache is not None
    storage.cache += b'{"v":1,"seq":21'
    for _ in range(3):
        shown(storage)
    entries: list[Entry] = []
    assert scan(storage, storage.size(), {}, entries.append).problem is None
    assert [entry.type for entry in entries if entry.type == "ledger.recovered"] == ["ledger.recovered"]


def test_what_can_not_be_written_keeps_nothing_from_going_on(caplog: pytest.LogCaptureFixture) -> None:
    mended: list[bool] = []

    def fail(operation: str) -> None:
        if operation == f"write_whole {RESUME}" and not mended:
            raise OSError(28, "No space left on device")

    storage = created(fail)
    ledger = notes(storage, Notes())
    with caplog.at_level(logging.WARNING, "immured"):
        ledger.entry("note.made", ACTOR, {}).wait(PATIENCE_S)
        with ledger.turn():
            assert ledger.durable.sign()
    assert "resume cannot be written: No space" in caplog.text
    mended.append(True)
    ledger.entry("note.made", ACTOR, {}).wait(PATIENCE_S)
    ledger.close()
    assert shown(storage) == []


def test_it_is_written_by_a_thread_of_its_own_and_at_most_so_often() -> None:
    made: list[int] = []
    storage = created(lambda operation: made.append(1) if operation == f"write_whole {RESUME}" else None)
    ledger = notes(storage, Notes(), pace=Pace(entries=50, seconds=1e9), checkpoint_entries=1)
    ledger.durable.pause = 0.0
    for _ in range(200):
        ledger.entry("note.made", ACTOR, {}).wait(PATIENCE_S)
    ledger.close()
    assert 2 <= len(made) <= 5
