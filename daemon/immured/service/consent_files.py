"""The operator's consent texts, `[consent] texts` of config.toml. Read at start, before root is given up."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from immured.errors import ConfigurationError, Refused
from immured.manifest.consent_texts import MAX_FILE, ConsentText, Texts, parse_text, shipped_texts
from immured.service.files import read_bounded

__all__ = ["read_texts"]

_MAX_FILES: Final = 1024
_log: Final = logging.getLogger("immured")


def read_texts(directory: Path | None) -> Texts:
    """The package's texts, with those of `directory`/ID/LANGUAGE.toml in their place.

    A file that is at fault is not shown, and said; the rest serves. Raises ConfigurationError `bad_consent_texts`: the
    directory is not there, holds too much, or is not the operator's alone to write.
    """
    shipped = shipped_texts()
    if directory is None:
        return shipped
    own: list[ConsentText] = []
    wrong: dict[tuple[str, str], str] = {}
    try:
        for text_id, language, path in _files(directory):
            try:
                own.append(parse_text(text_id, language, read_bounded(path, MAX_FILE)))
            except (Refused, ValueError) as error:
                words = error.message if isinstance(error, Refused) else str(error)
                wrong[text_id, language] = words
                _log.error("the consent text %s is not shown: %s", path, words)
    except OSError as error:
        raise _bad(directory, f"{error.filename or directory}: {error.strerror or error}") from error
    return shipped.beneath(own, wrong)


def _files(directory: Path) -> Iterator[tuple[str, str, Path]]:
    """Every file's id, language and path."""
    _check_owner(directory)
    count = 0
    for text in sorted(directory.iterdir()):
        _check_owner(text)
        if not stat.S_ISDIR(text.lstat().st_mode):
            raise _bad(directory, f"{text} is no directory; a text is a directory with a file for each language")
        for path in sorted(text.iterdir()):
            _check_owner(path)
            count += 1
            if count > _MAX_FILES:
                raise _bad(directory, f"it holds more than {_MAX_FILES} files")
            if path.suffix != ".toml":
                raise _bad(directory, f"{path} is not called LANGUAGE.toml")
            yield text.name, path.stem, path


def _check_owner(path: Path) -> None:
    facts = path.stat()
    if facts.st_uid not in (0, os.geteuid()) or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            "bad_consent_texts",
            f"{path} can be written by others than its operator",
            f"chown root {path}; chmod go-w {path}",
        )


def _bad(directory: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        "bad_consent_texts", f"{directory}: {why}", "mend it, or take it away; docs/consent.md has the format"
    )
