"""What is sent as data (standard input, a file), in a thread of its own: it may block while output is taken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from immured.client.errors import ConnectionLost
from immured.client.link import Link
from immured.client.order import Readable, Stdin, chunks_of
from immured.client.reading import StoppableReader
from immured.client.session import Call
from immured.wire.messages import data_body

__all__ = ["Pump"]


class Pump:
    """Sends `source` as data frames, then the empty one that ends the stream. `sending` is told each piece before."""

    def __init__(
        self, link: Link, call: Call, source: Stdin, sending: Callable[[bytes], None], stream: str = "stdin"
    ) -> None:
        self._link = link
        self._call = call
        self._sending = sending
        self._stream = stream
        self._stopped = False
        self._reader: StoppableReader | None = None
        chunks: Iterator[bytes]
        if isinstance(source, bytes | bytearray | memoryview):
            chunks = iter(chunks_of(source))
        elif isinstance(source, Readable):
            self._reader = StoppableReader(source)
            chunks = iter(self._reader.read, b"")
        else:
            raise TypeError("stdin of a blocking client is bytes or a binary file")
        if source == b"":
            self._send(b"")
        else:
            threading.Thread(target=self._work, args=(chunks,), name=f"immured-{stream}", daemon=True).start()

    def stop(self) -> None:
        """No more is sent."""
        self._stopped = True
        if self._reader is not None:
            self._reader.stop()

    def _work(self, chunks: Iterator[bytes]) -> None:
        try:
            for chunk in chunks:
                if self._stopped:
                    return
                self._sending(chunk)
                self._send(chunk)
            if not self._stopped:
                self._send(b"")
        except ConnectionLost:
            return  # whoever waits for the reply learns it there
        except Exception as error:  # noqa: BLE001 - whatever a caller's file raises is the caller's to see
            self._link.spoil(self._call, error)

    def _send(self, chunk: bytes) -> None:
        self._link.send(data_body(self._call.request.nonce, self._stream, chunk))
