"""The Python SDK: orders signed and sent, streams pumped, replies verified. Needs msgpack and cryptography alone.

trust      which socket, which key, which daemon
session    one connection's protocol state, sans-I/O: requests in flight, replies matched and verified
order      what `run` is asked for, as arguments
outcome    what came back, as a typed result; streams checked against the signed reply
question   a command and how its answer is read, as values that both clients share
sandbox_questions, sandbox_facts   what is asked about sandboxes and execs, and what is said of them
link, sync, sandbox             blocking I/O: Client, Sandbox, Exec
aiolink, aio, aiosandbox        asyncio: AsyncClient, AsyncSandbox, AsyncExec
throwaway  a real daemon on a temporary state directory, for tests and demonstrations
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from immured.client.errors import ConnectionLost, NoReply, Refusal, RunFailed, StreamMismatch, UntrustedReply
from immured.client.outcome import Answer, RunResult

if TYPE_CHECKING:
    from immured.client.aio import AsyncClient, AsyncRun
    from immured.client.aiosandbox import AsyncExec, AsyncSandbox
    from immured.client.sandbox import Exec, Sandbox
    from immured.client.sandbox_questions import Terminal
    from immured.client.sync import Client, Run

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncExec",
    "AsyncRun",
    "AsyncSandbox",
    "Client",
    "ConnectionLost",
    "Exec",
    "NoReply",
    "Refusal",
    "Run",
    "RunFailed",
    "RunResult",
    "Sandbox",
    "StreamMismatch",
    "Terminal",
    "UntrustedReply",
]

_HOMES = {
    "AsyncClient": "aio", "AsyncRun": "aio", "AsyncExec": "aiosandbox", "AsyncSandbox": "aiosandbox",
    "Client": "sync", "Run": "sync", "Exec": "sandbox", "Sandbox": "sandbox", "Terminal": "sandbox_questions",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """One of the two clients, imported when asked for: asyncio alone takes longer than the rest."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"immured.client.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
