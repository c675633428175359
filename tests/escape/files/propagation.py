"""See what is mounted on the host later, in a directory that is bound.

Wall: every copy of a mount is private
Meets: nothing
Scene: mount_that_comes_later
Control: fence without propagation
Reference: mount_namespaces(7), "Shared subtrees"
"""

import os
import sys

from tests.escape.inside import contained, got, holding

holding()
if os.path.exists(f"{sys.argv[1]}/later/immured-marker"):
    got("a mount of the host's")
contained("nothing")
