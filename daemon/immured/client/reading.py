"""Reading a caller's file in a thread, so that the reading can be called off while it waits."""

from __future__ import annotations

import io
import os
import select

from immured.client.order import Readable
from immured.wire.messages import MAX_DATA

__all__ = ["StoppableReader"]


class StoppableReader:
    """`read` blocks in one thread, `stop` comes from another. What is no file of the operating system (a decompressor,
    a response) cannot be waited for with poll: there, a read that has begun ends when it ends."""

    def __init__(self, file: Readable) -> None:
        self._read = getattr(file, "read1", file.read)
        self._stopped = False
        self._wake = -1
        self._poll: select.poll | None = None
        raw = file.raw if isinstance(file, io.BufferedReader) else file
        if isinstance(raw, io.FileIO):
            # What a buffered reader already holds is not lost by polling, only late: it comes with what is next.
            self._wake = os.eventfd(0, os.EFD_CLOEXEC)
            self._poll = select.poll()
            self._poll.register(raw.fileno(), select.POLLIN)
            self._poll.register(self._wake, select.POLLIN)

    def read(self) -> bytes:
        """The next piece, at most one data frame's; b"" at the end, or once stopped. Raises what the file raises, and
        TypeError where it does not give bytes."""
        chunk: object = None
        while chunk is None:
            if self._poll is not None:
                self._poll.poll()
            if self._stopped:
                return b""
            chunk = self._read(MAX_DATA)
            if chunk is None and self._poll is None:
                break
        if not isinstance(chunk, bytes):
            raise TypeError(f"stdin gave {type(chunk).__name__}, not bytes: open the file in mode 'rb'")
        return chunk

    def stop(self) -> None:
        """Ends a `read` that waits, and all later ones."""
        self._stopped = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def __del__(self) -> None:
        # Not before: a thread that is still in `read` holds a reference, and polls this number.
        if self._wake >= 0:
            os.close(self._wake)
