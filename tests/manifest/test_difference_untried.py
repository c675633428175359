"""What parameters hide from who compares: values that are not tried must not make a difference look small."""

from __future__ import annotations

from typing import Final

import pytest

from immured.manifest.builtin import parse_toml
from immured.manifest.difference import Severity, difference
from immured.manifest.schema import Manifest

LETTERS: Final = '[parameters.a]\ntype = "text"\npattern = "a-z"\nlongest = 9\n'
PATHS: Final = '[parameters.a]\ntype = "text"\npattern = "a-z/"\nlongest = 9\n'
NUMBERS: Final = '[parameters.a]\ntype = "integer"\nleast = 1\nmost = 99\n'


def manifest(more: str) -> Manifest:
    return parse_toml(f'schema = 1\nname = "x"\n{more}')


def test_the_last_of_many_values_is_not_told_as_little() -> None:
    """`/etc` is the 61st of a choice; so many are never tried."""
    values = ", ".join(f'"/srv/a{at}"' for at in range(60))
    before = manifest('[filesystem]\nwrite = ["/srv"]\n')
    after = manifest(
        f'[filesystem]\nwrite = ["/srv", "${{n}}"]\n[parameters.n]\ntype = "choice"\nvalues = [{values}, "/etc"]\n'
    )
    assert difference(before, after).severity == Severity.CRITICAL


def test_nor_is_what_many_parameters_come_to_together() -> None:
    names = [f"p{at}" for at in range(8)]
    table = "".join(
        f'[parameters.{one}]\ntype = "choice"\nvalues = ["/srv/a{one}", "/srv/b{one}", "/srv/c{one}"]\n'
        for one in names
    )
    binds = ", ".join(f'"${{{one}}}"' for one in names)
    before = manifest('[filesystem]\nwrite = ["/srv"]\n')
    after = manifest(f'[filesystem]\nwrite = ["/srv", {binds}]\n{table}')
    assert difference(before, after).severity == Severity.CRITICAL


@pytest.mark.parametrize(
    ("hidden", "path", "table"),
    [
        ("/srv/xab", "/srv/x${a}", LETTERS),
        ("/srv/abx", "/srv/${a}x", LETTERS),
        ("/srv/x7", "/srv/x${a}", NUMBERS),
        ("/srv/7/in", "/srv/${a}", NUMBERS),
        ("/srv/x/y", "/srv/${a}", PATHS),
        ("/srv/a.b", "/srv/${a}.${a}", LETTERS),
        ("/srv/ab$", "/srv/${a}$$", LETTERS),
    ],
)
def test_what_was_hidden_is_met_by_part_of_a_name(hidden: str, path: str, table: str) -> None:
    before = manifest(f'[filesystem]\nwrite = ["/srv"]\nhide = ["{hidden}"]\n')
    after = manifest(
        f'[filesystem]\nwrite = ["/srv", {{ path = "{path}", target = "/out" }}]\n'
        f'hide = ["{hidden.replace("$", "$$")}"]\n{table}'
    )
    found = difference(before, after).severity
    assert found is not None
    assert found >= Severity.HIGH


def test_a_word_that_a_run_fills_in_is_any_word_of_its_bounds() -> None:
    """The sample may just fit what was allowed."""
    before = manifest('[command]\nallow = [{ program = "git", arguments = [["a*"]] }]\n')
    after = manifest(f'[command]\nallow = [{{ program = "git", arguments = [["${{a}}"]] }}]\n{LETTERS}')
    found = difference(before, after).severity
    assert found is not None
    assert found >= Severity.HIGH


def test_what_has_nothing_to_do_with_them_is_told_as_it_is() -> None:
    """However many values there are: their part is written as it was."""
    text = f'[filesystem]\nwrite = ["/srv/${{a}}${{a}}"]\n{LETTERS}'
    before, after = manifest(text), manifest(f'{text}[limits]\nmemory = "1G"\n')
    assert [one.field for one in difference(before, after).added] == ["limits.memory"]
    assert difference(after, after).added == ()
