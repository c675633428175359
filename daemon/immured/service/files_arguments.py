"""The arguments of the `file.*` commands. A path is the sandbox's own, absolute, and never leads through `..`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from immured.errors import Refused
from immured.isolation.files_words import MAX_PATH, NO_FLAGS, FilesFlag
from immured.wire.strict import Fields, kind_of, take

__all__ = ["MOST", "MOST_EVER", "NEW_MODE", "FileArguments"]

MOST: Final = 8 << 30
"""Bytes that a get, an archive or an extraction may come to, where `most` does not say: what is sparse is as large
as it says."""
MOST_EVER: Final = 1 << 53
NEW_MODE: Final = 0o644
_SHOWN: Final = 200


class FileArguments:
    """A command's arguments, taken one by one. Raises Refused `bad_argument`, `unknown_field`, `bad_path`,
    `path_escapes`, `setid_refused`."""

    def __init__(self, args: object, known: Collection[str]) -> None:
        self.fields: Fields = take(args, "args", ("sandbox", "path", *known))
        self.sandbox = self.fields.required("sandbox", str)
        self.path = self.path_of("path")

    def path_of(self, name: str) -> bytes:
        """A path, as the kernel has it."""
        value = self.fields.values.get(name)
        if isinstance(value, str):
            try:
                path = value.encode()
            except UnicodeEncodeError:
                raise self.fields.wrong(name, "holds a lone surrogate", "send bytes that are no text as bin") from None
        elif isinstance(value, bytes):
            path = value
        elif name in self.fields:
            raise self.fields.wrong(name, f"is {kind_of(value)}, not a str or bin")
        else:
            raise self.fields.wrong(name, "is missing")
        details: dict[str, object] = {"field": f"args.{name}"}
        shown = path[:_SHOWN].decode("utf-8", "backslashreplace")
        if not path.startswith(b"/") or b"\0" in path or len(path) > MAX_PATH:
            raise Refused(
                "bad_path",
                f"{shown!r} is no path of the sandbox's",
                f"paths begin with a slash, hold no NUL, and have at most {MAX_PATH} bytes",
                details=details,
            )
        if b".." in path.split(b"/"):
            raise Refused(
                "path_escapes",
                f"{shown!r} leads through `..`",
                "name the file itself, by its path from the sandbox's root",
                details=details,
            )
        return path

    def said(self, name: str) -> bool:
        """A boolean, false where it is absent."""
        return self.fields.optional(name, bool) or False

    def unless(self, name: str) -> bool:
        """A boolean, true where it is absent."""
        value = self.fields.optional(name, bool)
        return True if value is None else value

    def flags(self, *, replace: bool = False) -> FilesFlag:
        """`parents`, and `replace`, whose default that is."""
        chosen = self.unless("replace") if replace else self.said("replace")
        return (FilesFlag.PARENTS if self.said("parents") else NO_FLAGS) | (FilesFlag.REPLACE if chosen else NO_FLAGS)

    def mode(self, most: int) -> int | None:
        """Permissions; None where they are absent."""
        mode = self.fields.integer("mode", 0, 0o7777)
        if mode is not None and mode & ~most:
            raise Refused(
                "setid_refused",
                f"the mode {mode:o} has bits that no file in a sandbox gets",
                f"permissions are 0 to {most:o}",
                details={"field": "args.mode"},
            )
        return mode

    def most(self) -> int:
        """Bytes at the most."""
        most = self.fields.integer("most", 0, MOST_EVER)
        return MOST if most is None else most
