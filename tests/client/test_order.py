"""What a call of `run` becomes on the wire."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from immured.client.order import INLINE_STDIN, arguments
from immured.errors import Refused
from immured.wire.strict_msgpack import pack


def test_what_is_left_out_is_absent() -> None:
    assert arguments(["/bin/true"]).args == {"argv": ["/bin/true"]}


def test_none_is_the_same_as_leaving_it_out() -> None:
    nothing: dict[str, Any] = dict.fromkeys(("manifest", "stdin", "env", "cwd", "limits", "files", "collect", "fds"))
    assert arguments(["/bin/true"], **nothing).args == {"argv": ["/bin/true"]}


def test_words_that_are_not_utf_8_travel_as_bytes() -> None:
    assert arguments(["/bin/echo", os.fsdecode(b"\xff"), b"\xfe"]).args["argv"] == ["/bin/echo", b"\xff", b"\xfe"]


def test_paths_are_text() -> None:
    assert arguments([Path("/bin/true")], cwd=Path("/tmp")).args == {"argv": ["/bin/true"], "cwd": "/tmp"}


def test_a_string_is_no_argv() -> None:
    with pytest.raises(TypeError, match="name the shell"):
        arguments("/bin/true")


def test_small_input_travels_in_the_command() -> None:
    order = arguments(["/bin/cat"], stdin=b"x" * INLINE_STDIN)
    assert (order.source, "stream" in order.args) == (None, False)


def test_large_input_travels_as_data() -> None:
    order = arguments(["/bin/cat"], stdin=b"x" * (INLINE_STDIN + 1))
    assert (order.args["stream"], "stdin" in order.args) == (True, False)


def test_a_stream_without_input_ends_its_input_at_once() -> None:
    assert arguments(["/bin/cat"], stream=True).source == b""


def test_a_stream_with_small_input_sends_none_as_data() -> None:
    assert arguments(["/bin/cat"], stream=True, stdin=b"x").source is None


def test_a_passed_descriptor_0_leaves_no_input_to_send() -> None:
    assert arguments(["/bin/cat"], stream=True, fds={0: 0}).source is None


def test_a_passed_descriptor_is_not_streamed() -> None:
    assert arguments(["/bin/cat"], stream=True, fds={1: 1}).streamed == {"stderr"}


def test_input_cannot_be_both_data_and_a_descriptor() -> None:
    with pytest.raises(ValueError, match="both"):
        arguments(["/bin/cat"], stdin=b"x", fds={0: 0})


def test_only_the_first_three_descriptors_can_be_passed() -> None:
    with pytest.raises(ValueError, match="descriptor 3"):
        arguments(["/bin/cat"], fds={3: 3})


def test_input_from_a_file_cannot_be_sent_again() -> None:
    assert not arguments(["/bin/cat"], stdin=io.BytesIO(b"x")).repeatable


def test_cpus_may_be_a_float_and_travel_as_text() -> None:
    assert arguments(["/bin/true"], limits={"cpus": 1.5}).args["limits"] == {"cpus": "1.5"}


def test_cpus_of_an_inline_manifest_travel_as_text() -> None:
    manifest = {"schema": 1, "limits": {"cpus": 0.5}}
    assert arguments(["/bin/true"], manifest=manifest).args["manifest"] == {"schema": 1, "limits": {"cpus": "0.5"}}


def test_another_float_says_what_to_send_instead() -> None:
    with pytest.raises(Refused, match="a float") as refused:
        pack(arguments(["/bin/true"], manifest={"x": 1.5}).args)
    assert "integer" in refused.value.remedy


def test_what_is_filled_in_travels_as_text_or_number() -> None:
    order = arguments(["/bin/true"], parameters={"project": Path("/srv/p"), "jobs": 5, "branch": "main"})
    assert order.args["parameters"] == {"project": "/srv/p", "jobs": 5, "branch": "main"}
