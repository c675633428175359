"""What the broker makes of its witnesses: rounds, what is written, what the ledger is told; a collector that lies."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.ledger import Ledger, create
from immured.ledger.checkpoint import Cosigner, Witnessed, open_witnessed
from immured.ledger.keys import load_vkeys
from immured.ledger.witness_link import Address
from immured.service import witnesses as module
from immured.service.offshoot import Offshoot
from immured.service.witness_places import WitnessPlace
from immured.service.witnesses import Witnesses, WitnessHistory
from tests.entries import entries_in
from tests.patience import PATIENCE_S

ACTOR = {"daemon": "ed25519:" + "0" * 32}
NOW = 1_800_000_000


class Collector:
    """The process that asks a witness, which here is the test, and the witness's key, which the test has too."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self.cosigner = Cosigner(key, f"witness.example/{name}")
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.theirs.setblocking(False)
        place = WitnessPlace(name, "http://w", Address("http", "w", 80, ""), self.cosigner.verifier)
        self.pair = (place, Offshoot(name, ours, os.getpid()))

    async def order(self) -> dict[str, Any]:
        body = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.theirs, 1 << 17), PATIENCE_S)
        said: dict[str, Any] = msgpack.unpackb(body)
        return said

    async def none(self) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.theirs, 1 << 17), 0.15)

    def answer(self, order: dict[str, Any], **said: object) -> None:
        self.theirs.send(msgpack.packb({"op": "cosign", "size": order["size"], **said}))

    def fail(self, order: dict[str, Any], code: str = "witness_unreachable", **more: object) -> None:
        self.answer(order, code=code, message=f"{code} it is", remedy="see to it", **more)


class Scene:
    def __init__(self, place: Path, witnesses: Witnesses, ledger: Ledger, collectors: list[Collector]) -> None:
        self.place, self.witnesses, self.ledger = place, witnesses, ledger
        self.one, self.two = collectors

    def note(self, size: int, folder: str = "witnessed") -> bytes:
        return (self.place / "ledger" / folder / f"{size:020d}").read_bytes()

    def cosign(self, collector: Collector, order: dict[str, Any]) -> None:
        text = self.note(order["size"], "checkpoints").partition(b"\n\n")[0] + b"\n"
        collector.answer(order, line=collector.cosigner.line(text, NOW), time_s=NOW)

    def witnessed(self, size: int, require: int) -> Witnessed:
        keys = [one.cosigner.verifier for one in (self.one, self.two)]
        return open_witnessed(self.note(size), load_vkeys(self.place / "keys/ledger.vkey"), keys, require)

    def entry(self) -> None:
        self.ledger.entry("daemon.started", ACTOR, {"version": "1"}).wait(PATIENCE_S)

    def told(self, name: str = "w1") -> list[str]:
        return [
            " ".join((line["type"].partition(".")[2], line["data"].get("code", "")))
            for line in entries_in(self.place)
            if line["type"].startswith("witness.") and line["data"]["witness"] == name
        ]

    async def until(self, so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not so():  # noqa: ASYNC110 - what is waited for is partly a file's content
                await asyncio.sleep(0.01)

    async def until_written(self, size: int, require: int) -> None:
        path = self.place / "ledger/witnessed" / f"{size:020d}"
        await self.until(lambda: path.exists() and len(path.read_bytes().splitlines()) >= 5 + require)


@asynccontextmanager
async def scene(place: Path, history: WitnessHistory, keys: list[Ed25519PrivateKey]) -> AsyncIterator[Scene]:
    if not (place / "ledger").exists():
        create(place, ACTOR["daemon"])
    collectors = [Collector(name, key) for name, key in zip(("w1", "w2"), keys, strict=True)]
    with Ledger.open(place, checkpoint_seconds=0.05) as ledger:
        vkeys = (place / "keys/ledger.vkey").read_bytes
        pairs = [one.pair for one in collectors]
        witnesses = Witnesses(pairs, ledger, place / "ledger", lambda: ACTOR, history, vkeys)
        witnesses.start()
        try:
            yield Scene(place, witnesses, ledger, collectors)
        finally:
            for one in collectors:
                one.theirs.close()
            await witnesses.finish()


KEYS = [Ed25519PrivateKey.generate() for _ in range(2)]


def run(place: Path, test: Callable[[Scene], Awaitable[None]], history: WitnessHistory | None = None) -> None:
    async def whole() -> None:
        async with scene(place, history or WitnessHistory(), KEYS) as made:
            await test(made)

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    # Long is what no test waits for, unless it is about that.
    for name, value in {"_SPACING_S": 0.05, "_ROUND_S": 600.0, "_SILENCE_S": 600.0, "_STOP_S": 0.5}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "_RETRY_S", (0.2,))


def test_all_are_asked_for_the_same_and_one_note_has_them_all(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        first, second = await made.one.order(), await made.two.order()
        assert (first["size"], first["known"]) == (second["size"], second["known"]) == (1, 0)
        assert first["vkeys"].encode() == (tmp_path / "keys/ledger.vkey").read_bytes()
        made.cosign(made.one, first)
        await made.until_written(1, 1)
        made.entry()
        await made.one.none()  # the round is not over: the other is to have its say on this one
        made.cosign(made.two, second)
        await made.until_written(1, 2)
        assert made.witnessed(1, 2).checkpoint.size == 1
        third, fourth = await made.one.order(), await made.two.order()
        assert (third["size"], third["known"]) == (fourth["size"], fourth["known"]) == (2, 1)
        assert made.told() == []

    run(tmp_path, test)


def test_a_slow_one_holds_the_others_up_for_a_while_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROUND_S", 0.3)

    async def test(made: Scene) -> None:
        first, slow = await made.one.order(), await made.two.order()
        made.cosign(made.one, first)
        made.entry()
        assert (await made.one.order())["size"] == 2
        made.cosign(made.two, slow)
        assert (await made.two.order())["size"] == 2

    run(tmp_path, test)


def test_what_is_no_cosignature_is_not_written_whoever_says_so(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        order = await made.one.order()
        text = made.note(1, "checkpoints").partition(b"\n\n")[0] + b"\n"
        another = Cosigner(Ed25519PrivateKey.generate(), "witness.example/w1")
        for line in (
            b"",
            b"nothing\n",
            another.line(text, NOW),
            made.two.cosigner.line(text, NOW),
            made.one.cosigner.line(text.replace(b"\n1\n", b"\n2\n"), NOW),
        ):
            made.one.answer(order, line=line, time_s=NOW)
            await made.until(lambda: made.witnesses.all[0].failure is not None)
            assert made.witnesses.to_map()[0]["code"] == "witness_bad_answer"
            made.witnesses.all[0].failure = None
            order = await made.one.order()
        assert not list((tmp_path / "ledger/witnessed").glob("0*"))
        made.cosign(made.one, order)
        await made.until_written(order["size"], 1)
        await made.until(lambda: made.told() == ["failed witness_bad_answer", "recovered "])

    run(tmp_path, test)


def test_a_failure_is_told_once_and_what_comes_after_it(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        for code in ("witness_unreachable", "witness_busy", "witness_unreachable"):
            made.one.fail(await made.one.order(), code)
        await made.until(lambda: made.told() == ["failed witness_unreachable"])
        order = await made.one.order()
        made.cosign(made.one, order)
        await made.until(lambda: made.told() == ["failed witness_unreachable", "recovered "])

    run(tmp_path, test)


def test_another_history_is_an_alarm_beside_what_was_wrong_before(tmp_path: Path) -> None:
    theirs = {"size": 7, "root": bytes(32), "note": b"a note\n"}

    async def test(made: Scene) -> None:
        made.one.fail(await made.one.order())
        made.one.fail(await made.one.order(), "witness_ahead", theirs=theirs)
        made.one.fail(await made.one.order(), "witness_ahead", theirs=theirs)
        made.one.fail(await made.one.order(), "witness_unreachable")
        made.one.fail(await made.one.order(), "witness_forked")
        wanted = ["failed witness_unreachable", "refused witness_ahead", "refused witness_forked"]
        await made.until(lambda: made.told() == wanted)
        lines = [json.loads(line) for line in (tmp_path / "ledger/current.jsonl").read_bytes().splitlines()]
        data = next(line["data"] for line in lines if line["type"] == "witness.refused")
        assert data["theirs"] == {"size": 7, "root": "00" * 32, "note": "a note\n"}

    run(tmp_path, test)


def test_what_was_told_before_a_restart_is_not_told_again(tmp_path: Path) -> None:
    history = WitnessHistory()

    async def fails(made: Scene) -> None:
        made.one.fail(await made.one.order())
        await made.until(lambda: made.told() == ["failed witness_unreachable"])

    async def still(made: Scene) -> None:
        made.one.fail(await made.one.order())
        made.cosign(made.one, await made.one.order())
        await made.until(lambda: made.told() == ["failed witness_unreachable", "recovered "])

    run(tmp_path, fails)
    with Ledger.open(tmp_path) as ledger:
        for entry in ledger.replay():
            if entry.type.startswith("witness."):
                history.visit(entry)
    assert history.told["w1"][1] == "witness_unreachable"
    run(tmp_path, still, history)


def test_where_each_was_is_known_after_a_restart(tmp_path: Path) -> None:
    async def first(made: Scene) -> None:
        made.cosign(made.one, await made.one.order())
        await made.until_written(1, 1)
        made.entry()

    async def second(made: Scene) -> None:
        one, two = await made.one.order(), await made.two.order()
        assert (one["known"], two["known"]) == (1, 0)
        assert [shown.get("cosigned_ms") for shown in made.witnesses.to_map()] == [NOW * 1000, None]

    run(tmp_path, first)
    run(tmp_path, second)


def test_one_that_says_nothing_is_told_and_heard_when_it_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SILENCE_S", 0.4)

    async def test(made: Scene) -> None:
        order = await made.one.order()
        await made.until(lambda: "failed witness_silent" in made.told())
        made.cosign(made.one, order)
        await made.until_written(1, 1)
        await made.until(lambda: "recovered " in made.told())

    run(tmp_path, test)


def test_one_whose_process_ended_is_asked_no_more(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        made.one.theirs.close()
        made.cosign(made.two, await made.two.order())
        await made.until(lambda: "failed witness_ended" in made.told())
        made.entry()
        assert (await made.two.order())["size"] >= 2

    run(tmp_path, test)


def test_whoever_asks_has_one_that_failed_tried_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", (600.0,))

    async def test(made: Scene) -> None:
        made.one.fail(await made.one.order())
        await made.until(lambda: made.witnesses.all[0].failure is not None)
        asked = asyncio.ensure_future(made.witnesses.settle(made.witnesses.all[0], PATIENCE_S))
        made.cosign(made.one, await made.one.order())
        assert await asked is None

    run(tmp_path, test)


def test_the_tree_s_hashes_are_made_anew_where_they_prove_nothing(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        made.one.fail(await made.one.order(), "witness_no_proof")
        await made.until(lambda: made.told() == ["failed witness_no_proof"])
        tree = made.ledger.tree
        assert tree is not None
        assert tree._amiss or tree._retry > 0  # it waits for the next checkpoint, or has begun

    run(tmp_path, test)


def test_one_that_was_not_begun_with_is_not_waited_for(tmp_path: Path) -> None:
    """A start that fails halfway ends at once."""
    create(tmp_path, ACTOR["daemon"])

    async def whole() -> None:
        one = Collector("w1", KEYS[0])
        with Ledger.open(tmp_path) as ledger:
            vkeys = (tmp_path / "keys/ledger.vkey").read_bytes
            unborn = Witnesses([one.pair], ledger, tmp_path / "ledger", lambda: ACTOR, WitnessHistory(), vkeys)
            await unborn.finish()
            assert await asyncio.get_running_loop().sock_recv(one.theirs, 100) == b""
        one.theirs.close()

    asyncio.run(whole())
