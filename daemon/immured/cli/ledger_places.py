"""Where `immure ledger` finds a ledger: the options that name its place, and what is said where it cannot be read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.cli.target import SYSTEM_STATE
from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["as_owner", "ledger_file", "place_options", "unreadable"]


def place_options(command: F) -> F:
    """Adds --state and --file (parameters: state, file)."""
    state = click.option("--state", metavar="DIR", default=SYSTEM_STATE, show_default=True, help="A state directory.")
    file = click.option("--file", metavar="F", type=click.Path(), help="A ledger's copy: a file, or a directory.")
    return state(file(command))


def ledger_file(state: str, file: str | None) -> Path:
    """What place_options' parameters name: one file, or a ledger's directory."""
    return Path(file) if file else Path(state) / "ledger"


def unreadable(failed: OSError) -> ConfigurationError:
    """What to say of a ledger's file that cannot be read."""
    return ConfigurationError(
        "ledger_unreadable", f"{failed.filename}: {failed.strerror}",
        "name a state directory with --state or a file with --file; a daemon's ledger is its operator's to read",
    )  # fmt: skip


@contextlib.contextmanager
def as_owner(path: Path) -> Iterator[bool]:
    """Be the user meanwhile whose the directory is, where one is root: what is derived beside the lines is made by its
    owner, who may have laid anything in root's way there. False: nothing is to be made there."""
    if not path.is_dir():
        yield False
        return
    owner = path.stat()
    if os.geteuid() or not owner.st_uid:
        yield True
        return
    groups, group = os.getgroups(), os.getegid()
    try:
        os.setgroups([])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
        reached = os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)
        if reached:
            yield True
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
    if not reached:
        yield False
