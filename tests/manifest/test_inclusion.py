"""One pattern of arguments within others, held against all short lists of words."""

from __future__ import annotations

import itertools
import random

import pytest

from immured.manifest.inclusion import includes
from immured.manifest.words import fits

WORDS = [b"", b"a", b"b", b"ab", b"ba", b"aa", b"aab", b"*", b"...", b"c"]
LISTS = [list(one) for length in range(4) for one in itertools.product(WORDS, repeat=length)]


@pytest.mark.parametrize(
    ("wider", "pattern", "answer"),
    [
        ([], (b"...",), True),
        ([(b"...",)], None, True),
        ([(b"*", b"...")], None, False),
        ([(), (b"*", b"...")], None, True),
        ([(b"log", b"...")], (b"log", b"--oneline", b"*"), True),
        ([(b"log", b"*")], (b"log", b"..."), False),
        ([(b"--depth=*",)], (b"--depth=1*",), True),
        ([(b"--depth=1*",)], (b"--depth=*",), False),
        ([(b"a*",), (b"b*",)], (b"*",), False),
        ([(b"*a*",)], (b"*ba*",), True),
        ([(b"*a", b"..."), (b"*b", b"...")], (b"a*b", b"x"), True),
        ([(rb"\*",)], (b"*",), False),
        ([(b"*",)], (rb"\*",), True),
        ([(rb"\...",)], (b"...",), False),
        ([(b"...",)], (rb"\...",), True),
        ([(b"a", b"...")], (b"a",), True),
        ([(b"*", b"*")], (b"...",), False),
        ([(), (b"*",), (b"*", b"*", b"...")], (b"...",), True),
    ],
)
def test_what_lies_within_what(wider: list[tuple[bytes, ...]], pattern: tuple[bytes, ...], answer: bool) -> None:
    assert includes(wider, pattern) is answer


def test_the_answer_is_that_of_every_short_list() -> None:
    """No list of words may contradict it; and a no must have one, for patterns as small as these."""
    choose = random.Random(6)
    pieces = [b"a", b"b", b"*", b"\\*", b"ab"]

    def word() -> bytes:
        return b"".join(choose.choices(pieces, k=choose.randint(0, 3)))

    def pattern() -> tuple[bytes, ...]:
        return (*(word() for _ in range(choose.randint(0, 2))), *((b"...",) if choose.random() < 0.4 else ()))

    letters = [
        b"".join(one) for length in range(5) for one in itertools.product((b"a", b"b", b"*", b"c"), repeat=length)
    ]
    told = {True: 0, False: 0}
    for _ in range(1500):
        wider, narrow = [pattern() for _ in range(choose.randint(1, 3))], pattern()
        answer = includes(wider, narrow)
        told[answer] += 1
        fitting = [one for one in LISTS if fits(one, narrow)]
        if len(narrow) == 1 and narrow[0] != b"...":
            fitting += [[one] for one in letters if fits([one], narrow)]
        missing = [one for one in fitting if not any(fits(one, other) for other in wider)]
        assert not (answer and missing), (wider, narrow, missing[:3])
    assert min(told.values()) > 200


def test_a_no_has_a_reason() -> None:
    """Where it says no, a walk through words finds a list that only the pattern fits."""
    choose = random.Random(7)
    letters = [b"".join(one) for length in range(6) for one in itertools.product((b"a", b"b", b"c"), repeat=length)]
    for _ in range(800):
        wider = [(b"".join(choose.choices([b"a", b"b", b"*"], k=choose.randint(0, 3))),) for _ in range(2)]
        narrow = (b"".join(choose.choices([b"a", b"b", b"*"], k=choose.randint(0, 3))),)
        missing = [one for one in letters if fits([one], narrow) and not any(fits([one], other) for other in wider)]
        assert includes(wider, narrow) is not bool(missing), (wider, narrow, missing[:3])


def test_what_is_too_large_is_said_not_to_lie_within() -> None:
    assert not includes([(b"a" * 3000 + b"*",)], (b"a" * 3000 + b"b*",))


def test_a_hostile_pattern_is_given_up_in_time() -> None:
    stars = b"*" + b"a*" * 60
    wider = [(b"*a" + b"?" * n + b"*b*" * 40,) for n in range(8)]
    assert not includes(wider, (stars, b"..."))
