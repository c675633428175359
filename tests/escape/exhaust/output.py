"""Write output without end, to whoever must read it.

Wall: limit output
Ends: output_limit
Manifest: {"limits": {"output": "64K"}}
Control: manifest {"limits": {"output": "none"}}
Reference: pipe(7): no resource limit counts what is written
"""

import os

from tests.escape.inside import got

for _ in range(64):
    os.write(2, b"x" * 65536)
got("4 MiB")
