"""Fill /tmp, which is memory.

Wall: limit disk: the size of private file systems
Meets: ENOSPC
Ends: oom
Manifest: {"limits": {"disk": "1M"}}
Control: manifest {"limits": {"disk": "64M"}}
Reference: tmpfs(5), size
"""

from tests.escape.inside import got

with open("/tmp/large", "wb") as file:
    file.writelines(b"x" * (1 << 20) for _ in range(8))
got("8 MiB")
