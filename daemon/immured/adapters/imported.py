"""What comes out of every importer, and what they ask of the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from immured.errors import Refused

__all__ = ["INVALID", "UNSUPPORTED", "VERDICTS", "Finding", "Imported", "Surroundings", "invalid", "unsupported"]

VERDICTS: Final = ("maps", "stricter", "looser", "lost")
"""Said as it was; said, and less is let through; said, and more is let through; not said at all."""

INVALID: Final = "adapter_invalid"
"""Not a policy of the tool's, as far as this version knows its forms."""

UNSUPPORTED: Final = "adapter_unsupported"
"""A policy of the tool's that asks for what no sandbox here can be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one part of a policy. `source`: that part, in the tool's own words; `verdict`: of VERDICTS."""

    source: str
    verdict: str
    words: str


@dataclass(frozen=True, slots=True)
class Imported:
    """A policy as a manifest's map (schema 1; text only, surrogates for bytes that are no UTF-8), and what belongs to
    one run of it: `argv`, empty where the policy names no command; `env`; `cwd` inside; `files`, put in before.
    """

    manifest: Mapping[str, object]
    findings: tuple[Finding, ...]
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    def of(self, *verdicts: str) -> tuple[Finding, ...]:
        """The findings of these verdicts."""
        return tuple(one for one in self.findings if one.verdict in verdicts)


class Surroundings(Protocol):
    """The host as a policy means it. Paths are absolute; nothing raises: what cannot be seen is not there."""

    @property
    def cwd(self) -> str:
        """Where the caller stands, links resolved."""

    @property
    def home(self) -> str:
        """The caller's."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The caller's."""

    def kind(self, path: str) -> str | None:
        """`directory`, `file`, `link` or `other`, links not followed; None where nothing is there."""

    def owner(self, path: str) -> int | None:
        """The uid that it belongs to, links followed."""

    def real(self, path: str) -> str:
        """Links resolved as far as there is something."""

    def text(self, path: str) -> str | None:
        """A small file's text."""

    def program(self, name: str) -> str | None:
        """Where PATH has a program of this name."""

    def walk(self, top: str, depth: int) -> Iterator[str]:
        """What is beneath a directory, to so many levels, links not followed."""


def invalid(message: str, remedy: str = "") -> Refused:
    """`adapter_invalid`."""
    return Refused(INVALID, message, remedy)


def unsupported(message: str, remedy: str) -> Refused:
    """`adapter_unsupported`."""
    return Refused(UNSUPPORTED, message, remedy)
