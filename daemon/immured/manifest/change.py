"""One thing that a manifest admits and another does not, in words, and how grave it is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from immured.manifest.paths import beneath
from immured.manifest.places import HOST_PROGRAMS

__all__ = ["Change", "Found", "Severity", "is_sensitive", "shown_word"]

_MAX_SHOWN: Final = 160
_SYSTEM: Final = (*HOST_PROGRAMS, b"/boot", b"/dev", b"/etc", b"/proc", b"/root", b"/run", b"/sys", b"/var")
_SHARED: Final = (b"/", b"/home", b"/srv", b"/opt", b"/mnt", b"/media")
_HOME: Final = b"/home"


class Severity(IntEnum):
    """How much a change may do to whoever approved what was before. docs/manifest.md says which has which."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Change:
    """`field`: by its path in a manifest, such as `filesystem.write`. `words`: a sentence without its end."""

    field: str
    words: str
    severity: Severity

    def to_map(self) -> dict[str, object]:
        """For the ledger, the wire and JSON."""
        return {"field": self.field, "words": self.words, "severity": str(self.severity)}


@dataclass(frozen=True, slots=True)
class Found:
    """A change seen from one side: in which words it is added, and in which it is taken away."""

    field: str
    severity: Severity
    added: str
    removed: str

    @classmethod
    def of(cls, field: str, severity: Severity, does: str, why: str = "which it could not") -> Found:
        """`does`: what it does, beginning with a verb. `why`: how it did not before."""
        return cls(field, severity, f"{does}, {why}", f"{does} no more")


def is_sensitive(host: bytes) -> bool:
    """Whether a host path is the system's, what all share, a whole home directory, or a hidden part of one."""
    if host in _SHARED or any(beneath(host, one) for one in _SYSTEM):
        return True
    if not beneath(host, _HOME):
        return False
    inner = host.split(b"/")[3:]
    return not inner or inner[0].startswith(b".")


def shown_word(raw: bytes) -> str:
    """A path, or another of a stranger's words, for a sentence: as it is where it is plain, else quoted; bounded."""
    text = raw.decode("utf-8", "backslashreplace")
    if len(text) > _MAX_SHOWN:
        text = text[:_MAX_SHOWN] + "…"
    plain = text and text.isprintable() and not any(one in " '\"`," for one in text)
    return text if plain else repr(text)
