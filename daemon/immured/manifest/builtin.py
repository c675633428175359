"""The built-in classes (profiles/manifests/*.toml, in the package), and parsing against them."""

from __future__ import annotations

from functools import cache
from typing import Final

from immured.manifest.read import inline_digest, read_map, read_toml
from immured.manifest.schema import CLASSES, Command, Filesystem, Limits, Manifest, Network, Syscalls
from immured.shipped import shipped

__all__ = ["CLASSES", "class_manifest", "class_text", "default_manifest", "load_classes", "parse_map", "parse_toml"]

_NOTHING: Final = Manifest(
    name="nothing",
    class_="nothing",
    digest="",
    command=Command(allow=(), cwd=b"/", env=(), pass_env=()),
    filesystem=Filesystem(None, (), (), (), (), (), "deny"),
    network=Network("none"),
    limits=Limits(1 << 20, 1, 4, None, None, None, None, None, None, None, None, strict=True),
    syscalls=Syscalls("default", (), ()),
)
"""What a built-in class starts from: each says everything itself."""

_MAX_READ_BEFORE: Final = 256
_read_before: Final[dict[str, Manifest]] = {}


@cache
def class_text(name: str) -> bytes:
    """A built-in class as the file that it is, for `immure init` to sign and for people to read. KeyError otherwise."""
    if name not in CLASSES:
        raise KeyError(name)
    return shipped("profiles", "manifests", f"{name}.toml").read_bytes()


def default_manifest() -> Manifest:
    """The built-in default: what a run gets that names no manifest."""
    return _built_in("default")


def load_classes() -> dict[str, Manifest]:
    """Every class by its name. Called before a process gives up reading the package: all of them are at hand then."""
    return {name: _built_in(name) for name in CLASSES}


def parse_toml(text: str | bytes) -> Manifest:
    """A manifest from a file's text. Raises Refused `manifest_invalid`."""
    return read_toml(text, class_manifest)


def parse_map(values: object) -> Manifest:
    """A manifest from a map as it came over the wire. Raises Refused `manifest_invalid`.

    The same map again, as a client with many runs sends it, is only hashed.
    """
    digest = inline_digest(values)
    known = _read_before.get(digest)
    if known is None:
        known = read_map(values, digest, class_manifest)
        if len(_read_before) >= _MAX_READ_BEFORE:
            _read_before.clear()
        _read_before[digest] = known
    return known


@cache
def _built_in(name: str) -> Manifest:
    return read_toml(class_text(name), lambda _: _NOTHING)


def class_manifest(name: str) -> Manifest | None:
    """A built-in class, as manifests of this class begin; None for a name that is no class's."""
    return _built_in(name) if name in CLASSES else None
