"""`DIR/profiles/`: the system-call profiles that the operator installed. Read at start, before root is given up."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from types import MappingProxyType
from typing import Final

from immured.errors import ConfigurationError, Refused
from immured.isolation import syscalls
from immured.isolation.profiles import SHIPPED, Profile, Profiles, parse_profile
from immured.isolation.seccomp import compile_profile
from immured.service.files import read_bounded

__all__ = ["read_profiles"]

_MAX_BYTES: Final = 256 * 1024
_MAX_PROFILES: Final = 64
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)


def read_profiles(directory: Path) -> Profiles:
    """The package's profiles and every `NAME.toml` of the directory, which may be missing; each is compiled once.

    Raises ConfigurationError `bad_profile`: a file is not the operator's alone to write, has another profile's name, or
    is at fault, which is named.
    """
    try:
        paths = sorted(directory.glob("*.toml")) if directory.is_dir() else []
        for path in (directory, *paths) if paths else ():
            _check_owner(path)
        texts = {path: read_bounded(path, _MAX_BYTES).decode() for path in paths}
    except (OSError, ValueError) as error:
        raise _bad(directory, str(error)) from error
    if not texts:
        return SHIPPED
    if len(texts) > _MAX_PROFILES:
        raise _bad(directory, f"it holds {len(texts)} profiles, at most {_MAX_PROFILES}")
    profiles = Profiles(MappingProxyType({path.stem: _parse(path, text) for path, text in texts.items()}))
    for path in paths:
        try:
            for explain in (False, True):
                compile_profile(path.stem, explain=explain, profiles=profiles)
        except Refused as fault:
            raise _bad(path, fault.message) from fault
    return profiles


def _parse(path: Path, text: str) -> Profile:
    if not _NAME.fullmatch(path.stem):
        raise _bad(path, "a profile's name is a-z, 0-9, `_` and `-`, at most 64")
    if path.stem in syscalls.profile_names():
        raise _bad(path, f"the package has a profile {path.stem}: choose another name")
    try:
        return parse_profile(path.stem, text)
    except ValueError as fault:
        raise _bad(path, str(fault)) from fault


def _check_owner(path: Path) -> None:
    facts = path.stat()
    if facts.st_uid not in (0, os.geteuid()) or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            "bad_profile", f"{path} can be written by others than its operator", f"chown root {path}; chmod go-w {path}"
        )


def _bad(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        "bad_profile", f"{path}: {why}", "mend it, or take it away; docs/syscalls.md has the format"
    )
