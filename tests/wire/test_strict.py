"""Maps with a fixed set of names: what is wrong is named, and what was probably meant."""

from __future__ import annotations

import pytest

from immured.errors import Refused
from immured.wire.strict import take


def refusal(value: object, name: str = "argv", kind: type = list) -> Refused:
    with pytest.raises(Refused) as refused:
        take(value, "args", ("argv", "cwd", "limits")).required(name, kind)
    return refused.value


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    assert refusal({"arvg": []}).remedy == "did you mean 'argv'?"


def test_a_name_like_no_other_is_answered_with_all() -> None:
    assert refusal({"zzzzz": []}).remedy == "known are argv, cwd, limits"


def test_an_unknown_name_is_shown_escaped_and_bounded() -> None:
    message = refusal({"\x1b[31m" + "x" * 10_000: 1}).message
    assert "\x1b" not in message
    assert len(message) < 200


def test_a_missing_field_is_named_by_its_path() -> None:
    assert refusal({}).message == "args.argv is missing"


def test_true_is_no_integer() -> None:
    assert refusal({"cwd": True}, "cwd", int).message == "args.cwd is a boolean, not an integer"


def test_what_is_no_map_is_named() -> None:
    assert refusal([1]).message == "args is an array, not a map"


@pytest.mark.parametrize(("value", "fine"), [(0, False), (1, True), (9, True), (10, False)])
def test_an_integer_keeps_to_its_bounds(value: int, fine: bool) -> None:
    fields = take({"n": value}, "args", ("n",))
    if fine:
        assert fields.integer("n", 1, 9) == value
    else:
        with pytest.raises(Refused, match="it may be 1 to 9"):
            fields.integer("n", 1, 9)


def test_an_absent_field_is_none() -> None:
    assert take({}, "args", ("n",)).optional("n", bytes) is None


def test_a_length_is_bounded() -> None:
    with pytest.raises(Refused, match="has a length of 3; it may be 16"):
        take({"nonce": b"abc"}, "the command", ("nonce",), code="bad_command").sized("nonce", bytes, 16, 16)
