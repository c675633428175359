"""Reach the kernel's own switches below /proc: sysrq, the mtrr, the bus.

Wall: read-only /proc paths; ids
Meets: EACCES EPERM EROFS ENOENT
Control: fence without ids, capabilities
Reference: sysrq: Documentation/admin-guide/sysrq.rst
"""

from tests.escape.inside import each, open_to_write, tries

FILES = ("sysrq-trigger", "irq/default_smp_affinity", "mtrr", "sys/vm/drop_caches", "sys/kernel/sysrq")
tries(each(lambda name: open_to_write(f"/proc/{name}"), *FILES))
