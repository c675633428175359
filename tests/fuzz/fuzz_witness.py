"""Fuzzes what strangers' bytes reach in a witness: HTTP, submissions, the notes in them.

    python tests/fuzz/fuzz_witness.py [CORPUS...]   with atheris installed: coverage-guided, until stopped
    pytest tests/fuzz/test_witness.py               without it: what is near a good request, and random bytes

`one_input` holds whatever must be so of any bytes: an answer with one of the protocol's statuses, nothing raised,
nothing held beyond the bounds; and a cosignature only of the one history that there is.
"""

from __future__ import annotations

import atexit
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from immured.ledger.checkpoint import Checkpoint, unverified
from immured.ledger.witness import MAX_BODY, Answer
from immured.ledger.witness_http import MAX_HEAD, HttpError, Reader, Request
from tests.ledger.witness.logs import Log, made, root

PLACE = tempfile.TemporaryDirectory(prefix="fuzz-witness-")
atexit.register(PLACE.cleanup)
LOG = Log().grow(11)
WITNESS, _STATE = made(Path(PLACE.name), LOG)
assert WITNESS.add_checkpoint(LOG.body(0, 6)).status == 200
BODY = LOG.body(6, 6)
STATUSES = frozenset({200, 400, 403, 404, 409, 422, 429})


def requested(body: bytes) -> bytes:
    """A request with this body, as a log sends it."""
    return b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def read_requests(data: bytes) -> list[Request]:
    """In pieces of a size that the data itself chooses: as in one."""
    found: list[list[Request]] = []
    for step in (1 + data[0] if data else 1, max(1, len(data))):
        reader, read = Reader(), []
        try:
            for at in range(0, len(data), step):
                for one in reader.feed(data[at : at + step]):
                    assert len(one.body) <= MAX_BODY
                    read.append(one)
                assert len(reader._data) <= MAX_HEAD + MAX_BODY + step
        except HttpError as error:
            assert 400 <= error.status <= 501  # noqa: PT017 - a fuzzer's own check
        found.append(read)
    assert found[0] == found[1]
    return found[0]


def answered(body: bytes) -> Answer:
    """What the witness says to it."""
    answer = WITNESS.add_checkpoint(body)
    assert answer.status in STATUSES, answer
    if answer.status == 200:
        offered = unverified(body.partition(b"\n\n")[2])
        assert offered == Checkpoint(LOG.origin, offered.size, root(LOG.leaves[: offered.size]))
    else:
        assert "\u2014".encode() not in answer.body
    return answer


def one_input(data: bytes) -> None:
    """Everything that must be so of any bytes."""
    for request in read_requests(data):
        answered(request.body)
    answered(data)
    answered(b"old 6\n" + data)
    answered(BODY[:6] + data + BODY[6:])


def main() -> None:
    """Coverage-guided, with atheris."""
    import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
