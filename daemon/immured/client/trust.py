"""Which socket, which key, which daemon: from arguments, then the environment, then the files beside the socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from immured.errors import ConfigurationError
from immured.wire.keys import PrivateKey, PublicKey, Signer

if TYPE_CHECKING:
    from immured.wire.envelope import Envelope

__all__ = [
    "SYSTEM_SOCKET",
    "USER_KEY",
    "Chain",
    "ChainSource",
    "KeySource",
    "PublicKeySource",
    "Trust",
    "certificates",
    "public_key",
    "resolve",
    "signer",
]

SYSTEM_SOCKET: Final = "/run/immured/immured.sock"
USER_KEY: Final = ".config/immure/key.pem"
"""Where `immure key new` puts a key, in $HOME."""

KeySource = Signer | bytes | str | os.PathLike[str]
"""A key, its PEM or OpenSSH form (bytes), or the path of such a file (str, Path). `agent:NAME` (str), or a public key
where a private one is meant: the key signs in ssh-agent (`client.agent.choose`)."""

PublicKeySource = PublicKey | bytes | str | os.PathLike[str]
"""A public key, its PEM or OpenSSH's line (bytes), or the path of such a file (str, Path)."""


ChainSource = bytes | str | os.PathLike[str]
"""Certificates as `immure key certify` writes them (bytes), or the path of such a file."""

Chain = tuple[tuple[bytes, "Envelope"], ...]
"""Certificates, the keyring key's own first: each as a frame's body, and read."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Where to connect, who signs, and whose replies are believed. `daemon` None: nobody's are verified (insecure)."""

    socket: Path
    key: Signer
    daemon: PublicKey | None


def resolve(
    socket: str | os.PathLike[str] | None,
    key: KeySource | None,
    daemon_key: PublicKeySource | None,
    *,
    insecure: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> Trust:
    """Settles the three. The caller's key: as given, IMMURE_KEY, then USER_KEY. The daemon's: as given,
    IMMURE_DAEMON_KEY, `daemon.pub` beside the socket, then `keys/daemon.pub` there. Raises ConfigurationError `no_key`,
    `no_daemon_key`, `bad_key`, or `no_agent` and `no_agent_key`, naming the file.
    """
    path = Path(socket or environment.get("IMMURE_SOCKET") or SYSTEM_SOCKET)
    key = key or environment.get("IMMURE_KEY") or None
    if key is None and (home := environment.get("HOME")) and os.access(own := Path(home, USER_KEY), os.F_OK):
        key = own
    if key is None:
        raise ConfigurationError("no_key", "no private key to sign with", "set IMMURE_KEY, or make one: immure key new")
    who = signer(key, environment)
    if insecure:
        return Trust(path, who, None)
    return Trust(path, who, _daemon_key(path, daemon_key or environment.get("IMMURE_DAEMON_KEY") or None))


def certificates(source: ChainSource | None, environment: Mapping[str, str] = os.environ) -> Chain:
    """The chain by which the key acts: as given, or IMMURE_CERTIFICATE; none is what a key of the keyring needs.

    Raises ConfigurationError `no_certificate` (no such file) or `bad_certificate`.
    """
    source = source or environment.get("IMMURE_CERTIFICATE") or None
    if source is None:
        return ()
    from immured.wire.certificate import chain_from_pem

    return tuple(chain_from_pem(_pem(source, "no_certificate")))


def public_key(source: PublicKeySource, code: str = "bad_key") -> PublicKey:
    """The key that `source` is or names. Raises ConfigurationError `code` (no such file) or `bad_key`."""
    return source if isinstance(source, PublicKey) else PublicKey.from_pem(_pem(source, code))


def signer(key: KeySource, environment: Mapping[str, str] = os.environ) -> Signer:
    """Who signs: the key that it is or names, or an agent. Raises ConfigurationError as `resolve` does."""
    if isinstance(key, str) and key.startswith("agent:"):
        from immured.client import agent

        return agent.choose(key.removeprefix(agent.PREFIX), environment)
    if not isinstance(key, bytes | str | os.PathLike):
        return key
    found = _pem(key, "no_key")
    if b"PRIVATE KEY-----" not in found and (b"-----BEGIN PUBLIC KEY-----" in found or _is_line(found)):
        from immured.client import agent

        return agent.choose(PublicKey.from_pem(found), environment)
    return PrivateKey.from_pem(found)


def _is_line(text: bytes) -> bool:
    """Whether it is OpenSSH's .pub of whatever kind."""
    return text.startswith((b"ssh-", b"sk-", b"ecdsa-"))


def _daemon_key(socket: Path, source: PublicKeySource | None) -> PublicKey:
    if source is not None:
        return public_key(source, "no_daemon_key")
    for place in (socket.parent / "daemon.pub", socket.parent / "keys" / "daemon.pub"):
        try:
            pem = place.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ConfigurationError("no_daemon_key", f"{place}: {error.strerror}") from None
        return PublicKey.from_pem(pem)
    raise ConfigurationError(
        "no_daemon_key",
        f"no daemon.pub beside {socket}: whose replies are to be believed?",
        "set IMMURE_DAEMON_KEY to a copy of the daemon's keys/daemon.pub; look whether the socket's path is right",
    )


_MAX_PEM = 65_536


def _pem(source: bytes | str | os.PathLike[str], code: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        with Path(source).expanduser().open("rb") as file:
            return file.read(_MAX_PEM)
    except OSError as error:
        raise ConfigurationError(
            code, f"{os.fspath(source)}: {error.strerror}", "check the path and who may read it"
        ) from None
