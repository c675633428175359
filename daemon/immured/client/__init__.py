"""The Python SDK: orders signed and sent, streams pumped, replies verified. Needs msgpack and cryptography alone.

trust      which socket, which key, which daemon
session    one connection's protocol state, sans-I/O: requests in flight, replies matched and verified
order      what `run` is asked for, as arguments
outcome    what came back, as a typed result; streams checked against the signed reply
link, sync      blocking I/O, and Client
aiolink, aio    asyncio, and AsyncClient
throwaway  a real daemon on a temporary state directory, for tests and demonstrations
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from immured.client.errors import ConnectionLost, NoReply, Refusal, RunFailed, StreamMismatch, UntrustedReply
from immured.client.outcome import Answer, RunResult

if TYPE_CHECKING:
    from immured.client.aio import AsyncClient, AsyncRun
    from immured.client.sync import Client, Run

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncRun",
    "Client",
    "ConnectionLost",
    "NoReply",
    "Refusal",
    "Run",
    "RunFailed",
    "RunResult",
    "StreamMismatch",
    "UntrustedReply",
]

_HOMES = {"AsyncClient": "aio", "AsyncRun": "aio", "Client": "sync", "Run": "sync"}


def __getattr__(name: str) -> object:
    """One of the two clients, imported when asked for: asyncio alone takes longer than the rest."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"immured.client.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
