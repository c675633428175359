#!/usr/bin/env python3
"""Certificates, sessions, grants and a proposal, by docs/protocol.md alone. Prints what came, as JSON.

Environment as client_from_protocol.py, whose envelopes and values these are; its key may add keys.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

sys.path.insert(0, str(Path(__file__).parent))
from client_from_protocol import (  # type: ignore[import-not-found]
    COMMAND,
    REPLY,
    Connection,
    ProtocolError,
    believe,
    encode,
    key_id,
    pre_authentication,
    raw_of,
)

CERTIFICATE = COMMAND.replace("command", "certificate")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def signed(kind: str, payload: bytes, key: Ed25519PrivateKey) -> list[Any]:
    return [[key_id(key.public_key()), key.sign(pre_authentication(kind, payload))]]


class Client:
    """One command after the other; `names` go into each."""

    def __init__(self, key: Ed25519PrivateKey, daemon: Ed25519PublicKey, **names: str) -> None:
        self.key, self.daemon, self.names = key, daemon, names
        self.connection = Connection(os.environ["IMMURE_SOCKET"])
        believe(*self.connection.receive(), daemon)

    def present(self, issuer: Ed25519PrivateKey, public: Ed25519PublicKey, name: str, **more: Any) -> bytes:
        """One link; the digest by which a refusal would name it."""
        payload = encode(
            {
                "v": 1, "public": raw_of(public), "name": name, "nonce": os.urandom(16),
                "nbf": now_ms(), "exp": now_ms() + 3_600_000, "depth": 0, **more,
            }
        )  # fmt: skip
        self.connection.send(CERTIFICATE, payload, signed(CERTIFICATE, payload, issuer))
        return hashlib.sha256(payload).digest()

    def ask(self, name: str, /, **args: Any) -> Any:
        """The verified result, or the error's code."""
        command = {
            "aud": key_id(self.daemon), "cmd": name, "args": args, "nonce": os.urandom(16),
            "iat": now_ms(), "exp": now_ms() + 60_000, **self.names,
        }  # fmt: skip
        payload = encode(command)
        self.connection.send(COMMAND, payload, signed(COMMAND, payload, self.key))
        return self.reply(hashlib.sha256(payload).digest())

    def reply(self, request: bytes) -> Any:
        kind, payload, signatures = self.connection.receive()
        said = believe(kind, payload, signatures, self.daemon)
        if kind != REPLY or said["req"] != request:
            raise ProtocolError("an answer to something else")
        return said["result"] if said["ok"] else said["error"]["code"]


def shortest(value: Any) -> bytes:
    """A value with nothing left to choose: what a proposal's digest is of."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes([value])
        width = next(n for n in range(4) if value < 1 << (8 << n))
        return bytes([0xCC + width]) + value.to_bytes(1 << width, "big")
    if isinstance(value, str):
        data = value.encode()
        head = bytes([0xA0 | len(data)]) if len(data) < 32 else b"\xd9" + struct.pack(">B", len(data))
        return head + data
    pairs = sorted((key.encode(), key, one) for key, one in value.items())
    return bytes([0x80 | len(pairs)]) + b"".join(shortest(key) + shortest(one) for _, key, one in pairs)


def main() -> int:
    admin = load_pem_private_key(Path(os.environ["IMMURE_KEY"]).read_bytes(), password=None)
    daemon = load_pem_public_key(Path(os.environ["IMMURE_DAEMON_KEY"]).read_bytes())
    if not isinstance(admin, Ed25519PrivateKey) or not isinstance(daemon, Ed25519PublicKey):
        raise SystemExit("the keys are to be Ed25519 keys")
    boss, agent, helper = (Ed25519PrivateKey.generate() for _ in range(3))
    root = Client(admin, daemon)
    root.ask("key.add", name="boss", public=raw_of(boss.public_key()), role="runner")

    stranger = Client(agent, daemon)
    unknown = stranger.ask("whoami")
    refused = stranger.reply(stranger.present(helper, agent.public_key(), "agent", permissions=["run"]))
    stranger.present(boss, agent.public_key(), "agent", permissions=["run", "whoami", "key.list"], depth=1, commands=1)
    shown = stranger.ask("whoami")
    beyond = stranger.ask("key.list")
    ran = [stranger.ask("run", argv=["/bin/true"]) for _ in range(2)]

    below = Client(helper, daemon)
    below.present(boss, agent.public_key(), "agent", permissions=["whoami"], depth=1)
    below.present(agent, helper.public_key(), "helper", permissions=["run", "whoami"])
    names = [below.ask("whoami")["name"], below.ask("run", argv=["/bin/true"])]
    root.ask("key.revoke", key=key_id(agent.public_key()))
    names.append(below.ask("whoami"))

    session = Client(boss, daemon).ask("session.open", note="by hand")["session"]
    inside = Client(boss, daemon, session=session, tenant="default", project="default").ask("whoami")
    grant = root.ask("grant.issue", key="boss", cmd="key.list", ttl_ms=60_000, reason="once")["grant"]
    boss_client = Client(boss, daemon)
    granted = [isinstance(boss_client.ask("key.list"), dict), boss_client.ask("key.list")]

    args = {"key": "boss", "note": "of team red"}
    proposal = root.ask("proposal.create", cmd="key.label", args=args, reason="by hand")
    command = {"cmd": "key.label", "args": args, "tenant": "default", "project": "default"}
    digest = "sha256:" + hashlib.sha256(shortest(command)).hexdigest()
    told = {
        "unknown": unknown, "refused": refused,
        "name": shown["name"], "root": shown["root"] == key_id(boss.public_key()),
        "beyond": beyond, "ran": [ran[0]["exit_code"], ran[1]], "chain": names,
        "session": inside["session"] == session, "grant": [grant.startswith("grant-"), *granted],
        "digest": proposal["digest"] == digest,
    }  # fmt: skip
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
