"""Asking a witness: what comes of each answer, honest or not, and when it is an alarm."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.ledger.checkpoint import Checkpoint, open_witnessed
from immured.ledger.note_keys import CosignKey
from immured.ledger.witness import Witness
from immured.ledger.witness_client import Cosigned, Response, WitnessError, ask
from immured.ledger.witness_link import MAX_ANSWER, Address, Link
from tests.ledger.witness.logs import Log, consistency, made, root
from tests.patience import PATIENCE_S


class Leaves:
    """A tree by the recursion of RFC 6962."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._leaves = leaves

    def root(self, size: int) -> bytes:
        if size > len(self._leaves):
            raise LookupError(size)
        return root(self._leaves[:size])

    def consistency(self, old: int, new: int) -> list[bytes]:
        if new > len(self._leaves):
            raise LookupError(new)
        return consistency(old, self._leaves[:new])


def sender(witness: Witness, sent: list[str] | None = None) -> Callable[[str, str, bytes], Response]:
    """To a witness of this process."""

    def send(method: str, path: str, body: bytes) -> Response:
        if sent is not None:
            sent.append(f"{method} {body.partition(chr(10).encode())[0].decode() if body else ''}".strip())
        answer = witness.add_checkpoint(body) if method == "POST" else witness.checkpoint(path.split("/")[1])
        return Response(answer.status, answer.body)

    return send


@pytest.fixture
def log() -> Log:
    return Log().grow(40)


@pytest.fixture
def witness(tmp_path: Path, log: Log) -> Witness:
    return made(tmp_path, log)[0]


def asked(witness: Witness, log: Log, size: int, known: int, sent: list[str] | None = None) -> Cosigned:
    key = witness._cosigner.verifier
    return ask(key, log.note(size), [log.signer.verifier], Leaves(log.leaves), known, sender(witness, sent))


def refused(witness: Witness, log: Log, size: int, known: int) -> WitnessError:
    with pytest.raises(WitnessError) as raised:
        asked(witness, log, size, known)
    return raised.value


def test_it_goes_on_from_where_the_witness_is(witness: Witness, log: Log) -> None:
    sent: list[str] = []
    found = asked(witness, log, 8, 0, sent)
    note = log.note(8) + found.line
    key = witness._cosigner.verifier
    assert open_witnessed(note, [log.signer.verifier], [key], 1).cosignatures[0].time_s == found.time_s
    asked(witness, log, 20, 8, sent)
    asked(witness, log, 20, 20, sent)
    assert sent == ["POST old 0", "POST old 8", "POST old 20"]


def test_where_the_witness_is_it_says_itself(witness: Witness, log: Log) -> None:
    sent: list[str] = []
    asked(witness, log, 8, 0)
    asked(witness, log, 20, 0, sent)
    asked(witness, log, 40, 8, sent)
    assert sent == ["POST old 0", "POST old 8", "POST old 8", "POST old 20"]


@pytest.mark.parametrize("size", [35, 40])
def test_a_witness_that_forgot_what_it_cosigned_is_none(tmp_path: Path, witness: Witness, log: Log, size: int) -> None:
    """Its directory was put back from a backup: what it signs now says nothing."""
    asked(witness, log, 8, 0)
    path = tmp_path / "logs" / hashlib.sha256(log.origin.encode()).hexdigest() / "checkpoint"
    older = path.read_bytes()
    asked(witness, log, size, 8)
    path.write_bytes(older)
    error = refused(witness, log, 40, size)
    assert (error.code, error.refused) == ("witness_forgot", False)
    path.unlink()
    assert refused(witness, log, 40, size).code == "witness_forgot"


def test_a_log_that_was_cut_back_is_told_so_with_the_evidence(witness: Witness, log: Log) -> None:
    asked(witness, log, 20, 0)
    for known in (0, 12):
        error = refused(witness, log, 12, known)
        assert (error.code, error.refused) == ("witness_ahead", True)
        assert error.theirs == Checkpoint(log.origin, 20, root(log.leaves[:20]))
        assert error.note.startswith(error.theirs.text())


@pytest.mark.parametrize("at", [0, 7, 19])
def test_a_log_that_was_written_anew_is_told_so_with_the_evidence(witness: Witness, log: Log, at: int) -> None:
    asked(witness, log, 20, 0)
    other = log.fork(at, 40 - at)
    for known in (0, 20):
        error = refused(witness, other, 40, known)
        assert (error.code, error.refused) == ("witness_forked", True)
        assert error.theirs == Checkpoint(log.origin, 20, root(log.leaves[:20]))
    assert refused(witness, other, 20, 20).code == "witness_forked"


def test_who_does_not_know_the_log_or_its_key_says_so(tmp_path: Path, log: Log) -> None:
    nobody, _ = made(tmp_path / "a")
    assert refused(nobody, log, 8, 0).code == "witness_unknown_log"
    before = Log(log.origin)
    stranger, _ = made(tmp_path / "b", before)
    error = refused(stranger, log, 8, 0)
    assert (error.code, error.refused) == ("witness_unknown_key", False)


def test_another_witnesses_signature_is_none(tmp_path: Path, witness: Witness, log: Log) -> None:
    other, _ = made(tmp_path / "other", log)
    with pytest.raises(WitnessError) as raised:
        ask(other._cosigner.verifier, log.note(8), [log.signer.verifier], Leaves(log.leaves), 0, sender(witness))
    assert raised.value.code == "witness_bad_answer"


def test_a_tree_that_leads_nowhere_is_never_sent(witness: Witness, log: Log) -> None:
    """Else the witness would refuse it, and what is only a bad file would be taken for a forged ledger."""
    asked(witness, log, 20, 0)
    sent: list[str] = []
    key = witness._cosigner.verifier
    for tree in (Leaves(log.fork(5, 35).leaves), Leaves(log.leaves[:30]), Leaves([])):
        with pytest.raises(WitnessError) as raised:
            ask(key, log.note(40), [log.signer.verifier], tree, 20, sender(witness, sent))
        assert raised.value.code == "witness_no_proof"
    assert sent == []


KEY = CosignKey("w.example/1", bytes(32))


def answers(*responses: Response) -> Callable[[str, str, bytes], Response]:
    left = list(responses)
    return lambda *_: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize(
    ("code", "responses"),
    [
        ("witness_bad_answer", [Response(200, b"")]),
        ("witness_bad_answer", [Response(200, b"\xff\xfe\n" * 20)]),
        ("witness_bad_answer", [Response(200, "— w.example/1 !!!\n".encode())]),
        ("witness_bad_answer", [Response(200, "— w.example/1 AAAA\n".encode())]),
        ("witness_bad_answer", [Response(409, b"")]),
        ("witness_bad_answer", [Response(409, b"-3\n")]),
        ("witness_bad_answer", [Response(409, b"9" * 40)]),
        ("witness_bad_answer", [Response(409, b"0\n")]),
        ("witness_bad_answer", [Response(409, b"%d\n" % size) for size in (1, 2, 3, 4, 5, 6)]),
        ("witness_bad_answer", [Response(302, b"elsewhere")]),
        ("witness_bad_answer", [Response(400, b"\x1b[31mred")]),
        ("witness_busy", [Response(429, b"")]),
        ("witness_busy", [Response(500, b"the disk is full\n")]),
        ("witness_ahead", [Response(409, b"41\n"), Response(404, b"")]),
        ("witness_forked", [Response(422, b""), Response(200, b"nothing of yours")]),
    ],
)
def test_answers_that_no_witness_gives_are_told_apart(log: Log, code: str, responses: list[Response]) -> None:
    with pytest.raises(WitnessError) as raised:
        ask(KEY, log.note(40), [log.signer.verifier], Leaves(log.leaves), 0, answers(*responses))
    assert raised.value.code == code
    assert raised.value.message.isprintable()
    assert raised.value.theirs is None


def test_a_witness_that_contradicts_itself_is_no_evidence(witness: Witness, log: Log) -> None:
    asked(witness, log, 20, 0)
    shown = sender(witness)

    def send(method: str, path: str, body: bytes) -> Response:
        return Response(422, b"no\n") if method == "POST" else shown(method, path, body)

    with pytest.raises(WitnessError) as raised:
        ask(witness._cosigner.verifier, log.note(40), [log.signer.verifier], Leaves(log.leaves), 20, send)
    assert raised.value.code == "witness_bad_answer"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([200, 404, 409, 422, 500]), st.binary(max_size=300))
def test_whatever_it_answers_is_told(status: int, body: bytes) -> None:
    log = Log().grow(5)
    with pytest.raises(WitnessError):
        ask(KEY, log.note(5), [log.signer.verifier], Leaves(log.leaves), 0, answers(Response(status, body)))


# --- the link


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://w.example", Address("http", "w.example", 80, "")),
        ("https://w.example/", Address("https", "w.example", 443, "")),
        ("http://10.0.0.1:7380/a/b", Address("http", "10.0.0.1", 7380, "/a/b")),
        ("http://[::1]:7380", Address("http", "::1", 7380, "")),
    ],
)
def test_addresses(url: str, found: Address) -> None:
    assert Address.parse(url) == found


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "w.example",
            "ftp://w.example",
            "http://",
            "http://w:0",
            "http://w:70000",
            "http://u:p@w",
            "http://w/a?b",
        ),
        *("http://w/a#b", "http://w/a b", "http://w/\n", "http://w/../x", "HTTP://w", f"http://{'a' * 64}.example"),
        "http://a..b",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Address.parse(url)


@contextlib.contextmanager
def answering(data: bytes, *, every_s: float = 0.0, tls: ssl.SSLContext | None = None) -> Iterator[Address]:
    """Somebody who says this to whoever connects; with `every_s`, byte by byte."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection if tls is None else tls.wrap_socket(connection, server_side=True) as connection:
                    sent = b""
                    # All of it: who closes on what was not read resets the connection, and his answer with it.
                    while not sent.endswith(b"old 0\n" if sent.startswith(b"POST") else b"\r\n\r\n"):
                        if not (more := connection.recv(100_000)):
                            return
                        sent += more
                    for at in range(0, len(data), 1) if every_s else (0,):
                        connection.sendall(data[at : at + 1] if every_s else data)
                        time.sleep(every_s)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Address("http", "127.0.0.1", listening.getsockname()[1], "/prefix")
        finally:
            listening.close()
            thread.join(PATIENCE_S)


def test_who_answers_byte_by_byte_has_one_deadline_for_all() -> None:
    bytewise = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + b"x" * 9, every_s=0.1)
    with bytewise as address, pytest.raises(TimeoutError):
        Link(address, seconds=0.5).send("POST", "/add-checkpoint", b"old 0\n")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing of HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_ANSWER + 1),
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 60_000 + b"\r\n" + b"B: " + b"x" * 60_000 + b"\r\n" * 2 + b"x" * 60_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    ],
)
def test_what_is_no_answer_is_none(data: bytes) -> None:
    with answering(data) as address, pytest.raises((WitnessError, ConnectionError)):
        Link(address, seconds=20).send("POST", "/add-checkpoint", b"old 0\n")


def test_an_answer_of_a_witness_behind_a_prefix() -> None:
    with answering(b"HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\n\r\n13\n") as address:
        assert Link(address).send("POST", "/add-checkpoint", b"old 0\n") == Response(409, b"13\n")


def test_a_redirection_is_not_followed() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    with answering(moved) as address:
        assert Link(address).send("GET", "/" + hashlib.sha256(b"").hexdigest() + "/checkpoint", b"").status == 302


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """Somebody who vouches for 127.0.0.1: his certificate's file, and the server's context."""
    place, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test's own")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (place / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (place / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "ca.pem", place / "key.pem")
    return place / "ca.pem", context


@pytest.mark.parametrize("known", [True, False], ids=["vouched-for", "unknown"])
def test_over_tls(
    authority: tuple[Path, ssl.SSLContext], known: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trusted, context = authority
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted if known else tmp_path / "none/no.pem"))
    with answering(b"HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\n\r\n13\n", tls=context) as address:
        link = Link(Address("https", address.host, address.port, ""))
        if known:
            assert link.send("POST", "/add-checkpoint", b"old 0\n") == Response(409, b"13\n")
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                link.send("POST", "/add-checkpoint", b"old 0\n")
