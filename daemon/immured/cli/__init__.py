"""`immure`, the command line. The subcommands' own modules are imported only when they are called."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The entry point of the `immure` script: never returns."""
    try:
        from immured.cli.app import serve
    except ModuleNotFoundError as error:
        sys.stderr.write(f"immure: not_built: {error}\nremedy: make build, or pip install 'immured[cli]'\n")
        sys.exit(1)
    serve()
