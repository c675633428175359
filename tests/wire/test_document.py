"""docs/protocol.md and docs/ledger.md say what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from immured.ledger import entry_types
from immured.service.commands import load_commands
from immured.wire import envelope, frames, messages, strict_msgpack
from tests.wire.vectors import load

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
LEDGER = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
SESSION = load("session.json")

# What only an operator or a client's own side meets, never a reply.
NOT_ON_THE_WIRE = frozenset({"bad_reply"})
PACKAGES = ("wire", "identity", "manifest", "isolation", "service")
CODE = re.compile(r"\bRefused\(\s*\"([a-z_]+)\"")


def codes_in_use() -> set[str]:
    sources = (path for package in PACKAGES for path in (ROOT / "daemon" / "immured" / package).rglob("*.py"))
    return {code for path in sources for code in CODE.findall(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("code", sorted(codes_in_use() - NOT_ON_THE_WIRE))
def test_every_error_that_is_raised_is_explained(code: str) -> None:
    assert f"`{code}`" in TEXT


def commands_in_the_table() -> set[str]:
    """A row's first cell is `family.verb`, and of the same family `.verb`, as many as there are."""
    named = set()
    for row in re.findall(r"^\| (`.*?) \|", TEXT.partition("## Commands")[2].partition("###")[0], re.MULTILINE):
        first, *others = re.findall(r"`([a-z._]+)`", row)
        named |= {first, *(first.partition(".")[0] + other for other in others)}
    return named - {"cmd"}


def test_the_table_of_commands_is_the_daemon_s() -> None:
    assert commands_in_the_table() == set(load_commands())


def test_the_ledger_s_table_has_every_type_of_entry() -> None:
    written = {value for name, value in vars(entry_types).items() if name.isupper()}
    assert written == set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", LEDGER, re.MULTILINE))


@pytest.mark.parametrize("kind", [messages.HELLO, messages.COMMAND, messages.REPLY, messages.DATA])
def test_every_message_type_is_named(kind: str) -> None:
    assert f"`{kind}`" in TEXT


@pytest.mark.parametrize(
    ("what", "figure"),
    [
        ("a frame's body", frames.MAX_FRAME),
        ("data in one data frame", messages.MAX_DATA),
        ("captured stdout, and stderr, each", messages.MAX_CAPTURE),
        ("`exp - iat`", messages.MAX_LIFETIME_MS),
        ("clock skew allowed", messages.SKEW_MS),
        ("signatures of an envelope", envelope.MAX_SIGNATURES),
        ("values in one msgpack value; depth", strict_msgpack.MAX_ITEMS),
    ],
)
def test_the_bounds_are_the_code_s(what: str, figure: int) -> None:
    line = next(line for line in TEXT.splitlines() if line.startswith(f"| {what} |"))
    assert f"{figure:,}" in line


@pytest.mark.parametrize(
    "hexadecimal",
    [
        SESSION["command_signature"][:64],
        SESSION["command_signature"][64:],
        SESSION["req"],
        *(key["id"] for key in load("keys.json")["keys"] if key["name"] != "bob"),
        *(frame["frame"][:8] for frame in SESSION["frames"][1:4]),
    ],
)
def test_the_worked_example_is_the_vector(hexadecimal: str) -> None:
    assert hexadecimal in TEXT


def test_the_worked_example_names_the_length_that_is_signed() -> None:
    signed = bytes.fromhex(SESSION["command_pae"]).split(b"\x86")[0].decode()
    assert f"`{signed}`" in TEXT
