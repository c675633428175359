#!/usr/bin/env python3
"""A sandbox that lives, its files, a detached exec and a batch, by docs/protocol.md alone. Prints what came, as JSON.

Environment as client_from_protocol.py, whose envelopes, values and digests these are.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

sys.path.insert(0, str(Path(__file__).parent))
from client_from_protocol import (  # type: ignore[import-not-found]
    COMMAND,
    DATA,
    REPLY,
    Connection,
    Decoder,
    ProtocolError,
    believe,
    encode,
    key_id,
    pre_authentication,
)


class Client:
    """One command after the other, over one connection."""

    def __init__(self, path: str, key: Ed25519PrivateKey, daemon: Ed25519PublicKey) -> None:
        self.key, self.daemon, self.connection = key, daemon, Connection(path)
        believe(*self.connection.receive(), daemon)

    def ask(self, cmd: str, args: dict[str, Any], fed: bytes | None = None) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The verified result, and what came as data, checked where the result signs it. `fed` goes to stdin."""
        now, nonce = time.time_ns() // 1_000_000, os.urandom(16)
        command = {
            "aud": key_id(self.daemon),
            "cmd": cmd,
            "args": args,
            "nonce": nonce,
            "iat": now,
            "exp": now + 60_000,
        }
        payload = encode(command)
        signature = self.key.sign(pre_authentication(COMMAND, payload))
        self.connection.send(COMMAND, payload, [[key_id(self.key.public_key()), signature]])
        if fed is not None:
            for piece in (*(fed[at : at + 65_536] for at in range(0, len(fed), 65_536)), b""):
                self.connection.send(DATA, encode({"re": nonce, "stream": "stdin", "data": piece}), [])
        got: dict[str, bytes] = {}
        while True:
            kind, payload_, signatures = self.connection.receive()
            if kind == DATA:
                data = Decoder(payload_).whole()
                got[data["stream"]] = got.get(data["stream"], b"") + data["data"]
            elif kind == REPLY:
                reply = believe(kind, payload_, signatures, self.daemon)
                if reply.get("req") == hashlib.sha256(payload).digest():
                    return self.checked(reply, got), got

    @staticmethod
    def checked(reply: dict[str, Any], got: dict[str, bytes]) -> dict[str, Any]:
        if not reply["ok"]:
            raise ProtocolError(f"refused: {reply['error']['code']}: {reply['error']['message']}")
        result: dict[str, Any] = reply["result"]
        for name, stream in result.get("streams", {}).items():
            if name in got and (stream["length"], stream["sha256"]) != (
                len(got[name]),
                hashlib.sha256(got[name]).digest(),
            ):
                raise ProtocolError(f"{name} is not what was signed")
        return result


def results(stream: bytes) -> list[dict[str, Any]]:
    """The maps of a batch's stream: each behind its length in four bytes."""
    found = []
    while stream:
        length = int.from_bytes(stream[:4], "big")
        found.append(Decoder(stream[4 : 4 + length]).whole())
        stream = stream[4 + length :]
    return found


def main() -> None:
    key = load_pem_private_key(Path(os.environ["IMMURE_KEY"]).read_bytes(), password=None)
    daemon = load_pem_public_key(Path(os.environ["IMMURE_DAEMON_KEY"]).read_bytes())
    assert isinstance(key, Ed25519PrivateKey)
    assert isinstance(daemon, Ed25519PublicKey)
    client, said = Client(os.environ["IMMURE_SOCKET"], key, daemon), dict[str, Any]()
    (row,) = client.ask("sandbox.create", {"name": "independent", "labels": {"of": "test"}, "ttl_ms": 60_000})[0][
        "sandboxes"
    ]
    said["state"], sandbox = row["state"], row["sandbox"]
    try:
        content = bytes(range(256)) * 1_000
        said["put"] = client.ask("file.put", {"sandbox": sandbox, "path": "/tmp/x"}, content)[0]["length"]
        got = client.ask("file.get", {"sandbox": "independent", "path": "/tmp/x"})[1]
        said["got"] = got["stdout"] == content
        argv = ["/bin/sh", "-c", "wc -c < /tmp/x; cat; exit 3"]
        result, got = client.ask("sandbox.exec", {"sandbox": sandbox, "argv": argv, "stream": True}, b"fed\n")
        said["exec"] = [got["exec"].decode() == result["exec"], result["exit_code"], got["stdout"].decode()]
        started = client.ask("sandbox.exec", {"sandbox": sandbox, "argv": ["/bin/cat"], "detach": True})[0]["exec"]
        one = {"sandbox": sandbox, "exec": started}
        result, got = client.ask("sandbox.attach", {**one, "input": True}, b"typed\n")
        said["attach"] = [result["exit_code"], result["from"], got["from"].decode(), got["stdout"].decode()]
        page = client.ask("sandbox.logs", {**one, "from": 2})[0]
        said["logs"] = [page["from"], page["next"], page["live"], b"".join(r["data"] for r in page["records"]).decode()]
    finally:
        said["ended"] = client.ask("sandbox.remove", {"sandbox": sandbox})[0]["ended"]
    runs = [{"argv": ["/bin/cat"], "stdin": str(number).encode()} for number in range(5)]
    result, got = client.ask("run.batch", {"runs": runs, "concurrency": 2})
    first, *rest = results(got["results"])
    said["batch"] = [
        first["batch"] == result["batch"],
        first["runs"],
        result["causes"],
        sorted((one["run"], one["stdout"].decode()) for one in rest),
    ]
    print(json.dumps(said))


if __name__ == "__main__":
    main()
