"""Fuzzes the readers that strangers' bytes reach: frames, msgpack, envelopes, payloads.

    python tests/fuzz/fuzz_wire.py [CORPUS...]      with atheris installed: coverage-guided, until stopped
    pytest tests/fuzz/test_wire.py                  without it: the vectors, what is near them, and random bytes

`one_input` holds whatever must be so of any bytes: one value or one typed error, nothing else raised, and what is read
means the same when it is written and read again.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from immured.errors import Refused
from immured.wire.certificate import parse_certificate
from immured.wire.envelope import decode_envelope, encode_envelope, pae, seal, verify
from immured.wire.frames import MAX_FRAME, FrameReader
from immured.wire.keys import PrivateKey
from immured.wire.messages import COMMAND, check_window, parse_command, parse_data, parse_hello, parse_reply
from immured.wire.strict_msgpack import pack, unpack

KEY = PrivateKey(bytes(32))
VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "wire"
CODES = frozenset({"bad_msgpack", "bad_envelope", "bad_command", "unknown_field", "bad_reply"})


def read_frames(data: bytes) -> None:
    """Frames, in reads of a size that the data itself chooses."""
    reader, step = FrameReader(), 1 + (data[0] if data else 0)
    with contextlib.suppress(Refused):
        while data:
            taken = min(reader.wanted(), step, len(data))
            frame = reader.feed(data[:taken])
            data = data[taken:]
            assert frame is None or 0 < len(frame.body) <= MAX_FRAME
            assert reader.buffered <= MAX_FRAME


def read_value(data: bytes) -> None:
    """A value; what is written of it is read as the same."""
    try:
        value = unpack(data)
    except Refused as error:
        assert error.code in CODES  # noqa: PT017 - a fuzzer's own check
        return
    assert unpack(pack(value)) == value


def read_envelope(data: bytes) -> None:
    """An envelope; its signatures, and its payload as each message."""
    try:
        envelope = decode_envelope(data)
    except Refused as error:
        assert error.code in CODES  # noqa: PT017
        return
    assert decode_envelope(encode_envelope(envelope.type, envelope.payload, envelope.signatures)) == envelope
    with contextlib.suppress(Refused):
        verify(envelope, {KEY.id: KEY.public}.get)
        assert KEY.public.verify(dict(envelope.signatures)[KEY.id], pae(envelope.type, envelope.payload))
    read_payload(envelope.payload)


def read_payload(data: bytes) -> None:
    """A payload, as each of the messages."""
    for parse in (parse_hello, parse_reply, parse_data):
        with contextlib.suppress(Refused):
            parse(data)
    with contextlib.suppress(Refused):
        command = parse_command(data)
        assert parse_command(command.to_payload()) == command
        check_window(command, command.iat, (command.aud,))
    with contextlib.suppress(Refused):
        certificate = parse_certificate(data)
        assert parse_certificate(certificate.to_payload()) == certificate


def one_input(data: bytes) -> None:
    """Everything that must be so of any bytes."""
    read_frames(data)
    read_value(data)
    read_envelope(data)
    read_payload(data)
    read_envelope(seal(COMMAND, data, [KEY]))


def known_inputs() -> list[bytes]:
    """The vectors' bytes, as seeds."""
    found: list[bytes] = []
    for path in sorted(VECTORS.glob("*.json")):
        for cases in json.loads(path.read_text(encoding="utf-8")).values():
            for case in cases if isinstance(cases, list) else ():
                found += [
                    bytes.fromhex(case[key]) for key in ("bytes", "body", "payload", "stream", "frame") if key in case
                ]
                found += map(bytes.fromhex, case.get("chain", ()))
    return found


def main() -> None:
    """Coverage-guided, with atheris."""
    import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
