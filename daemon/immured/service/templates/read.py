"""`DIR/templates/NAME.toml`: what sandboxes are held ready. The operator's; read at start, before root is given up."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from immured.errors import ConfigurationError, Refused
from immured.manifest.builtin import parse_map
from immured.manifest.parameters import fill
from immured.manifest.schema import Manifest
from immured.service.files import read_bounded

__all__ = ["READY", "Template", "parse_template", "read_templates"]

READY: Final = b"ready\n"
"""What a program says on its standard output once it waits."""

_MAX_BYTES: Final = 256 * 1024
_MAX_TEMPLATES: Final = 32
_MAX_WARM: Final = 256
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_FIELDS: Final = ("manifest", "parameters", "program", "modules", "warm", "tenants")
_PROGRAM: Final = Path(__file__).with_name("waiting.py").read_text()


@dataclass(frozen=True, slots=True)
class Template:
    """`warm` sandboxes of each of `tenants` are held ready, with `argv` waiting in each."""

    name: str
    manifest: Manifest
    argv: tuple[bytes, ...]
    modules: tuple[str, ...]
    warm: int
    tenants: tuple[str, ...]
    written: Mapping[str, object] = field(default_factory=dict, compare=False)
    """The manifest as the file has it."""


def read_templates(directory: Path) -> tuple[Template, ...]:
    """Every one of the directory, which may be missing. Raises ConfigurationError `bad_template`, naming the file."""
    try:
        paths = sorted(directory.glob("*.toml")) if directory.is_dir() else []
        for path in (directory, *paths) if paths else ():
            facts = path.stat()
            if facts.st_uid not in (0, os.geteuid()) or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise _bad(path, "can be written by others than its operator")
        texts = {path: read_bounded(path, _MAX_BYTES).decode() for path in paths}
    except (OSError, ValueError) as error:
        raise _bad(directory, str(error)) from error
    if len(texts) > _MAX_TEMPLATES:
        raise _bad(directory, f"holds {len(texts)} templates, at most {_MAX_TEMPLATES}")
    found = []
    for path, text in texts.items():
        try:
            found.append(parse_template(path.stem, text))
        except (ValueError, RecursionError) as error:
            raise _bad(path, str(error)) from error
    return tuple(found)


def parse_template(name: str, text: str) -> Template:
    """One of them. Raises ValueError for what is wrong with it."""
    if not _NAME.fullmatch(name):
        raise ValueError("a template's name is a-z, 0-9, `_` and `-`, at most 64")
    given: dict[str, Any] = tomllib.loads(text, parse_float=str)
    if unknown := given.keys() - set(_FIELDS):
        raise ValueError(f"there is no field {min(unknown)!r}; known are {', '.join(_FIELDS)}")
    modules = _words(given, "modules", [])
    for module in modules:
        if not _MODULE.fullmatch(module):
            raise ValueError(f"{module!r} is no module's name")
    program = _words(given, "program", ["/usr/bin/python3"])
    if not program:
        raise ValueError("`program` names no interpreter")
    warm = given.get("warm", 1)
    if type(warm) is not int or not 1 <= warm <= _MAX_WARM:
        raise ValueError(f"`warm` is a number from 1 to {_MAX_WARM}")
    try:
        parameters = given.get("parameters", {})
        if type(parameters) is not dict:
            raise ValueError("`parameters` is a table")
        written = given.get("manifest", {"schema": 1})
        manifest = fill(parse_map(written), parameters)
    except Refused as error:
        raise ValueError(error.message) from None
    if manifest.filesystem.read or manifest.filesystem.write:
        # Held ready before anybody came: there is no caller whose rights would open them.
        raise ValueError("its manifest binds directories of the host's; a template has no caller to open them as")
    argv = tuple(os.fsencode(word) for word in (*program, "-c", _PROGRAM, *modules))
    tenants = tuple(_words(given, "tenants", ["default"]))
    return Template(name, manifest, argv, tuple(modules), warm, tenants, written)


def _words(given: dict[str, Any], name: str, otherwise: list[str]) -> list[str]:
    value = given.get(name, otherwise)
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise ValueError(f"`{name}` is a list of text")
    return value


def _bad(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError("bad_template", f"{path}: {problem}", "see docs/templates.md")
