"""`immure`, the command line. The subcommands' own modules are imported only when they are called."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """The entry point of the `immure` script: never returns."""
    from immured.cli.app import serve

    serve()
