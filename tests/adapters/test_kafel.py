"""nsjail's language for system calls."""

from __future__ import annotations

import pytest

from immured.adapters.kafel import read_kafel
from immured.errors import Refused


def test_what_is_denied_and_what_is_the_rest() -> None:
    calls = read_kafel("KILL_PROCESS { ptrace, process_vm_readv }, ERRNO(38) { io_uring_setup } DEFAULT ALLOW")
    assert calls.default
    assert calls.deny == {"ptrace", "process_vm_readv", "io_uring_setup"}
    assert calls.answers["io_uring_setup"] == "ERRNO(38)"


def test_what_is_allowed_is_all_there_is() -> None:
    calls = read_kafel("ALLOW { read, write, newstat, newuname } DEFAULT KILL_PROCESS")
    assert not calls.default
    assert calls.allow == {"read", "write", "stat", "uname"}


def test_policies_are_used_by_name() -> None:
    text = """
        #define STDOUT 1
        POLICY files { ALLOW { open, close } }   // comment
        POLICY all { USE files ALLOW { read } DENY { ptrace } } /* another */
        USE all
        DEFAULT KILL
    """
    calls = read_kafel(text)
    assert calls.allow == {"open", "close", "read"}
    assert calls.deny == {"ptrace"}


def test_a_call_with_conditions_on_its_arguments_is_refused_whole() -> None:
    calls = read_kafel("ALLOW { write(fd, buf, n) { fd == 1 || (fd == 2 && n < 0x10) }, read } DEFAULT KILL")
    assert calls.allow == {"read"}
    assert calls.partly == {"write"}


def test_of_two_answers_the_stricter_counts() -> None:
    for text in ("ALLOW { read } KILL { read } DEFAULT ALLOW", "KILL { read } ALLOW { read } DEFAULT ALLOW"):
        assert read_kafel(text).deny == {"read"}
        assert read_kafel(text).allow == set()


def test_without_a_default_the_rest_is_killed() -> None:
    assert not read_kafel("ALLOW { read }").default


@pytest.mark.parametrize(
    "text",
    [
        "ALLOW { read", "ALLOW read", "MAYBE { read }", "USE nothing", "POLICY a {", "ALLOW { read write }",
        "ALLOW { write { fd == 1 } ", "DEFAULT", "DEFAULT 3", "ALLOW { SYSCALL[3] }", "ALLOW { \x00 }", "ERRNO( { a }",
    ],
)  # fmt: skip
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        read_kafel(text)
    assert refused.value.code == "adapter_invalid"
