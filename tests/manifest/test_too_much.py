"""A manifest that is too much, of whatever there may be of it, is refused with its whole message, and at once."""

from __future__ import annotations

import pytest

from immured.errors import Refused
from immured.manifest.builtin import parse_toml

H = 'schema = 1\nname = "case"\n'
LONG = "the manifest is not TOML: nested too deeply"
MADE: dict[str, tuple[str | bytes, str]] = {
    "nothing": (b"", "manifest.name is missing"),
    "huge": (H + "#" * 262_144, "the manifest has 262169 bytes; at most 262144"),
    "no text": (
        H.encode() + b"# \xff\xfe",
        "the manifest is not TOML: line 3 holds bytes that are not UTF-8",
    ),
    "half a character": (
        H.encode() + b"# \xc3",
        "the manifest is not TOML: line 3 holds bytes that are not UTF-8",
    ),
    "a surrogate": (
        H.encode() + b"# \xed\xa0\x80",
        "the manifest is not TOML: line 3 holds bytes that are not UTF-8",
    ),
    "UTF-16": (
        H.encode("utf-16"),
        "the manifest is not TOML: line 1 holds bytes that are not UTF-8",
    ),
    "a list of lists": (H + "personas = " + "[" * 20_000, LONG),
    "a table of tables": (H + "filesystem = " + "{a = " * 20_000, LONG),
    "a table's long name": (H + "[" + "a." * 5_000 + "a]", LONG),
    "a long dotted key": (H + "filesystem" + ".a" * 5_000 + " = 1", LONG),
    "a number of very many digits": (
        H + "[limits]\npids = " + "9" * 5_000,
        "the manifest is not TOML: an integer of more than 64 bits",
    ),
    "very many names": (
        H + "".join(f"a{index} = 1\n" for index in range(10_000)),
        "manifest holds an unknown field 'a0'",
    ),
    "very many personas": (
        H + f"personas = {[f'p{index}' for index in range(65)]}",
        "manifest.personas has 65 entries; at most 64",
    ),
    "very many programs": (
        H + f"[command]\nallow = {['make'] * 257}",
        "manifest.command.allow has 257 entries; at most 256",
    ),
    "very many patterns": (
        H + f"[command]\nallow = [{{ program = 'git', arguments = {[['x']] * 65} }}]",
        "manifest.command.allow.arguments has 65 entries; at most 64",
    ),
    "a pattern of very many words": (
        H + f"[command]\nallow = [{{ program = 'git', arguments = [{['x'] * 257}] }}]",
        "manifest.command.allow.arguments holds a pattern of 257 words; at most 256",
    ),
    "a word without end": (
        H + f"[command]\nallow = [{{ program = 'git', arguments = [['{'x' * 4096}']] }}]",
        "manifest.command.allow.arguments holds a word of 4096 bytes; at most 4095",
    ),
    "very many variables": (
        H + "[command.env]\n" + "".join(f"A{index} = ''\n" for index in range(510)),
        "manifest.command.env holds 515 variables; at most 512",
    ),
    "a variable without end": (
        H + f"[command.env]\nA = '{'x' * 131_072}'\n",
        "manifest.command.env holds 131072 bytes in 'A'; name and value have at most 131070",
    ),
    "very many paths": (
        H + f"[filesystem]\nread = {[f'/r{index}' for index in range(200)]}\n"
                 f"hide = {[f'/h{index}' for index in range(60)]}",
        "manifest.filesystem.read and the other lists have 261 paths; at most 256",
    ),
    "a path without end": (
        H + f"[filesystem]\nread = ['{'/a' * 2_100}']",
        f"manifest.filesystem.read holds '{'/a' * 32}…', which has 4200 bytes; a path has at most 4095",
    ),
    "very many system calls": (
        H + f"[syscalls]\ndeny = {['read'] * 513}",
        "manifest.syscalls.deny has 513 entries; at most 512",
    ),
    "very many secrets": (
        H + "".join(f"[secrets.A{index}]\n" for index in range(65)),
        "manifest.secrets has 65 entries; at most 64",
    ),
    "very many parameters": (
        H + "".join(f"[parameters.a{index}]\n" for index in range(33)),
        "manifest.parameters has 33 entries; at most 32",
    ),
    "a value that is named very often": (
        H + "[command.env]\n" + f"A = '{'${t}' * 2_000}'\n"
                 f"[parameters.t]\ntype = 'choice'\nvalues = ['{'a' * 256}']\ndefault = '{'a' * 256}'\n"
                 + "".join(f"[parameters.t{index}]\ntype = 'choice'\nvalues = ['a']\n" for index in range(3)),
        "manifest.command.env holds 512000 bytes in 'A'; name and value have at most 131070",
    ),
    "a value that makes a megabyte": (
        H + "[command.env]\n" + "".join(f"A{index} = '{'${t}' * 1_000}'\n" for index in range(5))
                 + f"[parameters.t]\ntype = 'choice'\nvalues = ['{'a' * 256}']\n",
        "the parameters come to more than 1048576 characters",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MADE)
def test_what_is_too_much_is_refused_with_its_whole_message(what: str) -> None:
    text, message = MADE[what]
    with pytest.raises(Refused) as refused:
        parse_toml(text)
    assert (refused.value.code, refused.value.message) == ("manifest_invalid", message)
