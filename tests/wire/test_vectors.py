"""What the published vectors say, the package does."""

from __future__ import annotations

from typing import Any

import pytest

from immured.errors import ConfigurationError, Refused
from immured.identity.certificates import Chain, Presented
from immured.identity.keyring import KeyRecord
from immured.wire.envelope import decode_envelope, pae, verify
from immured.wire.frames import FrameReader
from immured.wire.keys import PrivateKey, PublicKey
from immured.wire.messages import (
    COMMAND,
    HELLO,
    REPLY,
    check_window,
    parse_command,
    parse_data,
    parse_hello,
    parse_reply,
)
from immured.wire.strict_msgpack import pack, unpack
from tests.vectors import make_wire_vectors
from tests.wire.vectors import HERE, cases, load

KEYS = {key["name"]: PrivateKey(bytes.fromhex(key["seed"])) for key in load("keys.json")["keys"]}
Case = dict[str, Any]


def from_json(value: Any) -> Any:
    """JSON with {$bin: hex} as what msgpack carries."""
    if isinstance(value, dict):
        return bytes.fromhex(value["$bin"]) if "$bin" in value else {key: from_json(one) for key, one in value.items()}
    return [from_json(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", sorted(make_wire_vectors.FILES))
def test_the_files_are_what_the_generator_makes(name: str) -> None:
    assert (HERE / name).read_text(encoding="utf-8") == make_wire_vectors.texts()[name]


@cases("keys.json", "keys")
def test_a_key_has_its_id_and_forms(case: Case) -> None:
    key = PrivateKey(bytes.fromhex(case["seed"]))
    said = (key.public.raw.hex(), key.id, key.to_pem().decode(), key.public.to_pem().decode())
    assert said == (case["public"], case["id"], case["private_pem"], case["public_pem"])


@cases("keys.json", "keys")
def test_a_key_is_read_back_from_its_pem(case: Case) -> None:
    assert PrivateKey.from_pem(case["private_pem"].encode()).public == PublicKey.from_pem(case["public_pem"].encode())


@cases("keys.json", "refused")
def test_a_public_key_that_proves_nothing_is_not_loaded(case: Case) -> None:
    with pytest.raises(ConfigurationError, match="bad_key"):
        PublicKey(bytes.fromhex(case["public"]))


@cases("ed25519.json")
def test_a_signature_verifies_exactly_where_it_should(case: Case) -> None:
    public, message, signature = (bytes.fromhex(case[name]) for name in ("public", "message", "signature"))
    assert PublicKey(public).verify(signature, message) is case["valid"]


@cases("msgpack.json", "valid")
def test_a_value_is_read(case: Case) -> None:
    assert unpack(bytes.fromhex(case["bytes"])) == from_json(case["value"])


@cases("msgpack.json", "invalid")
def test_what_is_no_value_here_is_refused(case: Case) -> None:
    with pytest.raises(Refused) as refused:
        unpack(bytes.fromhex(case["bytes"]))
    assert refused.value.code == "bad_msgpack"


@cases("msgpack.json", "valid")
def test_a_value_that_is_read_can_be_written(case: Case) -> None:
    value = from_json(case["value"])
    assert unpack(pack(value)) == value


@cases("frames.json")
def test_a_stream_holds_these_frames(case: Case) -> None:
    reader, stream, bodies, error = FrameReader(), bytes.fromhex(case["stream"]), [], None
    try:
        while stream:
            wanted = reader.wanted()
            frame = reader.feed(stream[:wanted])
            stream = stream[wanted:]
            if frame is not None:
                bodies.append(frame.body.hex())
        error = None if reader.at_boundary else "torn"
    except Refused as refused:
        error = refused.code
    assert (bodies, error) == (case["bodies"], case["error"])


@cases("pae.json")
def test_what_is_signed_is_encoded_so(case: Case) -> None:
    assert pae(case["type"], bytes.fromhex(case["payload"])).hex() == case["pae"]


@cases("envelopes.json")
def test_an_envelope_has_this_actor_or_error(case: Case) -> None:
    known = {KEYS[name].id: KEYS[name].public for name in ("alice", "bob")}
    actor = error = None
    try:
        actor = verify(decode_envelope(bytes.fromhex(case["body"])), known.get)
    except Refused as refused:
        error = refused.code
    assert (actor, error) == (case["actor"], case["error"])


@cases("commands.json")
def test_a_command_is_taken_or_refused(case: Case) -> None:
    error = None
    try:
        command = parse_command(bytes.fromhex(case["payload"]))
        check_window(command, case["now_ms"], (KEYS["daemon"].id, "fleet"))
    except Refused as refused:
        error = refused.code
    assert error == case["error"]


@cases("certificates.json")
def test_a_chain_is_taken_or_its_last_link_refused(case: Case) -> None:
    alice = KeyRecord(KEYS["alice"].public, "alice", "runner", "2026-11-22T00:00:00Z")
    presented = Presented()
    bodies = [bytes.fromhex(body) for body in case["chain"]]

    def add(body: bytes) -> Chain:
        audiences = (KEYS["daemon"].id, "fleet")
        return presented.add(decode_envelope(body), {alice.id: alice}.get, case["now_ms"], audiences)

    for body in bodies[:-1]:
        add(body)
    if "error" in case:
        with pytest.raises(Refused) as refused:
            add(bodies[-1])
        assert refused.value.code == case["error"]
    else:
        chain = add(bodies[-1])
        assert (chain.public.id, chain.root) == (case["key"], case["root"])


def test_the_worked_example_reads_as_the_document_says() -> None:
    session = load("session.json")
    told = []
    for entry in session["frames"]:
        envelope = decode_envelope(bytes.fromhex(entry["frame"])[4:])
        if envelope.type == HELLO:
            verify(envelope, {KEYS["daemon"].id: KEYS["daemon"].public}.get)
            told.append(parse_hello(envelope.payload).daemon)
        elif envelope.type == COMMAND:
            told.append(verify(envelope, {KEYS["alice"].id: KEYS["alice"].public}.get))
        elif envelope.type == REPLY:
            verify(envelope, {KEYS["daemon"].id: KEYS["daemon"].public}.get)
            told.append(str((parse_reply(envelope.payload).result or {})["cause"]))
        else:
            data = parse_data(envelope.payload, strict=True)
            told.append(f"{data.stream} {data.data!r}")
    assert told == [
        KEYS["daemon"].id,
        KEYS["alice"].id,
        "stdin b'hello\\n'",
        "stdin b''",
        "stdout b'hello\\n'",
        "stdout b''",
        "stderr b''",
        "exited",
    ]
