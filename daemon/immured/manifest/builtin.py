"""The built-in classes (profiles/manifests/*.toml, in the package), and parsing against them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from immured.manifest.read import inline_digest, read_map, read_toml
from immured.manifest.schema import Command, Filesystem, Limits, Manifest, Network, Syscalls

__all__ = ["CLASSES", "class_text", "default_manifest", "parse_map", "parse_toml"]

CLASSES: Final = ("default",)

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


def class_text(name: str) -> bytes:
    """A built-in class as the file that it is, for `immure init` to sign and for people to read. KeyError otherwise."""
    if name not in CLASSES:
        raise KeyError(name)
    return files("immured").joinpath("profiles", "manifests", f"{name}.toml").read_bytes()


def default_manifest() -> Manifest:
    """The built-in default: what a run gets that names no manifest."""
    return _built_in("default")


def parse_toml(text: str | bytes) -> Manifest:
    """A manifest from a file's text. Raises Refused `manifest_invalid`."""
    return read_toml(text, _class)


def parse_map(values: object) -> Manifest:
    """A manifest from a map as it came over the wire. Raises Refused `manifest_invalid`.

    The same map again, as a client with many runs sends it, is only hashed.
    """
    digest = inline_digest(values)
    known = _read_before.get(digest)
    if known is None:
        known = read_map(values, digest, _class)
        if len(_read_before) >= _MAX_READ_BEFORE:
            _read_before.clear()
        _read_before[digest] = known
    return known


@cache
def _built_in(name: str) -> Manifest:
    return read_toml(class_text(name), lambda _: _NOTHING)


def _class(name: str) -> Manifest | None:
    return _built_in(name) if name in CLASSES else None
