"""Have the kernel watch the whole host's pressure for one, and tell: triggers, as many as there are descriptors.

The files may be written by all.

Wall: read-only /proc paths
Meets: EROFS EACCES
Control: fence
Needs: pressure stall information
Reference: Documentation/accounting/psi.rst
"""

from tests.escape.inside import each, open_to_write, tries

tries(each(lambda name: open_to_write(f"/proc/pressure/{name}"), "cpu", "memory", "io"))
