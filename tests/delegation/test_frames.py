"""Certificates as frames: what comes of those that no client should send."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator

import msgpack
import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.identity.certificates import MAX_PRESENTED
from immured.wire.certificate import CERTIFICATE
from immured.wire.envelope import decode_envelope, encode_envelope, seal
from immured.wire.keys import PrivateKey
from tests.delegation.conftest import Orchestrator, certify
from tests.entries import entries_in
from tests.hostile.raw import Connection, command
from tests.peers import connecting_as

pytestmark = pytest.mark.needs_root

INTERVAL_S = 10
"""[ledger] misbehaviour_interval_s"""


@pytest.fixture
def connection(daemon: ThrowawayDaemon) -> Iterator[Connection]:
    with Connection(daemon) as connected:
        yield connected


def refused(connection: Connection, body: bytes) -> str:
    """The code, of a refusal that names these bytes; nothing else was answered."""
    connection.frame(body)
    reply = connection.reply()
    assert reply is not None
    assert reply["req"] == hashlib.sha256(decode_envelope(body).payload).digest()
    return str(reply["error"]["code"])


def status(connection: Connection, key: PrivateKey) -> str:
    """The code, or `ok`."""
    reply = connection.ask(command(connection.daemon_id, cmd="status", args={}), key)
    return "ok" if reply["ok"] else str(reply["error"]["code"])


def test_what_is_refused_leaves_the_connection_and_the_chains_that_hold(
    connection: Connection, orchestrator: Orchestrator
) -> None:
    agent, stranger = PrivateKey.generate(), PrivateKey.generate()
    good = certify(orchestrator.key, agent)
    envelope = decode_envelope(good)
    connection.frame(good)
    assert refused(connection, encode_envelope(CERTIFICATE, envelope.payload)) == "unsigned"
    assert refused(connection, certify(stranger, agent)) == "unknown_key"
    assert refused(connection, seal(CERTIFICATE, b"\xc1", [orchestrator.key])) == "bad_msgpack"
    assert refused(connection, seal(CERTIFICATE, b"\x80", [orchestrator.key])) == "bad_certificate"
    damaged = encode_envelope(CERTIFICATE, envelope.payload[:-1] + b"\x01", envelope.signatures)
    assert refused(connection, damaged) == "bad_signature"
    assert status(connection, agent) == "ok"


def test_descriptors_with_one_end_the_connection(connection: Connection, orchestrator: Orchestrator) -> None:
    read, write = os.pipe()
    try:
        connection.frame(certify(orchestrator.key, PrivateKey.generate()), [read])
        reply = connection.reply()
        assert reply is not None
        assert reply["error"]["code"] == "bad_descriptor"
        assert connection.closed()
    finally:
        os.close(read)
        os.close(write)


def test_a_recorded_one_is_nothing_without_its_key(
    connection: Connection, daemon: ThrowawayDaemon, orchestrator: Orchestrator
) -> None:
    agent, thief = PrivateKey.generate(), PrivateKey.generate()
    recorded = certify(orchestrator.key, agent)
    connection.frame(recorded)
    assert status(connection, agent) == "ok"
    with connecting_as(54321), Connection(daemon) as other:
        other.frame(recorded)
        assert status(other, thief) == "unknown_key"


def test_a_command_of_one_connection_is_no_good_on_another(
    connection: Connection, daemon: ThrowawayDaemon, orchestrator: Orchestrator
) -> None:
    """Who presented nothing knows no certified key."""
    agent = PrivateKey.generate()
    connection.frame(certify(orchestrator.key, agent))
    assert status(connection, agent) == "ok"
    with Connection(daemon) as other:
        assert status(other, agent) == "unknown_key"


def test_the_same_bytes_again_run_once_also_by_certificate(
    connection: Connection, daemon: ThrowawayDaemon, orchestrator: Orchestrator
) -> None:
    agent = PrivateKey.generate()
    certificate = certify(orchestrator.key, agent, commands=1)
    connection.frame(certificate)
    payload = command(connection.daemon_id)
    first = connection.ask(payload, agent)
    assert first["ok"]
    assert connection.ask(payload, agent) == first
    with Connection(daemon) as other:
        other.frame(certificate)
        assert other.ask(payload, agent) == first
        assert other.ask(command(other.daemon_id), agent)["error"]["code"] == "certificate_used_up"


def test_one_connection_speaks_for_so_many(connection: Connection, orchestrator: Orchestrator) -> None:
    agents = [PrivateKey.generate() for _ in range(MAX_PRESENTED + 1)]
    for agent in agents[:-1]:
        connection.frame(certify(orchestrator.key, agent))
    assert refused(connection, certify(orchestrator.key, agents[-1])) == "too_many_certificates"
    assert status(connection, agents[0]) == status(connection, agents[-2]) == "ok"


def test_one_that_is_over_is_refused_at_once_and_one_that_ends_at_the_next_command(
    connection: Connection, orchestrator: Orchestrator
) -> None:
    agent = PrivateKey.generate()
    over = certify(orchestrator.key, agent, now_ms=time.time_ns() // 1_000_000 - 2_000, life_ms=1_000)
    assert refused(connection, over) == "certificate_expired"
    assert status(connection, agent) == "unknown_key"


def test_strangers_certificates_are_one_entry_with_a_count(connection: Connection, daemon: ThrowawayDaemon) -> None:
    """A stranger does not fill the ledger."""
    began = time.monotonic()
    before = len(entries_in(daemon.state))
    for _ in range(30):
        assert refused(connection, certify(PrivateKey.generate(), PrivateKey.generate())) == "unknown_key"
    more = len(entries_in(daemon.state)) - before
    took = time.monotonic() - began
    assert more <= 2 * (1 + took / INTERVAL_S)  # of this test's user, and of another test's


def test_a_payload_signed_as_a_certificate_is_no_command(connection: Connection, orchestrator: Orchestrator) -> None:
    """The type is signed too: what one key certifies is never taken for an order, nor the other way round."""
    payload = msgpack.packb(command(connection.daemon_id, cmd="status", args={}))
    assert refused(connection, seal(CERTIFICATE, payload, [orchestrator.key])) == "unknown_field"
    certificate = decode_envelope(certify(orchestrator.key, PrivateKey.generate()))
    connection.frame(
        encode_envelope("application/vnd.immured.command.v1+msgpack", certificate.payload, certificate.signatures)
    )
    reply = connection.reply()
    assert reply is not None
    assert reply["error"]["code"] == "bad_signature"
