"""Fill /dev/shm instead.

Wall: limit disk: /dev/shm has its share of it
Meets: ENOSPC
Ends: oom
Manifest: {"limits": {"disk": "1M"}}
Control: manifest {"limits": {"disk": "128M"}}
Reference: shm_overview(7)
"""

from tests.escape.inside import got

with open("/dev/shm/large", "wb") as file:
    file.writelines(b"x" * (1 << 20) for _ in range(8))
got("8 MiB")
