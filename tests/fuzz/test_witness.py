"""The fuzzer's own properties, of what is near a good request and of random bytes."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_witness
from tests.fuzz.fuzz_witness import BODY, LOG, answered, one_input, read_requests, requested


def test_a_good_request_is_cosigned() -> None:
    (request,) = read_requests(requested(BODY))
    assert answered(request.body).status == 200


def test_near_a_good_request() -> None:
    chance = random.Random(11)
    for _ in range(400):
        changed = bytearray(requested(BODY))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(changed))
            how = chance.randrange(3)
            if how == 0:
                changed[at] = chance.randrange(256)
            elif how == 1:
                del changed[at : at + chance.randint(1, 9)]
            else:
                changed[at:at] = chance.randbytes(chance.randint(1, 9))
        one_input(bytes(changed))
    assert fuzz_witness.WITNESS.add_checkpoint(LOG.body(6, 6)).status == 200


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    one_input(data)
