"""A batch as the client asks for it, and as it reads what comes."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from immured.client.batch_questions import MAX_RUNS, Part, Reader, parts
from immured.client.errors import Refusal, StreamMismatch, UntrustedReply
from immured.errors import Refused
from immured.wire.frames import MAX_FRAME, encode_frame
from immured.wire.messages import Command, Data, Receipt, Reply
from immured.wire.strict_msgpack import pack

LEAF = b"\1" * 32
RECEIPT = {"seq": 7, "leaf": LEAF}
PART = Part({}, 100, 3)
HEAD = {"batch": "b1", "runs": 3, "intent": {"seq": 1, "leaf": LEAF}, "enforcement": {"memory": "cgroup"}}


def record(run: int, **more: object) -> dict[str, object]:
    return {"run": run, "sandbox": "s1", "cause": "exited", "exit_code": 0, "receipt": RECEIPT, **more}


def stream(*records: dict[str, object]) -> bytes:
    return b"".join(encode_frame(pack(one)) for one in records)


def reply_to(data: bytes, **more: object) -> Reply:
    results = {"length": len(data), "sha256": hashlib.sha256(data).digest()}
    result = {"batch": "b1", "runs": 3, "causes": {"exited": 3}, "streams": {"results": results}, **more}
    return Reply(ok=True, result=result, receipt=Receipt(9, LEAF), intent=Receipt(1, LEAF))


def given(reader: Reader, data: bytes, size: int = 65_536) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = []
    for start in range(0, len(data), size):
        found += reader.data(Data(b"n" * 16, "results", data[start : start + size]))
    return found


@pytest.mark.parametrize("size", [1, 7, 65_536])
def test_results_are_given_once_whole_however_they_are_cut(size: int) -> None:
    data, reader = stream(HEAD, record(2), record(0, stdout=b"x", enforcement={"memory": "rlimit"})), Reader(PART)
    (second, first) = given(reader, data, size)
    assert (second[0], first[0]) == (102, 100)
    assert (first[1].stdout, first[1].enforcement, second[1].enforcement) == (
        b"x", {"memory": "rlimit"}, {"memory": "cgroup"}
    )  # fmt: skip
    assert (first[1].receipt.seq, first[1].intent.seq) == (7, 1)
    assert reader.finish(reply_to(data)).causes == {"exited": 3}


def test_a_large_file_comes_before_its_record_and_is_checked() -> None:
    digest = hashlib.sha256(b"file").digest()
    streams = {"file:/a:b": {"length": 4, "sha256": digest}}
    for sent, fine in ((b"file", True), (b"life", False)):
        reader = Reader(PART)
        reader.data(Data(b"n" * 16, "1:file:/a:b", sent))
        data = stream(HEAD, record(1, streams=streams))
        if fine:
            assert given(reader, data)[0][1].files == {"/a:b": b"file"}
        else:
            with pytest.raises(StreamMismatch):
                given(reader, data)


def test_what_is_not_signed_is_not_believed() -> None:
    data = stream(HEAD, record(0))
    for signed in (data[:-1], data + b"x", b""):
        reader = Reader(PART)
        given(reader, data)
        with pytest.raises(StreamMismatch):
            reader.finish(reply_to(signed))


@pytest.mark.parametrize(
    "data",
    [
        (MAX_FRAME + 1).to_bytes(4, "big"),
        encode_frame(b"\xc1"),
        encode_frame(pack([1])),
        stream({"batch": "b1"}),
        stream(HEAD, {"run": 0}),
        stream(HEAD, record(3)),
        stream(HEAD, {**record(0), "receipt": {"seq": 1}}),
        stream(HEAD, record(0, cause=1)),
    ],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(UntrustedReply):
        given(Reader(PART), data)


def test_a_refusal_is_raised() -> None:
    with pytest.raises(Refusal, match="full"):
        Reader(PART).finish(Reply.refusal(Refused("busy", "full", "later")))


def test_a_run_is_words_or_a_map_and_shared_fields_stand_once() -> None:
    (part,) = parts([["a", b"\xff"], {"stdin": b"x"}], argv=["cat"], limits={"cpus": 1.5}, concurrency=3)
    assert part.args == {
        "argv": ["cat"], "limits": {"cpus": "1.5"}, "concurrency": 3,
        "runs": [{"argv": ["a", b"\xff"]}, {"stdin": b"x"}],
    }  # fmt: skip


def test_parts_are_commands_that_fit_a_frame() -> None:
    many = [{"argv": ["x", str(index)], "stdin": b"y" * (index * 37 % 5000)} for index in range(3000)]
    found = list(parts(many, env={"A": "b"}))  # type: ignore[arg-type]
    assert sum(part.runs for part in found) == 3000
    assert [part.first for part in found] == [sum(one.runs for one in found[:n]) for n in range(len(found))]
    for part in found:
        assert part.runs <= MAX_RUNS
        payload = Command("ed25519:" + "f" * 32, "run.batch", part.args, b"n" * 16, 0, 1).to_payload()
        assert len(payload) < MAX_FRAME - 4096


def test_many_words_are_cut_by_their_number_too() -> None:
    found = list(parts([["x"] * 400] * 300))
    assert len(found) > 1
    for part in found:
        pack(part.args)  # raises where there are more values than a command may hold


def test_what_no_daemon_would_understand() -> None:
    with pytest.raises(TypeError, match="shell"):
        list(parts(["/bin/true"]))
    with pytest.raises(TypeError, match="bytes"):
        list(parts([{"argv": ["a"], "stdin": "text"}]))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="share"):
        list(parts([["a"]], stdin=b"x" * 800_000))
    with pytest.raises(TypeError, match="manifest"):
        list(parts([{"argv": ["a"], "manifest": {}}]))  # type: ignore[list-item]
    with pytest.raises(TypeError, match="'limit'"):
        list(parts([{"argv": ["a"], "limit": {}}]))  # type: ignore[list-item]


def test_what_is_filled_in_may_be_all_runs_or_one_runs() -> None:
    runs: list[Any] = [["/bin/true"], {"argv": ["/bin/true"], "parameters": {"n": 2}}]
    [one] = parts(runs, manifest="sha256:0", parameters={"n": 1})
    assert one.args["parameters"] == {"n": 1}
    assert one.args["runs"] == [{"argv": ["/bin/true"]}, {"argv": ["/bin/true"], "parameters": {"n": 2}}]
