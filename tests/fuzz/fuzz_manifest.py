"""Fuzzes what reads manifests: files, maps, signatures; what is filled in, what is made of them, and how they differ.

    python tests/fuzz/fuzz_manifest.py [CORPUS...]  with atheris installed: coverage-guided, until stopped
    pytest tests/fuzz/test_manifest.py              without it: the corpus of tests/manifests, and what is near it

The functions hold what must be so of any input: a result or one typed refusal that can be shown to anybody, nothing
else raised, in bounded time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator

from immured.errors import Refused
from immured.host.facts import HostFacts
from immured.isolation.compile import RunSpec, compile_plan
from immured.isolation.filesystem import Grants, Volume
from immured.isolation.granted import granted
from immured.manifest.builtin import class_manifest, parse_map, parse_toml
from immured.manifest.capabilities import capabilities
from immured.manifest.difference import Difference, difference
from immured.manifest.finding import Level
from immured.manifest.lint import lint
from immured.manifest.parameters import fill
from immured.manifest.paths import beneath
from immured.manifest.pipeline import Rules, SignerKey, judge
from immured.manifest.schema import Manifest
from immured.manifest.signature import parse_signatures, show_signatures, signed_type
from immured.manifest.words import escape, fits, word_problem
from immured.service.sandboxes.plain import from_plain, to_plain
from immured.wire.envelope import pae
from immured.wire.keys import PrivateKey
from immured.wire.strict_msgpack import pack
from immured.wire.strict_toml import parse_toml as parse_text
from tests.manifests.corpus import HERE, INVALID, VALID, meaning

SECONDS = 2.0
ADMITS = Draft7Validator(json.loads((HERE.parents[1] / "profiles" / "manifest.schema.json").read_text("utf-8")))
FACTS = HostFacts(cpus=4, cores=0xF, controllers=frozenset({"memory", "pids", "cpu", "io", "cpuset"}), cgroup="/x")
CALLS = granted()
SIGNATURES = Path(__file__).resolve().parents[1] / "vectors" / "manifest" / "signatures.json"


@contextlib.contextmanager
def bounded(what: str) -> Iterator[None]:
    """Of processor time, whatever else runs on the machine."""
    began = time.process_time()
    yield
    took = time.process_time() - began
    assert took < SECONDS, f"{what} took {took:.1f} s"


def check_shown(refused: Refused, *codes: str) -> None:
    """A refusal of one of these codes that is one line of bounded length, and goes into a reply."""
    assert refused.code in codes, refused
    for text in (refused.message, refused.remedy):
        assert text.isprintable(), text
        assert len(text) <= 4096, text
    pack(refused.details)


def read_file(data: bytes) -> Manifest | None:
    """A file: what a person is told of it, and all that is made of it."""
    with bounded("lint"):
        errors = [one for one in lint(data, CALLS) if one.level is Level.ERROR]
    try:
        with bounded("reading"):
            manifest = parse_toml(data)
    except Refused as refused:
        check_shown(refused, "manifest_invalid")
        assert refused.message in [one.message for one in errors]  # noqa: PT017 - a fuzzer's own check
        return None
    assert not errors, errors
    assert manifest.digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert ADMITS.is_valid(parse_text(data)), [one.message for one in ADMITS.iter_errors(parse_text(data))]
    use(manifest)
    return manifest


def read_both(values: Mapping[str, Any], text: str) -> None:
    """A map and a file that say the same, are the same: the manifest, or what is said of it."""
    read_file(text.encode())
    try:
        pack(values)
    except Refused:
        return  # deeper than anything on the wire
    read: list[object] = []
    for parse, said in ((parse_map, values), (parse_toml, text.encode())):
        try:
            with bounded("reading"):
                read.append(meaning(parse(said)))  # type: ignore[arg-type]
        except Refused as refused:
            check_shown(refused, "manifest_invalid")
            read.append((refused.message, refused.remedy, refused.details))
    assert read[0] == read[1]


def use(manifest: Manifest) -> None:
    """What is made of a manifest."""
    with bounded("capabilities"):
        capabilities(manifest)
    compare(manifest, manifest)
    base = class_manifest(manifest.class_)
    assert base is not None
    compare(base, manifest)
    try:
        filled = fill(manifest)
    except Refused as refused:
        check_shown(refused, "bad_argument")
        return
    check_filled(filled)


def check_filled(manifest: Manifest) -> None:
    """No path of it climbs, none leaves its bounds; it has a record, and a plan or a typed refusal of one."""
    assert from_plain(Manifest, to_plain(manifest)) == manifest
    found = manifest.filesystem
    for bind in (*found.read, *found.write, *found.capture):
        for path in (bind.source, bind.target):
            assert path.startswith(b"/")
            assert not {b"..", b"."} & set(path.split(b"/"))
            assert b"\0" not in path
        assert bind.beneath is None or beneath(bind.source, bind.beneath)
    volumes = tuple((one.name, Volume(b"v", 1 << 20, 100)) for one in found.volumes)
    spec = RunSpec(sandbox="s1", argv=(b"/bin/true",), tenant="default")
    try:
        with bounded("planning"):
            compile_plan(manifest, spec, FACTS, Grants(volumes=volumes))
    except Refused as refused:
        plans = ("bad_argument", "denied", "manifest_invalid", "unsupported_limit", "weaker_enforcement")
        check_shown(refused, *plans, "unknown_volume", "unknown_profile", "needs_sandbox")


def compare(one: Manifest, other: Manifest) -> None:
    """What is more one way is less the other way; nothing is more than itself."""
    with bounded("comparing"):
        there = difference(one, other, CALLS)
        back = difference(other, one, CALLS)
    if one == other:
        assert there == Difference((), ())
    assert bool(there.added) == bool(back.removed)
    assert {change.field for change in there.added} == {change.field for change in back.removed}
    for change in (*there.added, *there.removed):
        assert change.words.isprintable()
        assert len(change.words) <= 1024
    pack(there.rows())


def fill_in(manifest: Manifest, given: Mapping[str, object]) -> None:
    """Values of a run: what they make stays what was signed, but for them."""
    try:
        with bounded("filling in"):
            filled = fill(manifest, given)
    except Refused as refused:
        check_shown(refused, "bad_argument")
        return
    assert (filled.digest, filled.name, filled.class_) == (manifest.digest, manifest.name, manifest.class_)
    assert (filled.personas, filled.tenants, filled.syscalls) == (
        manifest.personas,
        manifest.tenants,
        manifest.syscalls,
    )
    assert (filled.network, filled.consent) == (manifest.network, manifest.consent)
    assert [one.name for one in filled.command.allow] == [one.name for one in manifest.command.allow]
    assert len(filled.filesystem.write) == len(manifest.filesystem.write)
    check_filled(filled)
    bounds = {one.name: one for one in manifest.parameters}
    for name, value in filled.given:
        one = bounds[name]
        if one.type == "path":
            assert any(beneath(str(value).encode(), directory) for directory in one.within)
        elif one.type == "choice":
            assert value in one.values
        elif one.type == "integer":
            assert isinstance(value, int)
            assert one.least is not None
            assert one.most is not None
            assert one.least <= value <= one.most
        else:
            assert isinstance(value, str)
            assert 1 <= len(value) <= (one.longest or 0)


def match(words: Sequence[bytes], pattern: Sequence[bytes]) -> None:
    """A pattern fits what the same pattern as a regular expression fits; what is escaped fits itself alone."""
    assert fits(words, [escape(word) for word in words])
    if any(word_problem(word) for word in pattern) or b"..." in pattern[:-1]:
        return
    with bounded("matching"):
        found = fits(words, pattern)
    rest = bool(pattern) and pattern[-1] == b"..."
    fixed = pattern[:-1] if rest else pattern
    counted = len(words) >= len(fixed) if rest else len(words) == len(fixed)
    assert found == (
        counted and all(re.fullmatch(_expression(two), one, re.DOTALL) for one, two in zip(words, fixed, strict=False))
    )


def _expression(word: bytes) -> bytes:
    parts = re.findall(rb"\\.|[^\\]", word, re.DOTALL)
    return b"".join(b".*" if one == b"*" else re.escape(one[-1:]) for one in parts)


KEY = PrivateKey(bytes(32))
NOW = 1_790_000_000_000
RULES = Rules(
    needed=1,
    only=None,
    revoked={},
    find=lambda key: SignerKey(KEY.public, "fuzzer", KEY.id) if key == KEY.id else None,
    may_sign=lambda key, class_, tenants: key == KEY.id,
    personas={"operator", "judge", "judge.assistant", "developer", "reviewer"},
    tenants={"acme", "spring-2027", "autumn-2027"},
    baseline=lambda manifest: None,
    calls=CALLS,
)


def read_signatures(data: bytes) -> None:
    """A signature file: what is read is written as it was."""
    try:
        with bounded("signatures"):
            found = parse_signatures(data)
    except Refused as refused:
        check_shown(refused, "signature_invalid")
        return
    assert show_signatures(found).encode() == data
    assert 1 <= len(found) <= 8
    assert len({one.key_id for one in found}) == len(found)


def judge_file(raw: bytes, signatures: bytes) -> None:
    """A file and its signatures, as they are loaded: only what KEY signed ever passes. Who only asks is told the same,
    as far as the first refusal."""
    with bounded("the pipeline"):
        found, whole = judge(raw, signatures, RULES, NOW), judge(raw, signatures, RULES, NOW, whole=True)
    for one in (found, whole):
        pack(one.to_map())
        if one.refusal is not None:
            codes = ("signature_invalid", "manifest_unsigned", "manifest_expired", "manifest_invalid")
            check_shown(one.refusal, *codes)
    refused = [None if one.refusal is None else (one.refusal.code, one.refusal.message) for one in (found, whole)]
    assert refused[0] == refused[1]
    assert whole.verdicts[: len(found.verdicts)] == found.verdicts
    if found.refusal is not None and found.refusal.code != "manifest_invalid":
        assert [one.stage for one in found.verdicts] == ["signature"]
        return
    signed = [one for one in parse_signatures(signatures) if one.key_id == KEY.id]
    assert [KEY.public.verify(one.raw, pae(signed_type(one.signed_ms, one.expires_ms), raw)) for one in signed] == [
        True
    ]
    assert signed[0].signed_ms <= NOW + 60_000
    assert signed[0].expires_ms > NOW


def one_input(data: bytes) -> None:
    """Everything that must be so of any bytes."""
    read_file(data)
    read_signatures(data)
    words = data[:64].split(b"\n")
    match(words[: len(words) // 2], words[len(words) // 2 :])


def known_inputs() -> list[bytes]:
    """The corpus, as seeds: none of those that are large."""
    return [path.read_bytes() for path in VALID] + [case.raw for case in INVALID if len(case.raw) < 4096]


def known_signatures() -> list[bytes]:
    """The vectors of signature files."""
    found: list[bytes] = []
    for cases in json.loads(SIGNATURES.read_text("utf-8")).values():
        found += [case["text"].encode() for case in cases if isinstance(case, dict) and "text" in case]
    return found


def main() -> None:
    """Coverage-guided, with atheris."""
    import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
