"""What the corpus holds, for the tests of it."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from immured.errors import Refused
from immured.manifest.builtin import class_manifest
from immured.manifest.read import MAX_TEXT
from immured.manifest.schema import Manifest
from immured.wire.strict_msgpack import pack
from immured.wire.strict_toml import parse_toml
from tests.manifests.made import MADE

__all__ = ["INVALID", "REFUSED", "VALID", "Case", "meaning"]

HERE: Final = Path(__file__).parent
VALID: Final = sorted((HERE / "valid").glob("*.toml"))
REFUSED: Final = sorted((HERE / "refused").glob("*.toml"))


@dataclass(frozen=True, slots=True)
class Case:
    """One that is refused: its bytes, and with what. `schema`: whether the JSON Schema refuses it too, None: it is no
    TOML."""

    name: str
    raw: bytes
    code: str
    message: str
    remedy: str
    schema: bool | None

    @property
    def whole(self) -> tuple[str, str, str]:
        """All that a person is told."""
        return self.code, self.message, self.remedy

    @property
    def values(self) -> dict[str, Any]:
        """The map that the file says. Raises ValueError: it is no TOML."""
        return parse_toml(self.raw)

    @property
    def inline(self) -> dict[str, Any] | None:
        """The same as a map for the wire, None: what is wrong is the text's, or the wire has no such values."""
        if self.schema is None or "name" not in (values := self.values) or len(self.raw) > MAX_TEXT:
            return None
        if self.message.startswith("line "):
            return None  # what is not seen in a text is no secret in a map
        try:
            pack({"args": {"manifest": values}})
        except Refused:
            return None  # floats, times, and what nests deeper than a command may
        return values


def _invalid() -> list[Case]:
    folder = HERE / "invalid"
    files = {path.stem: path.read_bytes() for path in folder.glob("*.toml")}
    both = files.keys() & MADE.keys()
    assert not both, both
    return [_case(folder / f"{name}.expected", raw) for name, raw in sorted((files | MADE).items())]


def _case(path: Path, raw: bytes) -> Case:
    said = tomllib.loads(path.read_text(encoding="utf-8"))
    return Case(path.stem, raw, said["code"], said["message"], said["remedy"], said.get("schema"))


INVALID: Final = _invalid()


def meaning(manifest: Manifest) -> dict[str, Any]:
    """What of a manifest differs from its class, as JSON has it; bytes as text."""
    base = class_manifest(manifest.class_)
    assert base is not None
    whole, bare = _plain(dataclasses.asdict(manifest)), _plain(dataclasses.asdict(base))
    return {
        name: {key: one for key, one in value.items() if one != bare[name][key]} if isinstance(value, dict) else value
        for name, value in whole.items()
        if name not in ("digest", "template") and value != bare[name]
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
