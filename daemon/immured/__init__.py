"""immured: runs commands that nobody trusts, on signed orders, and keeps a ledger that a stranger can verify.

The client is all that most programs need, and needs msgpack and cryptography alone:

    from immured import Client

    with Client() as client:                       # IMMURE_SOCKET, IMMURE_KEY
        result = client.run(["/bin/echo", "hello"])
        print(result.cause, result.exit_code, result.stdout)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from immured.errors import ConfigurationError, ImmuredError, Refused, RemoteError

if TYPE_CHECKING:
    from immured.client import AsyncClient, Client, RunResult

__all__ = [
    "AsyncClient",
    "Client",
    "ConfigurationError",
    "ImmuredError",
    "Refused",
    "RemoteError",
    "RunResult",
    "__version__",
]

__version__ = "0.1.0"

_LAZY = frozenset({"AsyncClient", "Client", "RunResult"})


def __getattr__(name: str) -> object:
    """The client, imported when it is first asked for: the daemon never loads it."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from immured import client

    value: object = getattr(client, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
