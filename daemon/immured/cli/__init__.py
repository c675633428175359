"""`immure`, the command line. The subcommands' own modules are imported only when they are called."""

from __future__ import annotations

import os
import sys

__all__ = ["TOOLS", "main"]

TOOLS = ("codex-linux-sandbox", "srt")
"""Called by one of these names, through a link, `immure` is `immure compat NAME`: adapters/."""


def main() -> None:
    """The entry point of the `immure` script: never returns."""
    called = os.path.basename(sys.argv[0])  # noqa: PTH119 - pathlib is not imported for this
    if called in TOOLS:
        sys.argv[1:1] = ["compat", called]
    try:
        from immured.cli.app import serve
    except ModuleNotFoundError as error:
        sys.stderr.write(f"immure: not_built: {error}\nremedy: make build, or pip install 'immured[cli]'\n")
        sys.exit(1)
    serve()
