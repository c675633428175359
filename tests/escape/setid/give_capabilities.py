"""Give a file capabilities, or to another: security.capability, trusted.*, chown.

Wall: capabilities; user namespace
Meets: EPERM EINVAL
Control: fence without ids, capabilities
Reference: capabilities(7), xattr(7); CVE-2023-0386
"""

import os
import struct

from tests.escape.inside import tries

open("/tmp/file", "w").close()
CAPABILITY = struct.pack("=5I", 0x02000001, 1 << 21, 0, 0, 0)
tries(
    {
        "capability": lambda: os.setxattr("/tmp/file", "security.capability", CAPABILITY),
        "trusted": lambda: os.setxattr("/tmp/file", "trusted.overlay.opaque", b"y"),
        "owner": lambda: os.chown("/tmp/file", 0, 0),
    }
)
