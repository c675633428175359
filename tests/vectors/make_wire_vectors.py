"""Writes tests/vectors/wire/*.json: bytes that an implementation in any language can be checked against.

    python tests/vectors/make_wire_vectors.py          writes them
    python tests/vectors/make_wire_vectors.py --check  exits with 1 when a file differs

The same bytes come out every time: keys, nonces and times are fixed. Binary values are hex. What msgpack and signatures
must look like is spelled out here by hand wherever a vector is about their encoding, not taken from the package.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from immured.wire.certificate import CERTIFICATE
from immured.wire.envelope import decode_envelope, encode_envelope, pae, seal
from immured.wire.frames import encode_frame
from immured.wire.keys import PrivateKey
from immured.wire.messages import COMMAND, HELLO, REPLY, Command, Hello, Receipt, Reply, data_body
from immured.wire.strict_msgpack import pack
from tests.vectors import ed25519_arithmetic as ed

HERE = Path(__file__).resolve().parent / "wire"
ALICE, BOB, DAEMON = (PrivateKey(bytes([byte]) * 32) for byte in (0xA1, 0xB0, 0xDA))
NOW = 1_790_000_000_000
NONCE = bytes(range(16))
BAD: Final = "bad_certificate"


def keys() -> dict[str, Any]:
    named = {"alice": (0xA1, ALICE), "bob": (0xB0, BOB), "daemon": (0xDA, DAEMON)}
    return {
        "about": "Private keys by seed; public keys that must be refused when they are loaded.",
        "keys": [
            {
                "name": name, "seed": (bytes([byte]) * 32).hex(), "public": key.public.raw.hex(), "id": key.id,
                "private_pem": key.to_pem().decode(), "public_pem": key.public.to_pem().decode(),
            }
            for name, (byte, key) in named.items()
        ],
        "refused": [{"name": name, "public": raw.hex()} for name, raw in _bad_publics()],
    }  # fmt: skip


def _bad_publics() -> list[tuple[str, bytes]]:
    eight = ed.torsion()
    found = [
        (f"small order: {times} times a point of order 8", ed.encode(ed.multiply(times, eight))) for times in range(8)
    ]
    found += [
        ("y = p, not canonical", ed.P.to_bytes(32, "little")),
        ("y = p + 1, not canonical, the neutral point", (ed.P + 1).to_bytes(32, "little")),
        ("y = 2^255 - 1, not canonical", (2**255 - 1).to_bytes(32, "little")),
        ("y = p with a sign, not canonical", (ed.P | 1 << 255).to_bytes(32, "little")),
        ("x = 0 with a sign, y = 1", (1 | 1 << 255).to_bytes(32, "little")),
        ("x = 0 with a sign, y = -1", (ed.P - 1 | 1 << 255).to_bytes(32, "little")),
        ("not a point of the curve", (2).to_bytes(32, "little")),
        ("31 bytes", bytes(31)),
        ("33 bytes", ALICE.public.raw + b"\0"),
        ("empty", b""),
    ]
    if ed.recover(2, 0) is not None:
        raise ArithmeticError("y = 2 was to be no point")
    return found


def ed25519() -> dict[str, Any]:
    message = b"immured"
    public, good = ALICE.public.raw, ALICE.sign(message)
    r, s = good[:32], int.from_bytes(good[32:], "little")
    scalar = ed.secret_scalar(bytes([0xA1]) * 32)

    def with_r(encoded: bytes, r_scalar: int = 0) -> bytes:
        """A signature whose R is these bytes, so that S B = R + h A holds for whoever decodes them leniently."""
        return encoded + ((r_scalar + ed.challenge(encoded, public, message) * scalar) % ed.L).to_bytes(32, "little")

    def flipped(position: int) -> bytes:
        """The good signature with one bit changed."""
        return good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]

    neutral = ed.encode(ed.NEUTRAL)
    cases = [
        ("honest", public, message, good, True),
        ("another message", public, b"immured!", good, False),
        ("another key", BOB.public.raw, message, good, False),
        ("a bit of R", public, message, flipped(0), False),
        ("a bit of S", public, message, flipped(32), False),
        ("S + L: the same signature, varied", public, message, r + (s + ed.L).to_bytes(32, "little"), False),
        ("S = L", public, message, r + ed.L.to_bytes(32, "little"), False),
        ("S's topmost bit", public, message, good[:63] + bytes([good[63] | 0x80]), False),
        ("R neutral, canonical: RFC 8032 takes it", public, message, with_r(neutral), True),
        ("R neutral as y = p + 1", public, message, with_r((ed.P + 1).to_bytes(32, "little")), False),
        ("R neutral with a sign", public, message, with_r((1 | 1 << 255).to_bytes(32, "little")), False),
        ("R off by a point of order 8", public, message, with_r(ed.encode(ed.torsion())), False),
        ("63 bytes", public, message, good[:63], False),
        ("65 bytes", public, message, good + b"\0", False),
        ("empty", public, message, b"", False),
        ("all zero", public, message, bytes(64), False),
        *_mixed_order(message),
    ]
    return {
        "about": "Signatures over `message`. The equation without cofactor decides: encode(S B - h A) is R.",
        "cases": [
            {"name": name, "public": key.hex(), "message": text.hex(), "signature": sig.hex(), "valid": valid}
            for name, key, text, sig, valid in cases
        ],
    }


def _mixed_order(message: bytes) -> list[tuple[str, bytes, bytes, bytes, bool]]:
    """A key that is a good one plus a point of order 8: h decides which equation holds."""
    scalar = ed.secret_scalar(bytes([0x3E]) * 32)
    public = ed.encode(ed.add(ed.multiply(scalar, ed.BASE), ed.torsion()))
    found: dict[bool, bytes] = {}
    number = 1
    while len(found) < 2:
        r = ed.encode(ed.multiply(number, ed.BASE))
        h = ed.challenge(r, public, message)
        found.setdefault(h % 8 == 0, r + ((number + h * scalar) % ed.L).to_bytes(32, "little"))
        number += 1
    return [
        ("A of mixed order, both equations hold", public, message, found[True], True),
        ("A of mixed order, only the cofactored equation holds", public, message, found[False], False),
    ]


def msgpack_values() -> dict[str, Any]:
    valid: list[tuple[str, str, Any]] = [
        ("0", "00", 0),
        ("-32", "e0", -32),
        ("the largest uint", "cfffffffffffffffff", 2**64 - 1),
        ("the smallest int", "d38000000000000000", -(2**63)),
        ("an int longer than it must be", "cf0000000000000001", 1),
        ("false", "c2", False),
        ("an empty str", "a0", ""),
        ("str of two-byte characters", "a4c3a9c3a9", "éé"),
        ("a str with a length longer than it must be", "db0000000161", "a"),
        ("bin", "c402ff00", {"$bin": "ff00"}),
        ("an empty map", "80", {}),
        ("a map", "82a16101a1629102", {"a": 1, "b": [2]}),
        ("eight deep", "9191919191919190", [[[[[[[[]]]]]]]]),
    ]
    invalid = [
        ("nothing", ""),
        ("nil", "c0"),
        ("the byte that is never used", "c1"),
        ("float 32", "ca3f800000"),
        ("float 64", "cb3ff0000000000000"),
        ("fixext", "d4010a"),
        ("ext 8", "c7010161"),
        ("a timestamp", "d6ff00000000"),
        ("nil inside an array", "91c0"),
        ("a float as a map's value", "81a161ca3f800000"),
        ("a key twice", "82a16101a16102"),
        ("a key twice, in two encodings", "82a16101d9016102"),
        ("a key twice, deeper", "81a17882a16101a16102"),
        ("an integer as key", "810102"),
        ("bin as key", "81c4016101"),
        ("an array as key", "819001"),
        ("a boolean as key", "81c301"),
        ("str that is not UTF-8", "a1ff"),
        ("a lone surrogate", "a3eda080"),
        ("an overlong encoding", "a2c080"),
        ("a byte after the value", "0000"),
        ("a value after the value", "80a0"),
        ("nine deep", "919191919191919190"),
        ("nine deep, maps", "81a161" * 8 + "80"),
        ("an array of 2^32 - 1", "ddffffffff"),
        ("a map of 2^32 - 1", "dfffffffff"),
        ("str of 2^32 - 1", "dbffffffff61"),
        ("bin of 2^32 - 1", "c6ffffffff61"),
        ("nested arrays that each declare what all the rest could hold", "dc0020" * 8),
        ("an array cut short", "9201"),
        ("str cut short", "a26161"[:4]),
        ("a length cut short", "dc00"),
        ("an int cut short", "cf00"),
    ]
    return {
        "about": "Payloads' msgpack. `value` is JSON, with {$bin: hex} for bin. All of `invalid` is bad_msgpack.",
        "valid": [{"name": name, "bytes": data, "value": value} for name, data, value in valid],
        "invalid": [{"name": name, "bytes": data} for name, data in invalid],
    }


def frames() -> dict[str, Any]:
    cases: list[tuple[str, bytes, list[bytes], str | None]] = [
        ("one", b"\0\0\0\x03abc", [b"abc"], None),
        ("two", b"\0\0\0\x01a\0\0\0\x02bc", [b"a", b"bc"], None),
        ("none", b"", [], None),
        ("empty", b"\0\0\0\0", [], "bad_frame"),
        ("one byte over 1 MiB", b"\0\x10\0\x01", [], "frame_too_large"),
        ("the largest length", b"\xff\xff\xff\xff", [], "frame_too_large"),
        ("good, then too large", b"\0\0\0\x01a\xff\xff\xff\xff", [b"a"], "frame_too_large"),
        ("the stream ends in a header", b"\0\0", [], "torn"),
        ("the stream ends in a body", b"\0\0\0\x03ab", [], "torn"),
    ]
    return {
        "about": "A stream's bytes; the bodies read from it; the error's code, or `torn`: it ended too early.",
        "cases": [
            {"name": name, "stream": data.hex(), "bodies": [body.hex() for body in bodies], "error": error}
            for name, data, bodies, error in cases
        ],
    }


def pre_authentication() -> dict[str, Any]:
    cases = [(COMMAND, b"\x80"), ("", b""), ("http://example.com/HelloWorld", b"hello world"), ("é", b"\0\n")]
    return {
        "about": "What is signed for a type and a payload. Lengths count bytes.",
        "cases": [{"type": kind, "payload": payload.hex(), "pae": pae(kind, payload).hex()} for kind, payload in cases],
    }


def envelopes() -> dict[str, Any]:
    payload = b"\x81\xa1a\x01"
    by_alice, by_bob = (key.sign(pae(COMMAND, payload)) for key in (ALICE, BOB))
    stranger = PrivateKey(bytes([0x5E]) * 32)
    a, b, x = (ALICE.id, by_alice), (BOB.id, by_bob), (stranger.id, stranger.sign(pae(COMMAND, payload)))
    bad_b = (BOB.id, by_alice)

    def of(*signatures: tuple[str, bytes]) -> bytes:
        return encode_envelope(COMMAND, payload, signatures)

    shell = pack([1, COMMAND, payload, [list(a)]])
    cases: list[tuple[str, bytes, str | None, str | None]] = [
        ("one signature", of(a), ALICE.id, None),
        ("two: the actor is the first", of(b, a), BOB.id, None),
        ("an unknown key is passed over", of(x, a), ALICE.id, None),
        ("no signature", of(), None, "unsigned"),
        ("unknown keys alone", of(x), None, "unknown_key"),
        ("a bad signature", of(bad_b), None, "bad_signature"),
        ("a bad signature after a good one", of(a, bad_b), None, "bad_signature"),
        ("a signature of no bytes", of((ALICE.id, b"")), None, "bad_signature"),
        ("a good signature under another known key's id", of((BOB.id, by_alice)), None, "bad_signature"),
        ("another type than was signed", pack([1, REPLY, payload, [list(a)]]), None, "bad_signature"),
        ("another payload than was signed", pack([1, COMMAND, payload + b"\0", [list(a)]]), None, "bad_signature"),
        ("eight signatures", of(a, *((f"unknown {n}", b"") for n in range(7))), ALICE.id, None),
        ("nine signatures", of(a, *((f"unknown {n}", b"") for n in range(8))), None, "bad_envelope"),
        ("a key twice", of(a, a), None, "bad_envelope"),
        ("an unknown key twice", of(a, x, x), None, "bad_envelope"),
        ("version 2", pack([2, COMMAND, payload, [list(a)]]), None, "bad_envelope"),
        ("true for version", pack([True, COMMAND, payload, [list(a)]]), None, "bad_envelope"),
        ("payload as str", pack([1, COMMAND, "a", [list(a)]]), None, "bad_envelope"),
        ("type as bin", pack([1, COMMAND.encode(), payload, [list(a)]]), None, "bad_envelope"),
        ("an empty type", pack([1, "", payload, [list(a)]]), None, "bad_envelope"),
        ("three elements", pack([1, COMMAND, payload]), None, "bad_envelope"),
        ("five elements", pack([1, COMMAND, payload, [list(a)], 1]), None, "bad_envelope"),
        ("a map", pack({"v": 1}), None, "bad_envelope"),
        ("a signature of one element", pack([1, COMMAND, payload, [[ALICE.id]]]), None, "bad_envelope"),
        ("key id as bin", pack([1, COMMAND, payload, [[ALICE.id.encode(), by_alice]]]), None, "bad_envelope"),
        ("signature as str", pack([1, COMMAND, payload, [[ALICE.id, "a"]]]), None, "bad_envelope"),
        ("a byte after", shell + b"\0", None, "bad_msgpack"),
        ("cut short", shell[:-1], None, "bad_msgpack"),
        ("text of another protocol", b"GET / HTTP/1.1\r\n\r\n", None, "bad_msgpack"),
    ]
    return {
        "about": "Frames' bodies, for a reader that knows alice and bob (keys.json): the actor, or the error's code.",
        "cases": [
            {"name": name, "body": body.hex(), "actor": actor, "error": error} for name, body, actor, error in cases
        ],
    }


def commands() -> dict[str, Any]:
    good: dict[str, object] = {
        "aud": DAEMON.id, "cmd": "status", "args": {}, "nonce": NONCE, "iat": NOW, "exp": NOW + 60_000,
    }  # fmt: skip

    def case(name: str, error: str | None, now: int = NOW, without: str = "", **changes: object) -> dict[str, Any]:
        fields = {key: value for key, value in (good | changes).items() if key != without}
        return {"name": name, "payload": pack(fields).hex(), "now_ms": now, "error": error}

    return {
        "about": "Verified payloads, for a daemon of the key `daemon` (keys.json); its audiences: its id, and `fleet`.",
        "cases": [
            case("the least", None),
            case("everything", None, persona="reviewer", tenant="acme", sub="user:7"),
            case("an audience that the operator configured", None, aud="fleet"),
            case("the first moment", None, now=NOW - 60_000),
            case("before the first moment", "not_yet_valid", now=NOW - 60_001),
            case("the last moment", None, now=NOW + 119_999),
            case("after the last moment", "expired", now=NOW + 120_000),
            case("300 s", None, exp=NOW + 300_000),
            case("longer than 300 s", "bad_command", exp=NOW + 300_001),
            case("exp before iat", "bad_command", exp=NOW - 1),
            case("another daemon's", "wrong_audience", aud=ALICE.id),
            *(case(f"without {name}", "bad_command", without=name) for name in good),
            case("an unknown field", "unknown_field", nounce=1),
            case("a nonce of 15 bytes", "bad_command", nonce=NONCE[1:]),
            case("a nonce as str", "bad_command", nonce="0123456789abcdef"),
            case("iat as str", "bad_command", iat="now"),
            case("iat as boolean", "bad_command", iat=True),
            case("a negative iat", "bad_command", iat=-1),
            case("args as array", "bad_command", args=[]),
            case("an empty cmd", "bad_command", cmd=""),
            {"name": "not a map", "payload": pack([1]).hex(), "now_ms": NOW, "error": "bad_command"},
        ],
    }


def certificates() -> dict[str, Any]:
    """alice is in the keyring; bob and the rest are certified."""
    carol, dora, emil, fritz = (PrivateKey(bytes([byte]) * 32) for byte in (0xCA, 0xD0, 0xE1, 0xF0))

    def link(issuer: PrivateKey, subject: PrivateKey, name: str, **changes: object) -> bytes:
        fields: dict[str, object] = {
            "v": 1, "public": subject.public.raw, "name": name, "nonce": NONCE, "nbf": NOW, "exp": NOW + 3_600_000,
            "permissions": ["run", "status"], "depth": 0,
        }  # fmt: skip
        payload = pack({key: value for key, value in (fields | changes).items() if value is not None})
        return seal(CERTIFICATE, payload, [issuer])

    def case(
        name: str, *chain: bytes, now: int = NOW, end: PrivateKey | None = None, error: str = ""
    ) -> dict[str, Any]:
        said = {"error": error} if error else {"key": (end or BOB).id, "root": ALICE.id}
        return {"name": name, "now_ms": now, "chain": [body.hex() for body in chain], **said}

    plain = link(ALICE, BOB, "agent")
    down = [
        link(ALICE, BOB, "b", depth=3), link(BOB, carol, "c", depth=2), link(carol, dora, "d", depth=1),
        link(dora, emil, "e"),
    ]  # fmt: skip
    everything = link(
        ALICE, BOB, "agent-7", depth=1, tenants=["acme"], projects=["web"], classes=["default"],
        labels={"team": "red"}, commands=5, sub="user:7", aud=["fleet", DAEMON.id],
    )  # fmt: skip
    envelope = decode_envelope(plain)
    bad: list[tuple[str, dict[str, object]]] = [
        ("without a permission", {"permissions": []}),
        ("a pattern for a permission", {"permissions": ["sandbox.*"]}),
        ("a permission twice", {"permissions": ["run", "run"]}),
        ("longer than 30 days", {"exp": NOW + 2_592_000_001}),
        ("no time at all", {"exp": NOW}),
        ("a depth of 4", {"depth": 4}),
        ("without a depth", {"depth": None}),
        ("an empty list", {"tenants": []}),
        ("a key of small order", {"public": (1).to_bytes(32, "little")}),
        ("version 2", {"v": 2}),
        ("for no command", {"commands": 0}),
    ]
    return {
        "about": "Chains sent to the daemon of the key `daemon` (audiences: its id, and `fleet`), whose keyring has"
        " alice alone: the key that then acts and the one whose rights it has, or the code that refuses the last link.",
        "cases": [
            case("one link", plain),
            case("everything", everything),
            case("four links", *down, end=emil),
            case("renewed", plain, link(ALICE, BOB, "agent", exp=NOW + 7_200_000)),
            case("the first moment", plain, now=NOW - 60_000),
            case("before the first moment", plain, now=NOW - 60_001, error="certificate_not_yet_valid"),
            case("the last moment", plain, now=NOW + 3_599_999),
            case("after the last moment", plain, now=NOW + 3_600_000, error="certificate_expired"),
            case("by a stranger", link(carol, BOB, "agent"), error="unknown_key"),
            case("five links", *down[:3], link(dora, emil, "e", depth=3), link(emil, fritz, "f"), error=BAD),
            case("deeper than it may", plain, link(BOB, carol, "c"), error=BAD),
            case("of a key of the keyring", link(ALICE, ALICE, "me"), error=BAD),
            case("around", down[0], down[1], link(carol, BOB, "b"), error=BAD),
            case("another sub", everything, link(BOB, carol, "c", sub="user:8"), error=BAD),
            case("for another daemon", link(ALICE, BOB, "agent", aud=["other"]), error="wrong_audience"),
            case("unsigned", encode_envelope(CERTIFICATE, envelope.payload), error="unsigned"),
            case("two signatures", seal(CERTIFICATE, envelope.payload, [ALICE, BOB]), error=BAD),
            case("signed as a command", encode_envelope(CERTIFICATE, envelope.payload, [
                (ALICE.id, ALICE.sign(pae(COMMAND, envelope.payload)))
            ]), error="bad_signature"),
            case("a name with a slash", link(ALICE, BOB, "a/b"), error=BAD),
            case("an unknown field", link(ALICE, BOB, "agent", tenant="acme"), error="unknown_field"),
            *(case(what, link(ALICE, BOB, "agent", **changes), error=BAD) for what, changes in bad),
        ],
    }  # fmt: skip


def session() -> dict[str, Any]:
    """The worked example of docs/protocol.md."""
    hello = Hello(DAEMON.id, bytes(range(16, 32)), NOW, "0.1.0", {"frame": 1 << 20})
    args = {"argv": ["/bin/cat"], "stream": True}
    command = Command(DAEMON.id, "run", args, NONCE, NOW, NOW + 60_000)
    payload = command.to_payload()
    output = b"hello\n"
    record = {"length": len(output), "sha256": hashlib.sha256(output).digest()}
    result: dict[str, object] = {
        "sandbox": "s0000000000000000000a",
        "cause": "exited",
        "exit_code": 0,
        "streams": {"stdin": record, "stdout": record, "stderr": {"length": 0, "sha256": hashlib.sha256().digest()}},
        "usage": {"wall_ms": 3, "cpu_ms": 1},
        "events": {},
        "violations": [],
        "enforcement": {"wall": "deadline"},
    }
    reply = Reply(
        ok=True, result=result, re=NONCE, req=hashlib.sha256(payload).digest(),
        receipt=Receipt(8, bytes([8]) * 32), intent=Receipt(7, bytes([7]) * 32),
    )  # fmt: skip
    bodies = [
        ("daemon", "hello", seal(HELLO, hello.to_payload(), [DAEMON])),
        ("client", "command", seal(COMMAND, payload, [ALICE])),
        ("client", "stdin", data_body(NONCE, "stdin", output)),
        ("client", "end of stdin", data_body(NONCE, "stdin", b"")),
        ("daemon", "stdout", data_body(NONCE, "stdout", output)),
        ("daemon", "end of stdout", data_body(NONCE, "stdout", b"")),
        ("daemon", "end of stderr", data_body(NONCE, "stderr", b"")),
        ("daemon", "reply", seal(REPLY, reply.to_payload(), [DAEMON])),
    ]
    return {
        "about": "alice runs /bin/cat through the daemon of the key `daemon` (keys.json), and sends it a line.",
        "command_payload": payload.hex(),
        "command_pae": pae(COMMAND, payload).hex(),
        "command_signature": ALICE.sign(pae(COMMAND, payload)).hex(),
        "req": hashlib.sha256(payload).hexdigest(),
        "frames": [{"from": who, "what": what, "frame": encode_frame(body).hex()} for who, what, body in bodies],
    }


FILES: dict[str, Callable[[], dict[str, Any]]] = {
    "keys.json": keys,
    "ed25519.json": ed25519,
    "msgpack.json": msgpack_values,
    "frames.json": frames,
    "pae.json": pre_authentication,
    "envelopes.json": envelopes,
    "commands.json": commands,
    "certificates.json": certificates,
    "session.json": session,
}


def texts() -> dict[str, str]:
    """Every file's name and content."""
    return {name: json.dumps(make(), indent=1, ensure_ascii=False) + "\n" for name, make in FILES.items()}


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        differing = [name for name, text in texts().items() if (HERE / name).read_text(encoding="utf-8") != text]
        for name in differing:
            print(f"{name} differs from what make_wire_vectors.py makes")
        return 1 if differing else 0
    HERE.mkdir(exist_ok=True)
    for name, text in texts().items():
        (HERE / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
