"""One exchange with a witness over HTTP: an address, a deadline for all of it, and a bound on what is taken."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from typing import Any, Final

from immured.ledger.witness_address import Address
from immured.ledger.witness_client import Response, bad_answer

__all__ = ["Address", "Link"]

MAX_ANSWER: Final = 64 * 1024
_MAX_BYTES: Final = 2 * MAX_ANSWER  # with the fields


class Link:
    """To one witness; each exchange has a connection of its own. Nothing is followed elsewhere, no proxy is asked."""

    def __init__(self, address: Address, *, seconds: float = 10.0) -> None:
        """`seconds`: for an exchange. Certificates are read here, once."""
        self._address, self._seconds = address, seconds
        self._tls = ssl.create_default_context() if address.scheme == "https" else None

    def send(self, method: str, path: str, body: bytes) -> Response:
        """As `witness_client.Send`. Raises OSError, WitnessError."""
        address, deadline = self._address, time.monotonic() + self._seconds
        with socket.create_connection((address.host, address.port), self._seconds) as plain:
            connected = self._tls.wrap_socket(plain, server_hostname=address.host) if self._tls else plain
            connection = http.client.HTTPConnection(address.host, address.port)
            connection.sock = _Timed(connected, deadline)
            try:
                fields = {"Content-Type": "text/plain; charset=utf-8", "Connection": "close"} if body else {}
                connection.request(method, address.prefix + path, body or None, fields)
                response = connection.getresponse()
                answer = response.read(MAX_ANSWER + 1)
                missing = response.length
            except ConnectionError:  # one of them is an HTTPException too: nobody answered at all
                raise
            except http.client.HTTPException as error:
                raise bad_answer(f"its answer is none of HTTP: {type(error).__name__}") from error
            finally:
                connection.close()
                connected.close()
        if len(answer) > MAX_ANSWER:
            raise bad_answer(f"its answer is over {MAX_ANSWER} bytes")
        if missing:  # http.client says so only where it is asked for all
            raise bad_answer("its answer breaks off")
        return Response(response.status, answer)


class _Timed:
    """A socket, as http.client uses one, whose every wait ends by one deadline, and which yields so many bytes."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = connected, deadline

    def sendall(self, data: Any) -> None:
        self._socket.settimeout(_left(self._deadline))
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Bounded(self._socket, self._deadline))

    def close(self) -> None:
        """Whoever opened the socket closes it."""


class _Bounded(io.RawIOBase):
    def __init__(self, connected: socket.socket, deadline: float) -> None:
        super().__init__()
        self._socket, self._deadline, self._left = connected, deadline, _MAX_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise bad_answer(f"its answer is over {_MAX_BYTES} bytes")
        self._socket.settimeout(_left(self._deadline))
        size = self._socket.recv_into(memoryview(buffer)[: self._left])
        self._left -= size
        return size


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("it takes too long")
    return left
