"""`python -m demo`: exits 0 when everything went as it should, 1 when something did not, 2 when it could not begin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from demo.acts import ACTS
from demo.expect import Unexpected
from demo.ground import name_of, prepared
from demo.table import Row, Table
from immured.errors import ImmuredError

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo.ground import Ground


def main() -> int:
    """Play every act in order, whatever came of the one before."""
    if os.geteuid() != 0:
        sys.stderr.write("immured's launcher is root: the demo needs it too\nremedy: sudo make demo\n")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of the clean-up
    table = Table()
    begun = time.monotonic()
    try:
        with prepared() as ground:
            state, user = ground.daemon.state, name_of(ground.uid)
            table.say(f"A daemon on {state}, taking orders from {user}; ready in {_since(begun)}.")
            table.say()
            table.head()
            for tried, act in ACTS:
                table.add(play(tried, act, ground))
            table.tail()
            entries = ground.entries()
            if not all(row.right for row in table.rows):
                sys.stderr.write(ground.daemon.log.read_text(errors="replace")[-4000:])
    except ImmuredError as error:
        sys.stderr.write(f"immured-demo: {error.code}: {error.message}\nremedy: {error.remedy}\n")
        sys.stderr.write(str(error.details.get("log", "")))
        return 2
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", None) or error
        sys.stderr.write(f"immured-demo: could not begin: {said}\nremedy: immure doctor says what this host lacks\n")
        return 2
    wrong, acts = sum(not row.right for row in table.rows), len(table.rows)
    verdict = f"{wrong} of {acts} went otherwise" if wrong else f"all {acts} went as they should"
    table.say(f"{verdict}, in {_since(begun)}; the ledger had {entries} entries. Nothing of it is left.")
    return 1 if wrong else 0


def play(tried: str, act: Callable[[Ground], str], ground: Ground) -> Row:
    """One act, timed."""
    begun = time.monotonic()
    try:
        happened, right = act(ground), True
    except (Unexpected, ImmuredError, OSError, ValueError, LookupError) as error:
        happened, right = f"{type(error).__name__}: {error}", False
    return Row(tried, happened, right, time.monotonic() - begun)


def _since(begun: float) -> str:
    return f"{time.monotonic() - begun:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
