"""Where in a TOML text each name and entry stands, held against tomllib's reading of the same text."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path as File

import pytest

from immured.manifest.lines import Path, lines_of

ROOT = File(__file__).parents[2]
SHIPPED = sorted((ROOT / "daemon/immured/profiles").rglob("*.toml"))


def paths_of(value: object, above: Path = ()) -> set[Path]:
    found: set[Path] = set()
    pairs: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        pairs = [(name, inner) for name, inner in value.items()]
    elif isinstance(value, list):
        pairs = list(enumerate(value))
    for name, inner in pairs:
        found |= {(*above, name)} | paths_of(inner, (*above, name))
    return found


def test_each_name_and_entry_has_its_line() -> None:
    text = """schema = 1

[filesystem]
read = [
  "/a",   # ] not the end
  { path = "/b", target = "/c" },
]
"quo.ted" = 'x'
a.b . c = '''
one [
two'''
[[rules]]
when = []
[[rules]]
when = [["x", 1],
        ["y"]]
[rules.inner]
deep = { a = { b = [1, 2] } }
"""
    assert lines_of(text) == {
        ("schema",): 1,
        ("filesystem",): 3,
        ("filesystem", "read"): 4,
        ("filesystem", "read", 0): 5,
        ("filesystem", "read", 1): 6,
        ("filesystem", "read", 1, "path"): 6,
        ("filesystem", "read", 1, "target"): 6,
        ("filesystem", "quo.ted"): 8,
        ("filesystem", "a"): 9,
        ("filesystem", "a", "b"): 9,
        ("filesystem", "a", "b", "c"): 9,
        ("rules",): 12,
        ("rules", 0): 12,
        ("rules", 0, "when"): 13,
        ("rules", 1): 14,
        ("rules", 1, "when"): 15,
        ("rules", 1, "when", 0): 15,
        ("rules", 1, "when", 0, 0): 15,
        ("rules", 1, "when", 0, 1): 15,
        ("rules", 1, "when", 1): 16,
        ("rules", 1, "when", 1, 0): 16,
        ("rules", 1, "inner"): 17,
        ("rules", 1, "inner", "deep"): 18,
        ("rules", 1, "inner", "deep", "a"): 18,
        ("rules", 1, "inner", "deep", "a", "b"): 18,
        ("rules", 1, "inner", "deep", "a", "b", 0): 18,
        ("rules", 1, "inner", "deep", "a", "b", 1): 18,
    }


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_what_is_shipped_is_found_whole(file: File) -> None:
    text = file.read_text("utf-8")
    assert set(lines_of(text)) == paths_of(tomllib.loads(text))


def test_random_texts_are_found_whole() -> None:
    choose = random.Random(11)
    strings = ['"a]b"', "'{'", '"""x\n[t]\n"""', "'''\n'q''''", '"\\"#"', '"a\\\\"', '""', "''", '"""a""""']
    scalars = ["1", "true", "1.5", "1979-05-27T07:32:00Z", "inf", "-7", "0x1f"]

    def name(number: int) -> str:
        return choose.choice([f"k{number}", f'"k {number}"', f"'k.{number}'", f"a{number} . b", f'"\\u00e9{number}"'])

    def value(depth: int) -> str:
        kind = choose.random()
        if depth and kind < 0.3:
            gap = choose.choice([" ", "\n", " # ] [ \n", ""])
            return "[" + gap + f",{gap}".join(value(depth - 1) for _ in range(choose.randint(0, 3))) + gap + "]"
        if depth and kind < 0.5:
            inner = (f"{name(n)} = {value(depth - 1)}" for n in range(choose.randint(0, 3)))
            return "{ " + ", ".join(inner) + " }"
        return choose.choice(strings if kind < 0.8 else scalars)

    for _ in range(400):
        text = ""
        for number in range(choose.randint(0, 4)):
            text += f"{name(number)} = {value(3)}{choose.choice(['', ' # c', '  '])}\n"
        for number in range(choose.randint(0, 4)):
            head = choose.choice([f"[t{number}]", "[[list]]", f"[ u{number} . 'v w' ]"])
            text += f"{choose.choice(['', '  '])}{head} # [x]\n"
            text += "".join(f"{name(n)}={value(2)}\n" for n in range(choose.randint(0, 3)))
        assert set(lines_of(text)) == paths_of(tomllib.loads(text)), text
        assert lines_of(text.replace("\n", "\r\n")).keys() == lines_of(text).keys()
        assert all(1 <= line <= text.count("\n") + 1 for line in lines_of(text).values())


def test_what_is_nested_deeply_does_no_harm() -> None:
    lines_of("a = " + "[" * 5000 + "]" * 5000)
