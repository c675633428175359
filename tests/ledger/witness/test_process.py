"""The process: several logs at once, killed at any time, besieged by strangers."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from immured.ledger.checkpoint import open_witnessed
from immured.ledger.witness_state import origin_hash
from tests.ledger.witness.logs import Log
from tests.ledger.witness.process import USER, Process, immure, serving
from tests.patience import PATIENCE_S


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="witness-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def witness(place: Path) -> Iterator[Process]:
    with serving(place / "state") as process:
        yield process


def trust(witness: Process, *logs: Log) -> None:
    file = witness.state.with_name("some.vkey")
    file.write_text("".join(f"{log.vkey}\n" for log in logs))
    done = immure("ledger", "witness", "trust", "--state", str(witness.state), str(file))
    assert done.stdout.split() == list(dict.fromkeys(log.origin for log in logs))


def test_many_logs_are_kept_apart(witness: Process) -> None:
    logs = [Log(f"host-{number}.example/log").grow(5 + number) for number in range(5)]
    assert witness.ask(logs[0].body(0))[0] == 404
    trust(witness, *logs)  # while it serves
    for log in logs:
        status, line = witness.ask(log.body(0))
        assert status == 200
        open_witnessed(log.note() + line, [log.signer.verifier], [witness.key], 1)
    trust(witness, *logs)
    status, shown = witness.request("GET", f"/{origin_hash(logs[3].origin)}/checkpoint")
    assert (status, shown.splitlines()[:2]) == (200, [b"host-3.example/log", b"8"])
    listed = immure("ledger", "witness", "list", "--state", str(witness.state)).stdout
    assert all(log.origin in listed for log in logs)


def test_a_fork_a_rollback_and_a_rewritten_log_are_refused(witness: Process) -> None:
    log = Log().grow(40)
    trust(witness, log)
    assert witness.ask(log.body(0, 20))[0] == 200
    fork, rewritten = log.fork(12, 20), log.fork(0, 40)
    assert witness.ask(fork.body(20))[0] == 422
    assert witness.ask(rewritten.body(20))[0] == 422
    assert witness.ask(rewritten.body(0)) == (409, b"20\n")
    assert witness.ask(log.body(0, 12)) == (409, b"20\n")
    assert witness.ask(log.fork(0, 20).body(20))[0] == 422  # of the very size that it cosigned
    done = immure("ledger", "witness", "list", "--state", str(witness.state), check=False)
    assert (done.returncode, "TWO HISTORIES" in done.stdout) == (1, True)
    assert witness.ask(log.body(20))[0] == 200
    witness.until_said("REFUSED: another tree of size 20 was cosigned")


@pytest.mark.parametrize("rounds", [12])
def test_killed_at_any_time_it_remembers_what_it_cosigned(place: Path, rounds: int) -> None:
    log, chance = Log().grow(4000), random.Random(7)
    witness = Process(place / "state")
    trust(witness, log)
    told = 0
    for _ in range(rounds):
        witness.start()
        ended = threading.Timer(chance.uniform(0.01, 0.25), os.kill, (witness.pid, signal.SIGKILL))
        status, known = witness.ask(log.body(0, 1))
        at = int(known) if status == 409 else 1
        assert at >= told
        assert witness.ask(log.fork(at - 1, 5).body(at))[0] == 422
        begun = at
        try:
            while at < 3999:
                if at == begun + 2 and ended.ident is None:
                    ended.start()
                status, _ = witness.ask(log.body(at, at + 1))
                if status == 429:
                    continue
                assert status == 200
                at = told = at + 1
        except (OSError, HTTPException):
            ended.join()  # it is dead
        finally:
            ended.cancel()
            witness.kill()
    assert told > 20


def test_it_is_nobody_in_particular(witness: Process) -> None:
    if os.geteuid() != 0:
        pytest.skip("what root gives up is seen as root")
    said = Path(f"/proc/{witness.pid}/status").read_text()
    assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}" in said
    assert "CapEff:\t0000000000000000" in said
    assert stat.S_IMODE((witness.state / "witness.pem").stat().st_mode) == 0o600


@pytest.mark.needs_root
def test_as_root_it_does_not_serve(place: Path) -> None:
    words = ("ledger", "witness", "--state", str(place))
    done = immure(*words, "--listen", "127.0.0.1:0", check=False)
    assert (done.returncode, done.stderr.split()[1]) == (1, "witness_as_root:")


def test_two_do_not_serve_from_one_directory(witness: Process) -> None:
    done = immure("ledger", "witness", "--state", str(witness.state), "--listen", "127.0.0.1:0", check=False)
    assert (done.returncode, done.stderr.split()[1]) == (1, "witness_in_use:")


def test_a_key_is_made_once(place: Path) -> None:
    words = ("ledger", "witness", "init", "--state", str(place / "w"), "--name", "w.example/1")
    first = immure(*words).stdout
    assert immure("ledger", "witness", "key", "--state", str(place / "w")).stdout == first
    done = immure(*words, check=False)
    assert (done.returncode, done.stderr.split()[1]) == (1, "witness_exists:")
    assert immure("ledger", "witness", "key", "--state", str(place / "w")).stdout == first


@pytest.mark.parametrize("name", ["", "two words", "a+b", "bell\x07", "x" * 300])
def test_a_name_that_would_be_ambiguous_is_none(place: Path, name: str) -> None:
    done = immure("ledger", "witness", "init", "--state", str(place / "w"), "--name", name, check=False)
    assert (done.returncode, done.stderr.split()[1]) == (1, "bad_witness_name:")


def test_a_file_without_keys_is_not_trusted(witness: Process) -> None:
    file = witness.state.with_name("bad.vkey")
    for text in ("", "# nothing\n", "not a key\n", witness.key.encode() + "\n"):
        file.write_text(text)
        done = immure("ledger", "witness", "trust", "--state", str(witness.state), str(file), check=False)
        assert (done.returncode, done.stderr.split()[1]) == (1, "bad_vkey:"), text


def test_it_stops_when_asked_and_begins_where_it_was(place: Path) -> None:
    log = Log().grow(9)
    witness = Process(place / "state")
    trust(witness, log)
    witness.start()
    assert witness.ask(log.body(0, 4))[0] == 200
    assert witness.stop() == 0
    witness.start()
    assert witness.ask(log.body(4))[0] == 200
    assert witness.stop() == 0


def test_at_a_socket_that_has_a_path(place: Path) -> None:
    witness = Process(place / "state")
    path = place / "w.sock"
    for _ in range(2):  # the second time over what a killed one left
        witness.start(f"unix:{path}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(os.fspath(path))
            client.sendall(b"GET /nowhere HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 404 ")
        witness.kill()


# --- strangers


def test_who_keeps_a_connection_alive_may_ask_again(witness: Process) -> None:
    log = Log().grow(9)
    trust(witness, log)
    with witness.connect() as client:
        for old, size in ((0, 3), (3, 6), (6, 9)):
            body = log.body(old, size)
            client.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert client.recv(4000).startswith(b"HTTP/1.1 200 ")


def test_who_is_slow_is_let_go_and_others_are_served(witness: Process) -> None:
    slow = [witness.connect() for _ in range(40)]
    try:
        for one in slow:
            one.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Le")
        deadline = time.monotonic() + PATIENCE_S
        log = Log().grow(3)
        trust(witness, log)
        assert witness.ask(log.body(0))[0] == 200
        for one in slow:
            one.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                while one.recv(100):
                    pass
            except ConnectionResetError:
                pass
    finally:
        for one in slow:
            one.close()


def test_who_takes_many_connections_takes_no_more(witness: Process) -> None:
    held = [witness.connect() for _ in range(64)]
    try:
        with witness.connect() as one:
            assert one.recv(100).startswith(b"HTTP/1.1 503 ")
    finally:
        for one in held:
            one.close()
    deadline = time.monotonic() + PATIENCE_S
    status = 0
    while status != 404:
        assert time.monotonic() < deadline
        with contextlib.suppress(OSError, HTTPException):  # who is not served is not listened to
            status, _ = witness.request("GET", "/nowhere")


def test_what_is_no_request_ends_the_connection_and_nothing_else(witness: Process) -> None:
    chance = random.Random(3)
    for number in range(120):
        with witness.connect() as client:
            client.settimeout(PATIENCE_S)
            noise = chance.randbytes(chance.randrange(1, 2000)) + (b"\r\n\r\n" if number % 2 else b"\n\n")
            try:
                client.sendall(noise)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1000):
                    pass
            except ConnectionResetError:
                pass
    log = Log().grow(3)
    trust(witness, log)
    assert witness.ask(log.body(0))[0] == 200
    size = len(witness.log.splitlines())
    assert size < 130
    assert all(line.isprintable() for line in witness.log.splitlines())
