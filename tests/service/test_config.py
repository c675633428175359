"""`config.toml`: the defaults it shows, and what it may hold."""

from __future__ import annotations

import re
import tomllib

import pytest

from immured.errors import ConfigurationError
from immured.service.config import DEFAULT_TEXT, Config, parse_config


def test_the_file_that_init_writes_says_nothing() -> None:
    assert parse_config(DEFAULT_TEXT) == Config()


def test_the_defaults_that_it_shows_are_the_defaults() -> None:
    shown = tomllib.loads(re.sub(r"(?m)^# (\w+ = [^#\n]*).*$", r"\1", DEFAULT_TEXT))
    for table in shown.values():
        for name, value in table.items():
            default = getattr(Config(), name)
            if default is not None:
                assert value == (list(default) if isinstance(default, tuple) else default), name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[daemon", "config.toml"),
        ("a = " + "[" * 9000, "nested too deeply"),
        ("a = " + "9" * 9000, "4300 digits"),
        ("[demon]", "did you mean 'daemon'"),
        ("[daemon]\nmax_run = 1", "did you mean 'daemon.max_runs'"),
        ("daemon = 1", "unknown"),
        ("[daemon]\nmax_runs = 0", "max_runs is 0"),
        ("[daemon]\nmax_runs = true", "max_runs is True"),
        ("[daemon]\naudiences = 'x'", "not a list"),
        ("[paths]\nread = ['relative']", "not an absolute path"),
        ("[paths]\nread = ['/a/../b']", "not an absolute path"),
        ("[launcher]\npool_min = 9\npool_max = 3", "above"),
        ("[launcher]\nslot_base = 70000", "stand together"),
    ],
)
def test_what_it_may_not_hold_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text)
    assert said in f"{caught.value.message} {caught.value.remedy}"


def test_what_it_says_is_taken() -> None:
    config = parse_config("[daemon]\naudiences = ['pool-a']\n[paths]\nread = ['/srv/data']\n")
    assert (config.audiences, [str(path) for path in config.read]) == (("pool-a",), ["/srv/data"])
