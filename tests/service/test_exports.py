"""What the broker makes of its exporters: an order at a time, what they say and do not say; the ledger is told once."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from immured.ledger import Ledger, create
from immured.ledger.exports.place import Place
from immured.service import exports as module
from immured.service.exporting import Exporter
from immured.service.exports import Export, ExportHistory, Exports
from tests.entries import entries_in
from tests.patience import PATIENCE_S

ACTOR = {"daemon": "ed25519:" + "0" * 32}
GOOD = {"op": "copy", "done": True, "entries": 0, "bytes": 0, "began": False}


class Scene:
    """A real ledger, and exports whose exporter is the test itself, at the other end of the socket."""

    def __init__(self, place: Path, exports: Exports, ledger: Ledger, theirs: socket.socket) -> None:
        self.place, self.exports, self.ledger, self.theirs = place, exports, ledger, theirs
        self.one: Export = exports.all[0]

    async def order(self) -> dict[str, Any]:
        """The next one that the broker gives."""
        body = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.theirs, 1 << 16), PATIENCE_S)
        said: dict[str, Any] = msgpack.unpackb(body)
        return said

    async def none(self) -> None:
        """That it gives none."""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.theirs, 1 << 16), 0.1)

    def answer(self, **said: object) -> None:
        self.theirs.send(msgpack.packb(said))

    def copied(self, order: dict[str, Any], *, began: bool = False) -> None:
        self.answer(op="copy", done=True, entries=order["size"], bytes=order["end"], began=began)

    def told(self) -> list[str]:
        return [
            line["type"] + (" " + line["data"]["code"] if "code" in line["data"] else "")
            for line in entries_in(self.place)
            if line["type"].startswith("export.")
        ]

    async def until(self, so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not so():  # noqa: ASYNC110 - what is waited for is partly a file's content
                await asyncio.sleep(0.01)


@asynccontextmanager
async def scene(place: Path, history: ExportHistory | None = None, *, every_ms: int = 0) -> AsyncIterator[Scene]:
    create(place, ACTOR["daemon"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    with Ledger.open(place, checkpoint_seconds=0.05) as ledger:
        exporter = Exporter(Place("/mnt/audit", every_ms=every_ms), ours, os.getpid())
        exports = Exports([exporter], ledger, lambda: ACTOR, history or ExportHistory(), b"vkeys")
        exports.start()
        try:
            yield Scene(place, exports, ledger, theirs)
        finally:
            theirs.close()
            exporter.close()
            asyncio.get_running_loop().remove_reader(ours.fileno()) if ours.fileno() >= 0 else None


def run(
    place: Path,
    test: Callable[[Scene], Awaitable[None]],
    history: ExportHistory | None = None,
    *,
    every_ms: int = 0,
) -> None:
    async def whole() -> None:
        async with scene(place, history, every_ms=every_ms) as made:
            await test(made)

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    # Long is what no test waits for, unless it is about that.
    for name in ("_SILENCE_S", "_STOP_S", "PROBE_S"):
        monkeypatch.setattr(module, name, PATIENCE_S)
    monkeypatch.setattr(module, "_RETRY_S", 0.2)


def test_the_first_order_has_all_that_is_signed(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        order = await made.order()
        size = (tmp_path / "ledger/current.jsonl").stat().st_size
        assert (order["op"], order["size"], order["end"], order["begun"], order["vkeys"]) == (
            *("copy", 1, size, False),
            b"vkeys",
        )
        made.copied(order, began=True)
        await made.until(lambda: made.told() == ["export.began"])

    run(tmp_path, test)


def test_heads_that_come_meanwhile_are_one_order(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        order = await made.order()
        for number in range(5):
            made.ledger.entry("command.denied", ACTOR, {"number": number}).wait()
            signed = made.ledger.status().entries
            await made.until(lambda signed=signed: made.ledger.status().checkpoint >= signed)  # type: ignore[misc]
        made.copied(order, began=True)
        following = await made.order()
        assert following["size"] >= 6

    run(tmp_path, test)


def test_silence_is_a_failure_and_an_answer_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SILENCE_S", 0.3)

    async def test(made: Scene) -> None:
        order = await made.order()
        await made.until(lambda: made.told() == ["export.failed export_silent"])
        monkeypatch.setattr(module, "_SILENCE_S", PATIENCE_S)  # the next order is not answered either
        await made.none()  # whoever does not answer is not asked again
        assert made.one.failure is not None
        made.copied(order, began=True)
        await made.until(lambda: made.told()[1:] == ["export.began", "export.recovered"])
        assert made.one.failure is None

    run(tmp_path, test)


def test_pieces_of_a_copy_are_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "_SILENCE_S", 0.3)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))

    async def test(made: Scene) -> None:
        nonlocal now
        order = await made.order()
        for _ in range(12):
            now += 0.25
            made.answer(at="copy")
            await made.until(lambda at=now: made.one.heard == at)  # type: ignore[misc]
        await asyncio.sleep(0.4)  # it is looked at whether it said anything
        assert made.one.failure is None
        assert await made.exports.probe(made.one) is None
        now += 0.35
        await made.until(lambda: made.told() == ["export.failed export_silent"])
        made.copied(order, began=True)

    run(tmp_path, test)


def test_a_failure_is_told_once_and_tried_again(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        for _ in range(3):
            order = await made.order()
            made.answer(op="copy", code="export_unreachable", message="full", remedy="")
        order = await made.order()
        made.copied(order, began=True)
        await made.until(lambda: made.told()[-1:] == ["export.recovered"])
        assert made.told() == ["export.failed export_unreachable", "export.began", "export.recovered"]

    run(tmp_path, test)


def test_what_is_wrong_with_the_copy_itself_is_told_after_what_was_wrong_with_its_place(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        for code in ("export_unreachable", "export_differs", "export_differs"):
            await made.order()
            made.answer(op="copy", code=code, message="x", remedy="")
        await made.order()
        made.ledger.entry("test.flushed", ACTOR, {}).wait(PATIENCE_S)
        assert made.told() == ["export.failed export_unreachable", "export.failed export_differs"]

    run(tmp_path, test)


def test_many_who_ask_share_one_probe(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        made.copied(await made.order(), began=True)
        await made.until(lambda: made.told() == ["export.began"] and not made.one.op)
        asked = [asyncio.create_task(made.exports.probe(made.one, PATIENCE_S)) for _ in range(10)]
        while (order := await made.order())["op"] == "copy":
            made.copied(order)
        assert order["op"] == "probe"
        made.answer(op="probe", code="export_unreachable", message="full", remedy="")
        found = await asyncio.gather(*asked)
        assert {one.code for one in found if one is not None} == {"export_unreachable"}
        assert None not in found

    run(tmp_path, test)


def test_a_probe_that_is_not_answered_ends_by_its_deadline(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        await made.order()
        failure = await made.exports.probe(made.one, 0.1)
        assert failure is not None
        assert failure.code == "export_silent"

    run(tmp_path, test)


def test_an_exporter_that_is_gone_is_said(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        await made.order()
        made.theirs.close()
        await made.until(lambda: made.told() == ["export.failed export_ended"])
        failure = await made.exports.probe(made.one)
        assert failure is not None
        assert failure.code == "export_ended"

    run(tmp_path, test)


def test_what_the_last_daemon_left_failed_is_recovered(tmp_path: Path) -> None:
    history = ExportHistory()
    history.begun, history.failed = {"/mnt/audit"}, {"/mnt/audit": 7}

    async def test(made: Scene) -> None:
        order = await made.order()
        assert order["begun"]
        made.copied(order)
        await made.until(lambda: made.told() == ["export.recovered"])

    run(tmp_path, test, history)


def test_at_the_end_what_fails_is_tried_once_more_and_no_oftener(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", PATIENCE_S)

    async def test(made: Scene) -> None:
        await made.order()
        made.answer(op="copy", code="export_unreachable", message="full", remedy="")
        await made.until(lambda: made.one.again is not None)
        made.ledger.close()
        ending = asyncio.create_task(made.exports.finish())
        await made.order()
        made.answer(op="copy", code="export_unreachable", message="full", remedy="")
        await asyncio.wait_for(ending, PATIENCE_S)
        assert made.theirs.recv(1 << 16) == b""  # no order came after that, but its end

    run(tmp_path, test)


def test_at_the_end_the_rest_is_copied_and_who_is_silent_is_not_waited_for(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        made.copied(await made.order(), began=True)
        await made.until(lambda: made.told() == ["export.began"])
        made.ledger.close()
        ending = asyncio.create_task(made.exports.finish())
        order = await made.order()
        while order["size"] < made.ledger.status().entries:
            made.copied(order)
            order = await made.order()
        made.copied(order)
        await asyncio.wait_for(ending, PATIENCE_S)
        assert made.one.entries == made.ledger.status().entries

    run(tmp_path, test)


def test_a_destination_is_not_copied_to_more_often_than_it_is_to_be(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        made.copied(await made.order(), began=True)
        await made.until(lambda: made.exports.held() is not None and made.one.copied)
        assert made.exports.held() == 1
        made.ledger.entry("command.denied", ACTOR, {"code": "x", "message": "y"})
        await made.until(lambda: made.ledger.status().checkpoint > 1)
        await made.none()
        assert made.one.due > 0
        made.one.due = 0.0
        made.exports._hurry(made.one)  # as a preflight, or the time, does
        order = await made.order()
        assert (order["op"], order["size"] > 1) == ("copy", True)

    run(tmp_path, test, every_ms=3_600_000)


def test_when_the_daemon_stops_what_is_not_due_yet_is_copied(tmp_path: Path) -> None:
    async def test(made: Scene) -> None:
        made.copied(await made.order(), began=True)
        await made.until(lambda: made.one.copied)
        made.ledger.entry("command.denied", ACTOR, {"code": "x", "message": "y"})
        await made.until(lambda: made.ledger.status().checkpoint > 1)
        await made.none()
        made.ledger.close()
        finishing = asyncio.create_task(made.exports.finish())
        made.copied(await made.order())
        await finishing

    run(tmp_path, test, every_ms=3_600_000)
