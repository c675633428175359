"""What `immure manifest lint` says of a file, one thing at a time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Level"]


class Level(StrEnum):
    """`error`: the validator refuses it. `warning`: hardly meant. `note`: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """`line` from 1; 0: of the file as a whole. `kind` is stable, for programs. `field`: by its path, or empty."""

    line: int
    level: Level
    kind: str
    message: str
    remedy: str = ""
    field: str = ""

    def to_map(self) -> dict[str, object]:
        """For JSON."""
        said: dict[str, object] = {"line": self.line, "level": str(self.level), "kind": self.kind}
        said |= {"message": self.message}
        return said | {name: value for name in ("remedy", "field") if (value := getattr(self, name))}
