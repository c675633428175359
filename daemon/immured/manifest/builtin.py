"""The built-in classes (profiles/manifests/*.toml, in the package), and parsing against them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from immured.manifest.read import read_map, read_toml
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
    limits=Limits(1 << 20, 1, 4, None, None, None, None, None, None, strict=True),
    syscalls=Syscalls("default", (), ()),
)
"""What a built-in class starts from: each says everything itself."""


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
    """A manifest from a map as it came over the wire. Raises Refused `manifest_invalid`."""
    return read_map(values, _class)


@cache
def _built_in(name: str) -> Manifest:
    return read_toml(class_text(name), lambda _: _NOTHING)


def _class(name: str) -> Manifest | None:
    return _built_in(name) if name in CLASSES else None
