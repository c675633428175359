"""`immured`: serve a state directory in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import immured
from immured.errors import ImmuredError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `immured`. Returns its exit status: 0 stopped in order, 1 otherwise; 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="immured",
        description="Serve a state directory (see `immure init`) until SIGTERM.",
        allow_abbrev=False,
        formatter_class=_Help,
    )
    parser.add_argument("--state", metavar="DIR", type=Path, default="/var/lib/immured", help="default: %(default)s")
    parser.add_argument("--socket", metavar="PATH", type=Path, help="where to listen (default: DIR/immured.sock)")
    parser.add_argument("--cgroup", metavar="PATH", type=Path, help="the cgroup v2 directory to make cgroups in")
    parser.add_argument(
        "--ready-fd", metavar="N", type=int, help="write a line to this descriptor when ready, and close it"
    )
    alone = parser.add_mutually_exclusive_group()
    alone.add_argument(
        "--launcher-only",
        action="store_true",
        help="be the launcher, which keeps sandboxes while brokers come and go, and nothing else",
    )
    alone.add_argument("--join", action="store_true", help="serve with the launcher that is there, and start none")
    parser.add_argument(
        "--orphan-ms", metavar="N", type=int, help="how long sandboxes live without a broker (default: 300000)"
    )
    parser.add_argument("--version", action="version", version=f"immured {immured.__version__}")
    given = parser.parse_args(arguments)
    _hold_standard_descriptors()
    logging.basicConfig(format="immured: %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        from immured.service.daemon import Options, serve
        from immured.service.launching import become_launcher

        options = Options(
            given.state.absolute(),
            given.socket and given.socket.absolute(),
            given.cgroup,
            join=given.join,
            orphan_ms=given.orphan_ms,
        )
        if given.launcher_only:
            become_launcher(options)
        return asyncio.run(serve(options, _telling(given.ready_fd)))
    except ImmuredError as error:
        sys.stderr.write(f"immured: {error.code}: {error.message}\n")
        if error.remedy:
            sys.stderr.write(f"remedy: {error.remedy}\n")
        return 1
    except ImportError as error:
        sys.stderr.write(f"immured: not_built: {error}\nremedy: make build, or pip install 'immured[daemon]'\n")
        return 1


class _Help(argparse.HelpFormatter):
    """Of one width: asking a terminal for its own takes shutil and every kind of archive, which a daemon would hold."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def _hold_standard_descriptors() -> None:
    """Started with 0, 1 or 2 closed: nothing of ours may take their place, or a message would be written into it."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)  # for the launcher
    os.close(fd)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for as long as we live


def _telling(ready_fd: int | None) -> Callable[[str], None]:
    """What is called with the line that says that all is ready."""
    if ready_fd is not None:
        os.set_inheritable(ready_fd, False)

    def tell(line: str) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        if ready_fd is not None:
            os.write(ready_fd, b"READY\n")
            os.close(ready_fd)

    return tell


if __name__ == "__main__":
    sys.exit(main())
