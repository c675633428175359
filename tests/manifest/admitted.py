"""What a manifest admits, found by asking: each deed is tried on the functions that decide when a run is ordered, and
on the steps that build its view. Nothing here compares two manifests; `difference` is held against it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from immured.errors import Refused
from immured.isolation.abi import BindFlag, ImageFlag, Op
from immured.isolation.filesystem import Grants, Volume, view_of
from immured.isolation.plan import Step
from immured.isolation.profiles import SHIPPED
from immured.isolation.seccomp import expand
from immured.manifest.environment import environment
from immured.manifest.limits import tighten
from immured.manifest.paths import beneath
from immured.manifest.protect import protected_in_captures
from immured.manifest.schema import Manifest
from immured.manifest.use import check_manifest, permits
from immured.manifest.words import fits

PERSONAS = (None, "agent", "judge", "somebody")
TENANTS = ("acme", "spring", "another")
WORDS = (b"", b"a", b"b", b"ab", b"log")
ORDERS = tuple(
    (name, *arguments)
    for name in (b"make", b"git", b"/usr/bin/git")
    for count in range(3)
    for arguments in itertools.product(WORDS, repeat=count)
)
DIGESTS = ("a" * 64, "b" * 64)
VARIABLES = (b"SEED", b"CC", b"C_X", b"LD_PRELOAD", b"PATH", b"Z")
VALUES = (b"1", b"2", b"/usr/bin")
ASKED: dict[str, tuple[object, ...]] = {
    "memory": ("64M", "512M", "1G", "4G"), "swap": (0, "1G"), "pids": (1, 64, 512), "files": (64, 4096),
    "cpus": ("0.5", "2", "none"), "cpu_time": ("1s", "1h", "none"), "wall": ("1s", "1h", "none"),
    "disk": ("1M", "1G", "none"), "output": ("1K", "1G", "none"), "io": ("1M", "none"),
    "cores": ("0", "0-1", "2", "none"), "pin": (1, 2),
}  # fmt: skip
PARTS = (b"a", b"b", b"out", b"z")
BELOW = [b"/".join((b"", *parts)) for count in range(4) for parts in itertools.product(PARTS[:3], repeat=count)]
TOPS = (b"/srv", b"/x", b"/usr", b"/tmp", b"/etc", b"/var")
PLACES = (
    b"/",
    b"/dev/shm",
    b"/dev/shm/z",
    *(top + below + end for top in TOPS for below in BELOW for end in (b"", b"/z")),
)

Deed = tuple[Any, ...]


def admitted(manifest: Manifest) -> frozenset[Deed]:
    """Every deed of this small world that the manifest, filled in, admits."""
    return frozenset((*_ordered(manifest), *_set(manifest), *_asked(manifest), *_seen(manifest), *_rest(manifest)))


def _ordered(manifest: Manifest) -> Iterator[Deed]:
    for persona, tenant in itertools.product(PERSONAS, TENANTS):
        if _goes(check_manifest, manifest, persona, tenant):
            yield "use", persona, tenant
    allow = manifest.command.allow
    for argv in ORDERS:
        if not _goes(permits, manifest, argv):
            continue
        yield "order", argv
        for digest in (*DIGESTS, None):  # None: a file of any other digest
            entries = [
                one
                for one in allow
                if one.name == argv[0] and (not one.arguments or any(fits(argv[1:], each) for each in one.arguments))
            ]
            if not allow or not manifest.command.pin or any(one.sha256 in (None, digest) for one in entries):
                yield "execute", argv, digest
    if not manifest.command.pin:
        yield ("what nobody digested",)


def _set(manifest: Manifest) -> Iterator[Deed]:
    own = dict(manifest.command.env)
    for name in VARIABLES:
        free = _goes(environment, manifest, {name: b"1"})
        if free:
            yield "set", name
        for value in VALUES:
            if free or own.get(name) == value:
                yield "has", name, value


def _asked(manifest: Manifest) -> Iterator[Deed]:
    for name, values in ASKED.items():
        for value in values:
            if _goes(tighten, manifest, {name: value}):
                yield "ask", name, value
    if not manifest.limits.strict:
        yield ("weaker",)


def _rest(manifest: Manifest) -> Iterator[Deed]:
    syscalls, consent = manifest.syscalls, manifest.consent
    profile = SHIPPED[syscalls.profile]
    for call in (profile.calls | set(expand(syscalls.allow))) - set(expand(syscalls.deny)):
        yield "call", call
    if manifest.network.mode == "loopback":
        yield ("loopback",)
    if not consent.required:
        yield ("unasked",)
    for minutes in (1, 10, 100):
        for text in ("workspace", "other"):
            if not consent.required or (consent.text == text and minutes * 60_000 <= consent.valid_ms):
                yield "asked", text, minutes
    if manifest.filesystem.on_violation == "deny":
        yield ("goes on",)


def _seen(manifest: Manifest) -> Iterator[Deed]:
    """What a view that was built by the steps lets be done, place by place."""
    volumes = tuple((one.name, Volume(b"t/" + one.name.encode(), 1, 1)) for one in manifest.filesystem.volumes)
    view = view_of(manifest, Grants(volumes=volumes))
    steps = list(view.steps)
    root = _root(manifest, view.root)
    kept = protected_in_captures(manifest.filesystem)
    for place in PLACES:
        for deed in _done(place, steps, root, kept):
            yield (*deed, place)


def _root(manifest: Manifest, step: Step | None) -> tuple[str, bytes, bool]:
    """Its kind, where it is, and whether it has a layer."""
    if step is None:
        return "host", b"/", False
    if step.op == Op.IMAGE:
        return "image", step.strings[0], bool(step.numbers[0] & ImageFlag.LAYER)
    return "read", step.strings[0], False


def _done(
    place: bytes, steps: list[Step], root: tuple[str, bytes, bool], kept: dict[bytes, tuple[bytes, ...]]
) -> Iterator[tuple[Any, ...]]:
    closed = False
    for number in range(len(steps) - 1, -1, -1):
        step = steps[number]
        at = step.strings[-1] if step.op in (Op.HIDE, Op.PROTECT, Op.TMPFS) else step.strings[1]
        if not beneath(place, at):
            continue
        if step.op == Op.HIDE:
            return
        if step.op == Op.PROTECT:
            # What cannot be written is left as it is, and with it what is mounted below.
            closed = closed or any(deed[0] == "put" for deed in _done(at, steps[:number], root, kept))
            continue
        yield from _mounted(step, at, place, closed, kept)
        return
    yield from _rooted(root, place, closed)


def _mounted(
    step: Step, at: bytes, place: bytes, closed: bool, kept: dict[bytes, tuple[bytes, ...]]
) -> Iterator[tuple[Any, ...]]:
    rest = place[len(at) :]
    flags = step.numbers[0]
    noexec = step.numbers[3] if step.op == Op.TMPFS else flags & BindFlag.NOEXEC
    if not noexec:
        yield ("run",)
    if step.op == Op.TMPFS:
        if not closed:
            yield ("put",)
        return
    source = step.strings[0] + rest
    yield "read" if step.op != Op.VOLUME else "volume", source
    writes = step.op in (Op.CAPTURE, Op.VOLUME) or bool(flags & BindFlag.WRITE)
    if not writes or closed:
        return
    yield ("put",)
    if step.op == Op.VOLUME:
        yield "fill", source
    elif step.op == Op.CAPTURE:
        if not any(beneath(rest.strip(b"/"), name) if name else False for name in kept[at]):
            yield "capture", source
    else:
        yield "write", source
        yield "capture", source


def _rooted(root: tuple[str, bytes, bool], place: bytes, closed: bool) -> Iterator[tuple[Any, ...]]:
    kind, where, layer = root
    if kind == "host":
        if beneath(place, b"/usr"):
            yield "read", place
            yield ("run",)
        elif place == b"/" or beneath(place, b"/etc"):
            yield ("host",)
            yield ("run",)
        return
    yield ("run",)
    yield kind, where + place
    if layer and not closed:
        yield ("put",)


def _goes(function: Any, *arguments: object) -> bool:
    try:
        function(*arguments)
    except Refused:
        return False
    return True
