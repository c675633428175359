"""Signing by ssh-agent: the key stays where it is, and what it signs is the command itself.

The agent's protocol is draft-ietf-sshm-ssh-agent: a length, a type, and strings behind their lengths. Asked for an
Ed25519 signature it signs the very bytes that it is given, which is all that is used here; each signature is verified
before it is sent anywhere. Hardware keys (`sk-`) sign other bytes, and are refused by name.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from immured.errors import ConfigurationError
from immured.wire import openssh
from immured.wire.keys import PublicKey

__all__ = ["PREFIX", "SOCKET", "AgentKey", "Identity", "choose"]

PREFIX: Final = "agent:"
SOCKET: Final = "SSH_AUTH_SOCK"

_FAILURE: Final = 5
_REQUEST_IDENTITIES, _IDENTITIES = 11, 12
_SIGN_REQUEST, _SIGN_RESPONSE = 13, 14
_MAX_MESSAGE: Final = 256 * 1024  # OpenSSH's own bound
_SECONDS: Final = 60.0
"""An agent may ask a person first (ssh-add -c). What is older than that would be of little use when it is sent."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key that an agent holds: its encoding, and what its owner calls it."""

    blob: bytes
    comment: str

    @property
    def kind(self) -> str:
        """Such as `ssh-ed25519`."""
        return openssh.kind_of(self.blob)

    def __str__(self) -> str:
        return f"{self.comment or '(no name)'} {openssh.fingerprint(self.blob)} {self.kind}"


class AgentKey:
    """A key that signs in an agent: what `wire.keys.Signer` asks for. Safe for threads.

    The connection is made at once, and kept: an agent looks at who connects, and we may become somebody else.
    """

    def __init__(self, public: PublicKey, agent: Agent) -> None:
        self.public: Final = public
        self._agent = agent

    @property
    def id(self) -> str:
        """The key id of the public half."""
        return self.public.id

    def sign(self, message: bytes) -> bytes:
        """64 bytes. Raises ConfigurationError `no_agent` or `agent_refused`."""
        blob = openssh.blob_of(self.public.raw)
        signed = self._agent.ask(_SIGN_REQUEST, _string(blob) + _string(message) + bytes(4), _SIGN_RESPONSE)
        fields = _Fields(signed)
        inner = _Fields(fields.string())
        kind, signature = inner.string(), inner.string()
        if kind != openssh.ED25519.encode() or not self.public.verify(signature, message):
            raise ConfigurationError(
                "agent_refused",
                f"what the agent signed with {self.id} is not an Ed25519 signature of the command",
                "use a plain ed25519 key: some agents and tokens sign other bytes",
            )
        return signature

    def __repr__(self) -> str:
        return f"AgentKey({self.id})"


class Agent:
    """A connection to an agent, made again where it was lost. Raises ConfigurationError `no_agent`."""

    def __init__(self, path: str) -> None:
        self._sock: socket.socket | None = None
        self._path = path
        self._lock = threading.Lock()
        self._sock = self._connect()

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Agent:
        """The one that SSH_AUTH_SOCK names."""
        path = environment.get(SOCKET)
        if not path:
            raise _unreachable(f"{SOCKET} is not set")
        return cls(path)

    def __del__(self) -> None:
        # A key is shared by whoever likes to: none of its clients could close what the others use.
        self._drop()

    def identities(self) -> list[Identity]:
        """What it holds."""
        fields = _Fields(self.ask(_REQUEST_IDENTITIES, b"", _IDENTITIES))
        return [Identity(fields.string(), fields.string().decode("utf-8", "replace")) for _ in range(fields.number())]

    def ask(self, kind: int, body: bytes, wanted: int) -> bytes:
        """One request; the answer's body. Raises ConfigurationError `no_agent`, `agent_refused`."""
        message = struct.pack(">IB", len(body) + 1, kind) + body
        with self._lock:
            try:
                answer = self._exchange(message)
            except ConnectionError:  # it was started anew since
                answer = self._exchange(message)
        if not answer or answer[0] != wanted:
            said = "refused" if answer[:1] == bytes([_FAILURE]) else f"answered by {answer[:1].hex() or 'nothing'}"
            raise ConfigurationError(
                "agent_refused",
                f"the agent at {self._path} {said}",
                "look whether it is locked, or wants a confirmation",
            )
        return answer[1:]

    def _exchange(self, message: bytes) -> bytes:
        """Raises ConnectionError where a connection from before was lost."""
        kept = self._sock is not None
        if self._sock is None:
            self._sock = self._connect()
        try:
            self._sock.sendall(message)
            return self._answer(self._sock)
        except TimeoutError:
            self._drop()
            raise _unreachable(f"the agent at {self._path} did not answer within {_SECONDS:g} s") from None
        except OSError as error:
            self._drop()
            if kept and isinstance(error, ConnectionError):
                raise
            raise _unreachable(f"{self._path}: {error.strerror or error}") from None

    def _answer(self, sock: socket.socket) -> bytes:
        (length,) = struct.unpack(">I", _exactly(sock, 4))
        if length > _MAX_MESSAGE:
            raise OSError(f"a message of {length} bytes")
        return _exactly(sock, length)

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(_SECONDS)
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            raise _unreachable(f"{self._path}: {error.strerror or error}") from None
        return sock

    def _drop(self) -> None:
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.close()
            self._sock = None


def choose(wanted: str | PublicKey, environment: Mapping[str, str] = os.environ) -> AgentKey:
    """The key of the agent that `wanted` is, or names: by its comment, its SHA256: fingerprint or its key id; empty:
    the only one that can sign commands. Raises ConfigurationError `no_agent`, `no_agent_key`, `bad_key`."""
    agent = Agent.of(environment)
    held = agent.identities()
    found = [one for one in held if _is(one, wanted)]
    able = [one for one in found if openssh.why_not(one.kind) is None]
    if len(able) == 1:
        return AgentKey(PublicKey(openssh.raw_of(able[0].blob)), agent)
    if found and not able and wanted and (reason := openssh.why_not(found[0].kind)) is not None:
        raise ConfigurationError("bad_key", *reason)
    name = wanted.id if isinstance(wanted, PublicKey) else wanted
    if able:
        said = f"the agent holds {len(able)} keys that {name!r} may mean"
    else:
        said = f"the agent holds no Ed25519 key {name!r}" if name else "the agent holds no Ed25519 key"
    raise ConfigurationError("no_agent_key", said, _remedy(held))


def _is(identity: Identity, wanted: str | PublicKey) -> bool:
    if isinstance(wanted, PublicKey):
        return identity.blob == openssh.blob_of(wanted.raw)
    if not wanted or wanted in (identity.comment, openssh.fingerprint(identity.blob)):
        return True
    if wanted.startswith("ed25519:") and identity.kind == openssh.ED25519:
        with contextlib.suppress(ConfigurationError):
            return PublicKey(openssh.raw_of(identity.blob)).id == wanted
    return False


def _remedy(held: Sequence[Identity]) -> str:
    if not held:
        return "add one: ssh-add FILE"
    return "it holds: " + "; ".join(str(one) for one in held[:8]) + ". Name one by its SHA256: fingerprint"


class _Fields:
    """Strings behind their lengths, taken one after the other. Raises ConfigurationError `agent_refused`."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def number(self) -> int:
        taken = self._take(4)
        return int.from_bytes(taken, "big")

    def string(self) -> bytes:
        return self._take(self.number())

    def _take(self, count: int) -> bytes:
        taken, self._rest = self._rest[:count], self._rest[count:]
        if len(taken) != count:
            raise ConfigurationError("agent_refused", "the agent's answer ends early", "look which agent it is")
        return taken


def _exactly(sock: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = sock.recv(count - len(parts))
        if not part:
            raise ConnectionResetError("the agent closed the connection")
        parts += part
    return bytes(parts)


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _unreachable(what: str) -> ConfigurationError:
    return ConfigurationError(
        "no_agent", f"no ssh-agent to sign with: {what}", 'start one: eval "$(ssh-agent)"; ssh-add'
    )
