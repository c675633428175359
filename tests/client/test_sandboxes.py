"""Sandboxes and execs through both clients, with a daemon that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
from collections.abc import Callable, Mapping

import pytest

from immured import AsyncClient, Client
from immured.client import ConnectionLost, Exec, Refusal, Sandbox, StreamMismatch, Terminal
from immured.client.outcome import Answer
from immured.client.question import Question
from immured.wire.messages import Command
from immured.wire.sockets import EndOfStream
from tests.client.conftest import Serving
from tests.client.peer import USER, Peer, Served, record, result_of
from tests.patience import PATIENCE_S

ID = "s" + "0" * 20
ROW = {"sandbox": ID, "state": "ready", "execs": 0, "created_ms": 1, "expires_ms": 2}
Answers = Callable[[Served, Command], Mapping[str, object] | None]


def client(peer: Peer) -> Client:
    return Client(peer.socket, USER, timeout=PATIENCE_S)


def answering(answers: Mapping[str, object], heard: list[Command]) -> Callable[[Served], None]:
    """Answers every command by its name: with a map, or as a function does that may send data first. None refuses."""

    def script(served: Served) -> None:
        served.hello()
        try:
            while True:
                command, digest, _ = served.command()
                heard.append(command)
                answer = answers.get(command.cmd)
                if callable(answer):
                    answer = answer(served, command)
                if answer is None:
                    served.refuse("not_found", re=command.nonce, req=digest)
                else:
                    assert isinstance(answer, dict)
                    served.reply(command, digest, answer)
        except (EndOfStream, ConnectionError):
            return

    return script


@pytest.fixture
def heard() -> list[Command]:
    return []


def names(heard: list[Command]) -> list[str]:
    return [command.cmd for command in heard]


def test_a_sandbox_is_removed_behind_its_with(serving: Serving, heard: list[Command]) -> None:
    peer = serving(answering({"sandbox.create": {"sandboxes": [ROW]}, "sandbox.remove": {"ended": True}}, heard))
    with client(peer) as connected, connected.sandbox(name="dev") as sandbox:
        assert (sandbox.id, sandbox.facts.state) == (ID, "ready")
    assert names(heard) == ["sandbox.create", "sandbox.remove"]
    assert heard[1].args == {"sandbox": ID}


def test_one_that_is_kept_is_not(serving: Serving, heard: list[Command]) -> None:
    peer = serving(answering({"sandbox.create": {"sandboxes": [ROW]}}, heard))
    with client(peer) as connected, connected.sandbox(keep=True):
        pass
    assert names(heard) == ["sandbox.create"]


def test_one_that_is_gone_already_is_no_error(serving: Serving, heard: list[Command]) -> None:
    peer = serving(answering({"sandbox.create": {"sandboxes": [ROW]}}, heard))
    with client(peer) as connected, connected.sandbox():
        pass
    assert names(heard) == ["sandbox.create", "sandbox.remove"]


def test_what_goes_wrong_inside_is_what_is_raised(serving: Serving, heard: list[Command]) -> None:
    with (
        client(serving(answering({"sandbox.create": {"sandboxes": [ROW]}}, heard))) as connected,
        pytest.raises(ZeroDivisionError),
        connected.sandbox(),
    ):
        raise ZeroDivisionError


def test_pages_are_followed_to_the_last(serving: Serving, heard: list[Command]) -> None:
    def page(_: Served, command: Command) -> Mapping[str, object]:
        if "after" not in command.args:
            return {"sandboxes": [ROW], "next": "x"}
        return {"sandboxes": [{**ROW, "sandbox": "s2"}]}

    with client(serving(answering({"sandbox.list": page}, heard))) as connected:
        assert [one.id for one in connected.sandboxes(labels={"a": "b"})] == [ID, "s2"]
    assert [dict(command.args) for command in heard] == [{"labels": {"a": "b"}}, {"labels": {"a": "b"}, "after": "x"}]


def test_an_exec_is_a_run_in_a_sandbox(serving: Serving, heard: list[Command]) -> None:
    said = result_of(stdout=b"hi", streams={"stdout": record(b"hi"), "stderr": record(b"")}, exec="e1")
    with client(serving(answering({"sandbox.exec": said}, heard))) as connected:
        result = connected.at("dev").exec(["echo", "hi"], env={"A": "1"}, limits={"memory": "1M"})
    assert (result.stdout, result.exec, result.ok) == (b"hi", "e1", True)
    assert heard[0].args == {"sandbox": "dev", "argv": ["echo", "hi"], "env": {"A": "1"}, "limits": {"memory": "1M"}}


def on_terminal(served: Served, command: Command) -> Mapping[str, object]:
    served.data(command, "exec", b"e7")
    typed = served.data_in().data
    served.data(command, "stdout", b"$ " + typed)
    return result_of(exec="e7", streams={"stdout": record(b"$ " + typed)})


def test_an_exec_says_its_id_before_its_output(serving: Serving, heard: list[Command]) -> None:
    with (
        client(serving(answering({"sandbox.exec": on_terminal}, heard))) as connected,
        connected.at("dev").stream(["sh"], terminal=Terminal(), stdin=io.BytesIO(b"ls")) as run,
    ):
        assert next(iter(run)) == ("stdout", b"$ ls")
        assert run.exec == "e7"


def test_a_state_is_noted(serving: Serving, heard: list[Command]) -> None:
    answers = {"sandbox.show": ROW, "sandbox.pause": {**ROW, "state": "paused"}}
    with client(serving(answering(answers, heard))) as connected:
        sandbox = connected.open("dev")
        sandbox.pause()
        assert sandbox.facts.state == "paused"


BUSY = ("sandbox.exec", "sandbox.pause", "sandbox.resume", "snapshot.save")
SAVED = {
    "name": "n", "sandbox": ID, "manifest": "sha256:0", "created_ms": 1, "bytes": 1, "files": 1, "skipped": 0,
    "places": [],
}  # fmt: skip


def busy_once(heard: list[Command]) -> Callable[[Served], None]:
    """Each of them is refused the first time, for somebody else is at it."""

    def script(served: Served) -> None:
        served.hello()
        with contextlib.suppress(EndOfStream, ConnectionError):
            while True:
                command, digest, _ = served.command()
                first = command.cmd in BUSY and command.cmd not in names(heard)
                heard.append(command)
                if first:
                    served.refuse("busy", re=command.nonce, req=digest)
                else:
                    answer = {"sandbox.exec": result_of(exec="e1"), "snapshot.save": SAVED}.get(command.cmd, ROW)
                    served.reply(command, digest, answer)

    return script


def test_what_somebody_else_is_at_is_tried_again_where_asked(serving: Serving, heard: list[Command]) -> None:
    with client(serving(busy_once(heard))) as connected:
        sandbox = connected.open("dev")
        with pytest.raises(Refusal, match="busy"):
            sandbox.pause()
        heard.clear()
        sandbox.pause(retries=1)
        sandbox.resume(retries=1)
        sandbox.snapshot("n", retries=1)
        assert sandbox.exec(["/bin/true"], retries=1).ok
    twice = ("sandbox.pause", "sandbox.resume", "snapshot.save", "sandbox.exec")
    assert names(heard) == [cmd for cmd in twice for _ in range(2)]
    assert len({command.nonce for command in heard}) == 4  # the same bytes: none acts twice


def test_what_somebody_else_is_at_for_asyncio_too(serving: Serving, heard: list[Command]) -> None:
    async def work(peer: Peer) -> None:
        async with AsyncClient(peer.socket, USER, timeout=PATIENCE_S) as connected:
            sandbox = await connected.open("dev")
            await sandbox.pause(retries=1)
            await sandbox.resume(retries=1)
            await sandbox.snapshot("n", retries=1)

    asyncio.run(work(serving(busy_once(heard))))
    assert names(heard)[1:] == [cmd for cmd in ("sandbox.pause", "sandbox.resume", "snapshot.save") for _ in range(2)]


# -- logs that are followed


class Log:
    """A detached exec's log; the daemon closes the connection after `pieces[n]` bytes of the nth attachment."""

    def __init__(self, output: bytes, cuts: list[int]) -> None:
        self.output, self.cuts, self.asked = output, cuts, list[int]()

    def __call__(self, served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        start = command.args.get("from", 0)
        assert isinstance(start, int)
        self.asked.append(start)
        served.data(command, "from", str(start).encode())
        cut = self.cuts[served.number - 1] if served.number <= len(self.cuts) else None
        piece = self.output[start : None if cut is None else start + cut]
        if piece:
            served.data(command, "stdout", piece)
        if cut is None:
            served.reply(
                command, digest, result_of(exec="e1", streams={"stdout": record(piece), "stderr": record(b"")})
            )


def test_a_log_is_taken_up_again_where_it_was_lost(serving: Serving) -> None:
    log = Log(b"0123456789", [3, 0, 4])
    with client(serving(log)) as connected:
        following = connected.at("dev").find("e1").follow()
        assert b"".join(data for _, data in following) == b"0123456789"
        assert following.result.ok
    assert log.asked == [0, 3, 3, 7]


def test_a_log_that_is_lost_too_often_is_given_up(serving: Serving) -> None:
    log = Log(b"0123456789", [0] * 9)
    with client(serving(log)) as connected, pytest.raises(ConnectionLost):
        list(connected.at("dev").find("e1").follow(retries=2))
    assert len(log.asked) == 3


def test_where_the_log_has_lost_something_the_daemon_says_so(serving: Serving) -> None:
    asked = []

    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        asked.append(command.args.get("from", 0))
        if served.number == 1:
            served.data(command, "from", b"100")
            served.data(command, "stdout", b"abc")
            return
        served.reply(command, digest, result_of(streams={"stdout": record(b""), "stderr": record(b"")}))

    with client(serving(script)) as connected:
        assert list(connected.at("dev").find("e1").follow()) == [("stdout", b"abc")]
    assert asked == [0, 103]


def test_the_end_of_an_exec_is_waited_for_across_connections(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        assert command.args["output"] is False
        if served.number > 2:
            served.reply(command, digest, result_of(exit_code=5, streams={}))

    with client(serving(script)) as connected:
        assert connected.at("dev").find("e1").wait().exit_code == 5


def test_an_exec_that_is_not_there_is_not_waited_for(serving: Serving, heard: list[Command]) -> None:
    with client(serving(answering({}, heard))) as connected, pytest.raises(Refusal, match="not_found"):
        connected.at("dev").find("e1").wait()
    assert len(heard) == 1


# -- what travels as data with any command

LOAD = b"".join(bytes([n]) * 1000 for n in range(200))


def stored(said: Answer) -> object:
    return said.result["length"]


def put(load: bytes) -> Question[object]:
    return Question("file.put", {"path": "/x"}, stored, source=load, into="data")


def get() -> Question[object]:
    return Question("file.get", {"path": "/x"}, stored, streamed=frozenset({"data"}))


def takes(served: Served, command: Command) -> Mapping[str, object]:
    found = b""
    while (data := served.data_in()).data:
        assert data.stream == "data"
        found += data.data
        served.data(command, "progress", str(len(found)).encode())
    return {"length": len(found), "sha256": hashlib.sha256(found).digest()}


def gives(served: Served, command: Command) -> Mapping[str, object]:
    for start in range(0, len(LOAD), 65_536):
        served.data(command, "data", LOAD[start : start + 65_536])
    served.data(command, "data", b"")
    return {"length": len(LOAD), "streams": {"data": record(LOAD)}}


def lies(served: Served, command: Command) -> Mapping[str, object]:
    served.data(command, "data", LOAD[:1000])
    return {"length": len(LOAD), "streams": {"data": record(LOAD)}}


TRANSFERS: Mapping[str, object] = {"file.put": takes, "file.get": gives}


def test_a_source_travels_as_data(serving: Serving, heard: list[Command]) -> None:
    told = list[int]()
    with client(serving(answering(TRANSFERS, heard))) as connected:
        assert connected.ask(put(LOAD), progress=told.append) == len(LOAD)
    assert max(told) == len(LOAD)


def test_what_comes_as_data_is_given_on_and_checked(serving: Serving, heard: list[Command]) -> None:
    got = bytearray()
    with client(serving(answering(TRANSFERS, heard))) as connected:
        assert connected.ask(get(), sink=lambda _, data: got.extend(data)) == len(LOAD)
    assert got == LOAD


def test_data_that_is_not_what_is_signed_is_an_error(serving: Serving, heard: list[Command]) -> None:
    lying: Mapping[str, object] = {"file.get": lies}
    with client(serving(answering(lying, heard))) as connected, pytest.raises(StreamMismatch):
        connected.ask(get())


def test_the_same_for_asyncio(serving: Serving, heard: list[Command]) -> None:
    answers = {
        **TRANSFERS, "sandbox.create": {"sandboxes": [ROW]}, "sandbox.remove": {}, "sandbox.exec": result_of(exec="e1"),
    }  # fmt: skip
    got = bytearray()

    async def sink(_: str, data: bytes) -> None:
        await asyncio.sleep(0)
        got.extend(data)

    async def work(peer: Peer) -> None:
        async with AsyncClient(peer.socket, USER, timeout=PATIENCE_S) as connected:
            assert await connected.ask(put(LOAD)) == len(LOAD)
            assert await connected.ask(get(), sink=sink) == len(LOAD)
            async with await connected.sandbox() as sandbox:
                assert (await sandbox.exec(["/bin/true"])).exec == "e1"

    asyncio.run(work(serving(answering(answers, heard))))
    assert got == LOAD
    assert names(heard)[-3:] == ["sandbox.create", "sandbox.exec", "sandbox.remove"]


def test_a_log_is_taken_up_again_for_asyncio_too(serving: Serving) -> None:
    log = Log(b"0123456789", [3, 0, 4])

    async def work(peer: Peer) -> bytes:
        async with AsyncClient(peer.socket, USER, timeout=PATIENCE_S) as connected:
            following = connected.at("dev").find("e1").follow()
            found = b"".join([data async for _, data in following])
            assert (await following.result()).ok
            return found

    assert asyncio.run(work(serving(log))) == b"0123456789"
    assert log.asked == [0, 3, 3, 7]


def test_they_show_what_they_are(serving: Serving, heard: list[Command]) -> None:
    with client(serving(answering({"sandbox.show": {**ROW, "name": "dev"}}, heard))) as connected:
        sandbox = connected.open("dev")
        assert (repr(sandbox), repr(Exec(sandbox, "e1"))) == ("Sandbox(dev, ready)", "Exec(e1 in dev)")
        assert isinstance(sandbox, Sandbox)
