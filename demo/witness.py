"""A witness of the ledger. A real one would be on another machine, and somebody else's."""

from __future__ import annotations

import http.client
import os
import selectors
import subprocess
import sys
from typing import TYPE_CHECKING

from demo.cli import immure
from immured.ledger.witness_client import Response

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["Witness"]

NAME = "demo.example/witness"
PATIENCE = 30.0


class Witness:
    """Serves while it is entered. `key`, `url`: what a daemon's configuration says of it."""

    def __init__(self, state: Path, uid: int, ledger: Path) -> None:
        """It knows the ledger of this `ledger.vkey`. Raises OSError, CalledProcessError."""
        self._state = state
        self.key = self._done("init", "--state", str(state), "--name", NAME)
        self._done("trust", "--state", str(state), str(ledger))
        for path in (state, *state.rglob("*")):
            os.chown(path, uid, uid)
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Witness:
        called = [sys.executable, "-m", "immured.cli", "ledger", "witness", "--state", str(self._state)]
        self._process = subprocess.Popen(
            [*called, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            said = self._process.stdout.readline() if selector.select(PATIENCE) else ""
        if "listens at" not in said:
            self.__exit__(None, None, None)
            raise OSError("the witness does not serve")
        self._port = int(said.rpartition(":")[2])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=PATIENCE)

    def send(self, method: str, path: str, body: bytes) -> Response:
        """One request to it. Raises OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return Response(answer.status, answer.read())
        finally:
            connection.close()

    @staticmethod
    def _done(*words: str) -> str:
        done = immure("ledger", "witness", *words)
        done.check_returncode()
        return done.stdout.strip()
