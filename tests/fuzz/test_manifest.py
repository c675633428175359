"""The fuzzer's checks, as a test: on the corpus, near it, on any text, and on lines of several files put together."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immured.errors import Refused
from immured.manifest.builtin import parse_map, parse_toml
from immured.manifest.signature import show_signatures, sign
from immured.manifest.words import fits
from tests.fuzz import fuzz_manifest
from tests.fuzz.fuzz_manifest import known_inputs, known_signatures
from tests.fuzz.manifests import GIVEN, NEAR, TEXTS, toml_of
from tests.manifests.corpus import HERE, VALID
from tests.manifests.made import MADE, MADE_VALID

KNOWN = known_inputs()
LARGE = sorted((MADE | MADE_VALID).items())
LINES = sorted({line for raw in KNOWN for line in raw.split(b"\n")})
SIGNATURES = known_signatures()
HEAD = b'schema = 1\nname = "near"\n'
BITS = [b"${p}", b"..", b"$$", b"*", b"...", b"none", b"\xe2\x80\xae", b"'''", b'"""', b"\\u0000", b"]]", b"= {", b"\r"]
WITH_PARAMETERS = [parse_toml(path.read_bytes()) for path in VALID if b"[parameters" in path.read_bytes()]
WORDS = st.lists(st.text("ab*.\\", max_size=8).map(str.encode) | st.sampled_from([b"...", b"*", b""]), max_size=4)
FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.parametrize("number", range(len(KNOWN)))
def test_what_is_known(number: int) -> None:
    fuzz_manifest.one_input(KNOWN[number])


@pytest.mark.parametrize(("name", "raw"), LARGE, ids=[name for name, _ in LARGE])
def test_what_is_large(name: str, raw: bytes) -> None:
    fuzz_manifest.read_file(raw)


@FUZZ
@given(st.sampled_from(KNOWN), st.data())
def test_bytes_near_what_is_known(seed: bytes, data: st.DataObject) -> None:
    mutated = bytearray(seed or b"\n")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        if data.draw(st.booleans()):
            mutated[at] = data.draw(st.sampled_from(b' "$[]{}=.,/\\*-_@:#\n\x00\x7f\xc3019aZ'))
        else:
            mutated[at:at] = data.draw(st.sampled_from(BITS))
    fuzz_manifest.read_file(bytes(mutated))


@FUZZ
@given(st.lists(st.sampled_from(LINES), max_size=30))
def test_lines_of_several(lines: list[bytes]) -> None:
    fuzz_manifest.read_file(HEAD + b"\n".join(lines))


@FUZZ
@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_any_bytes(data: bytes) -> None:
    fuzz_manifest.one_input(data)
    fuzz_manifest.read_file(HEAD + data)


@FUZZ
@given(NEAR)
def test_a_map_and_a_file_that_say_the_same(values: dict[str, Any]) -> None:
    text = toml_of(values)
    assert tomllib.loads(text) == values
    fuzz_manifest.read_both(values, text)


@FUZZ
@given(NEAR, NEAR)
def test_how_two_differ(one: dict[str, Any], other: dict[str, Any]) -> None:
    try:
        first, second = parse_map(one), parse_map(other)
    except Refused:
        return
    fuzz_manifest.compare(first, second)


@FUZZ
@given(st.sampled_from(WITH_PARAMETERS), GIVEN)
def test_what_is_filled_in(manifest: Any, given: dict[str, object]) -> None:
    defaults: dict[str, object] = {"project": "/srv/projects/a", "mode": "debug"}
    declared = {one.name for one in manifest.parameters}
    fuzz_manifest.fill_in(manifest, given)
    fuzz_manifest.fill_in(manifest, {name: one for name, one in {**defaults, **given}.items() if name in declared})


@FUZZ
@given(st.sampled_from(WITH_PARAMETERS), TEXTS)
def test_paths_that_are_filled_in(manifest: Any, end: str) -> None:
    for begin in ("", "/", "/srv/projects/", "/srv/projects", "/home/"):
        fuzz_manifest.fill_in(manifest, {"project": begin + end, "mode": "debug"})


@FUZZ
@given(WORDS, WORDS)
def test_patterns_of_words(words: list[bytes], pattern: list[bytes]) -> None:
    fuzz_manifest.match(words, pattern)


@FUZZ
@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6), max_size=4))
def test_patterns_of_any_bytes(words: list[bytes], pattern: list[bytes]) -> None:
    fuzz_manifest.match(words, pattern)


def test_a_pattern_of_many_asterisks_takes_no_time() -> None:
    pattern = b"*a" * 2047
    with fuzz_manifest.bounded("matching"):
        assert fits([b"a" * 4095], [pattern])
        assert not fits([b"a" * 100_000 + b"c"], [pattern])
        assert not fits([b"a" * 100_000], [b"*" * 2000 + b"b" + b"*" * 2000])


@FUZZ
@given(st.sampled_from(SIGNATURES), st.data())
def test_signature_files_near_what_is_known(seed: bytes, data: st.DataObject) -> None:
    mutated = bytearray(seed)
    for _ in range(data.draw(st.integers(0, 3))):
        mutated = mutated or bytearray(b"\n")
        at = data.draw(st.integers(0, len(mutated) - 1))
        if data.draw(st.booleans()):
            mutated[at] = data.draw(st.integers(0, 255))
        elif data.draw(st.booleans()):
            del mutated[at]
        else:
            mutated[at:at] = data.draw(
                st.sampled_from([b"\n", b" ", b"0", b"=", b"\r\n", b"\t", b"-", bytes(mutated[:60])])
            )
    fuzz_manifest.read_signatures(bytes(mutated))


@FUZZ
@given(st.sampled_from(KNOWN), st.integers(-90_000_000, 90_000_000), st.integers(1, 100_000_000), st.data())
def test_what_is_loaded_is_what_was_signed(raw: bytes, at: int, life: int, data: st.DataObject) -> None:
    """Signed, and then one of the two files is another."""
    start = fuzz_manifest.NOW + at
    text = show_signatures([sign(fuzz_manifest.KEY, raw, start, start + life)]).encode()
    fuzz_manifest.judge_file(raw, text)
    changed, other = data.draw(st.sampled_from([(raw, text), (text, raw)]))
    place = data.draw(st.integers(0, len(changed)))
    mutated = changed[:place] + data.draw(st.binary(max_size=3)) + changed[place + data.draw(st.integers(0, 3)) :]
    fuzz_manifest.judge_file(*((mutated, other) if changed is raw else (other, mutated)))


@FUZZ
@given(st.binary(max_size=300))
def test_signature_files_of_any_bytes(data: bytes) -> None:
    fuzz_manifest.read_signatures(data)
    fuzz_manifest.read_signatures(b"immured-signature v1\n" + data)


def test_the_corpus_is_there() -> None:
    assert len(KNOWN) > 400
    assert SIGNATURES
    assert WITH_PARAMETERS
    assert HERE.is_dir()
