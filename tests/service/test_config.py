"""`config.toml`: the defaults it shows, and what it may hold."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from immured.errors import ConfigurationError
from immured.service.config import DEFAULT_TEXT, Config, NamedPath, parse_config


def test_the_file_that_init_writes_says_nothing() -> None:
    assert parse_config(DEFAULT_TEXT) == Config()


def test_the_defaults_that_it_shows_are_the_defaults() -> None:
    shown = re.sub(r"(?m)^# (\w+ = [^#\n]*).*$", r"\1", DEFAULT_TEXT)
    changed = parse_config(shown)
    for field in dataclasses.fields(Config):
        default = getattr(Config(), field.name)
        if default is not None:
            assert getattr(changed, field.name) == default, field.name


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
        ("[audit]\nexports = ['relative']", "not an absolute path"),
        ("[audit]\nexports = ['/a', '/a']", "names a destination twice"),
        (f"[audit]\nexports = {[f'/{one}' for one in range(9)]}", "more than 8"),
        ("[audit]\nexports = [7]", "neither a directory nor"),
        ("[audit]\nexports = [{ too = '/a' }]", "did you mean 'to'"),
        ("[audit]\nexports = [{ every = '5m' }]", "has no `to`"),
        ("[audit]\nexports = [{ to = '/a', every = '5' }]", "audit.exports[0].every"),
        ("[audit]\nexports = [{ to = '/a', lock = '1d' }]", "is for s3:// only"),
        ("[audit]\nexports = [{ to = '/a', format = 'tar' }]", "lines or tiles"),
        ("[audit]\nexports = ['s3://Bad']", "no bucket's name"),
        ("[audit]\nexports = [{ to = 's3://bucket', lock_mode = 'compliance' }]", "`lock` how long"),
        ("[audit]\nexports = [{ to = 's3://bucket', lock = '1d', lock_mode = 'none' }]", "compliance or governance"),
        ("[audit]\nexports = [{ to = 's3://bucket', endpoint = 'https://a:b@h' }]", "is not http[s]://HOST[:PORT]"),
        ("[audit]\nexports = [{ to = 's3://bucket', credentials = 'here' }]", "not an absolute path"),
        ("[audit]\nexport = ['/a']", "did you mean 'audit.exports'"),
        ("[ledger]\ncheckpoint_s = 0", "checkpoint_s is 0"),
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


def test_named_paths_are_read_by_default() -> None:
    config = parse_config(
        '[paths.named]\ndatasets = { path = "/srv/datasets" }\nout = { path = "/srv/out", access = "write" }\n'
    )
    assert dict(config.named) == {
        "datasets": NamedPath(Path("/srv/datasets"), write=False),
        "out": NamedPath(Path("/srv/out"), write=True),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('named = "/srv"', "no table"),
        ('named.x = "/srv"', "paths.named.x"),
        ('named.x = { path = "srv" }', "not an absolute path"),
        ('named.x = { path = "/srv/../etc" }', "not an absolute path"),
        ("named.x = {}", "paths.named.x.path"),
        ('named.x = { path = "/srv", access = "rw" }', "read or write"),
        ('named.x = { path = "/srv", acces = "read" }', "paths.named.x.acces"),
        ('named."../x" = { path = "/srv" }', "a name is"),
        ('named.X = { path = "/srv" }', "a name is"),
    ],
)
def test_a_named_path_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)) as caught:
        parse_config(f"[paths]\n{text}\n")
    assert caught.value.code == "bad_configuration"
