"""What `immure manifest lint` says: every fault and every piece of advice, each at its line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from immured.errors import Refused
from immured.isolation.granted import granted
from immured.isolation.seccomp import compile_profile
from immured.manifest.builtin import CLASSES, class_text, parse_toml
from immured.manifest.lint import Finding, Level, lint
from immured.manifest.schema import Syscalls

HEAD = 'schema = 1\nname = "m"\npersonas = ["a"]\n'
QUIET = "[command]\nallow = ['make']\npass_env = ['CC']\n"


def linted(text: str | bytes) -> list[Finding]:
    raw = text.encode() if isinstance(text, str) else text
    return lint(raw, granted(), filtered)


def filtered(given: Syscalls) -> object:
    return compile_profile(given.profile, given.allow, given.deny)


def faults(text: str) -> list[tuple[int, str]]:
    return [(one.line, one.message) for one in linted(text) if one.level is Level.ERROR]


def advice(text: str) -> list[tuple[int, str, str]]:
    return [(one.line, str(one.level), one.kind) for one in linted(text) if one.level is not Level.ERROR]


def test_a_quiet_manifest_has_nothing_to_be_said_of() -> None:
    assert linted(HEAD + QUIET) == []


def test_every_fault_is_told_at_its_line() -> None:
    text = """schema = 1
name = "m"
clas = "default"
[filesystem]
read = [
  "/ok",
  "relative",                            # 7
  { path = "/x", tarjet = "/y" },        # 8
  { path = "/z", target = "/proc/z" },   # 9

  "/a/../b",                             # 11
]
on_violation = "warn"
[command]
allow = [
  "make",
  { program = "git", arguments = [["log"], [5]] },  # 17
  "",                                    # 18
]
[limits]
memory = "1K"
wall = "soon"
[network]
mode = "host"
"""
    assert [line for line, _ in faults(text)] == [3, 7, 8, 9, 11, 13, 17, 18, 21, 22, 24]
    assert faults(text)[0] == (3, "manifest holds an unknown field 'clas'")


@pytest.mark.parametrize("seed", range(20))
def test_entries_taken_out_move_no_other(seed: int) -> None:
    """However many entries of a list are wrong, each is told at its own line."""
    choose = random.Random(seed)
    wrong = sorted(choose.sample(range(30), k=choose.randint(1, 20)))
    lines = [f"  {'5' if number in wrong else repr(f'/p{number}')}," for number in range(30)]
    text = HEAD + "[filesystem]\nread = [\n" + "\n".join(lines) + "\n]\n"
    assert [line for line, _ in faults(text)] == [number + 6 for number in wrong]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('schema = 1\nname = "m"\n[x\n', 3),
        ('schema = 1\nname = "m"\nname = "n"\n', 3),
        ("", 0),
        ('name = "m"\n', 0),
        ('schema = 2\nname = "m"\n', 1),
        ("schema = 1\n", 0),
        ("name = 5\nschema = 1\n", 1),
        ('schema = 1\nname = "m"\nclass = "none"\n[limits]\nmemory = "1K"\n', 3),
        ('schema = 1\nname = "m"\n[parameters.x]\ntype = "path"\n', 3),
        ('schema = 1\nname = "m"\n[syscalls]\nallow = ["read",\n"nope"]\n', 5),
        ('schema = 1\nname = "m"\n[syscalls]\nprofile = "nope"\n', 4),
    ],
)
def test_where_a_fault_stands(text: str, expected: int) -> None:
    assert faults(text)[0][0] == expected


def test_a_file_that_is_too_large_is_one_fault() -> None:
    assert [one.kind for one in linted("#" * 300_000)] == ["invalid"]


ADVICE: dict[str, tuple[str, list[tuple[int, str, str]]]] = {
    "everybody": ('schema = 1\nname = "m"\n' + QUIET, [(0, "note", "everybody")]),
    "any command": (HEAD, [(0, "note", "any-command")]),
    "not pinned": (HEAD + QUIET + "pin = false\n", [(7, "warning", "unpinned")]),
    "interpreters": (
        HEAD
        + "[command]\nallow = [\n'/bin/bash',\n'python3.11', { program = 'sh', arguments = [['x.sh']] }]\npass_env=[]",
        [(6, "note", "interpreter"), (7, "note", "interpreter")],
    ),
    "any variable": (
        HEAD + "[command]\nallow = ['make']\npass_env = ['CC', 'LD_*']\n",
        [(6, "warning", "any-variable")],
    ),
    "the class lets any variable be set": (HEAD + "[command]\nallow = ['make']\n", [(4, "warning", "any-variable")]),
    "a secret": (HEAD + QUIET + "env = { API_TOKEN = 'x', TOKENS = '' }\n", [(7, "warning", "secret")]),
    "a sensitive write": (
        HEAD + QUIET + "[filesystem]\nwrite = [\n'/srv/p', '/home/ada',\n'/etc/x']\nprotect = ['@vcs']\n",
        [(9, "warning", "sensitive-write"), (10, "warning", "sensitive-write")],
    ),
    "not protected": (HEAD + QUIET + "[filesystem]\nwrite = ['/srv/p']\n", [(8, "note", "unprotected")]),
    "one within another": (
        HEAD + QUIET + "[filesystem]\nread = ['/data', '/data/a',\n{ path = '/data/b', target = '/b' }]\n",
        [(8, "note", "within")],
    ),
    "what covers nothing": (
        HEAD
        + QUIET
        + "[filesystem]\nread = ['/data']\nhide = ['/data/a', '/x']\nprotect = ['/data/b', '@vcs', '/tmp/x']\n",
        [(9, "note", "hides-nothing"), (10, "note", "protects-nothing"), (10, "note", "protects-nothing")],
    ),
    "what the class kept": (
        'schema = 1\nname = "m"\nclass = "build"\npersonas = ["a"]\n'
        + QUIET
        + "[filesystem]\nwrite = ['/srv/p']\nprotect = ['@vcs']\n",
        [(10, "warning", "dropped")],
    ),
    "no end": (
        HEAD + QUIET + "[limits]\nwall = 'none'\ndisk = 'none'\n",
        [(8, "warning", "no-end"), (9, "note", "no-disk")],
    ),
    "system calls": (
        HEAD + QUIET + "[syscalls]\nallow = ['ptrace',\n'read',\n'mbind',\n'listen']\ndeny = ['listen']\n",
        [(8, "warning", "sharp-call"), (9, "note", "granted-already"), (11, "warning", "denied-too")],
    ),
    "consent that is not asked": (HEAD + QUIET + "[consent]\nvalid = '1h'\n", [(7, "warning", "consent-unused")]),
    "parameters": (
        HEAD + QUIET + "[parameters.a]\ntype = 'path'\nwithin = ['/data',\n'/home']\n",
        [(7, "warning", "parameter-unused"), (10, "note", "parameter-wide")],
    ),
    "line ends": ((HEAD + QUIET).replace("\n", "\r\n", 2), [(1, "note", "line-ends")]),
}


@pytest.mark.parametrize("name", ADVICE)
def test_advice(name: str) -> None:
    text, expected = ADVICE[name]
    assert advice(text) == expected


def test_what_nobody_sees_is_told_at_its_line() -> None:
    """By the validator, or where it takes it, as advice."""
    found = linted(HEAD + QUIET + "# \u202e hidden\n")
    assert [(one.line, "U+202E" in one.message) for one in found] == [(7, True)]


@pytest.mark.parametrize("name", CLASSES)
def test_the_classes_have_no_faults(name: str) -> None:
    assert [one for one in linted(class_text(name)) if one.level is Level.ERROR] == []


def test_errors_are_what_the_daemon_refuses() -> None:
    """Over texts that are damaged at random: an error exactly where it refuses, its own words among them, and no text
    that lint cannot read."""
    choose = random.Random(3)
    text = Path(__file__).parents[2].joinpath("profiles/manifests/build.toml").read_text("utf-8")
    pieces = ['"', "[", "]", "=", "\n", "[x]\n", "a = 1\n", "${x}", "\0", "é", "\u202e", "'", "{", "}", "9" * 30, "-"]
    for _ in range(400):
        damaged = text
        for _ in range(choose.randint(1, 3)):
            at = choose.randrange(len(damaged))
            damaged = damaged[:at] + choose.choice(pieces) + damaged[at + choose.randint(0, 4) :]
        found = lint(damaged.encode())
        told = [one.message for one in found if one.level is Level.ERROR]
        said = refusal(damaged)
        assert said in told if said is not None else told == [], damaged
        assert all(0 <= one.line <= damaged.count("\n") + 1 for one in found)


def refusal(text: str) -> str | None:
    try:
        parse_toml(text)
    except Refused as refused:
        return refused.message
    return None


def test_bytes_that_are_no_text_are_one_fault() -> None:
    for raw in (b"\xff\xfe\x00", b"\x00" * 50, bytes(range(256))):
        assert [one.level for one in linted(raw)] == [Level.ERROR]
