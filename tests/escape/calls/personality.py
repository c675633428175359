"""Become another kind of process: memory that is all executable, addresses that do not vary, an older kernel.

Wall: filter
Meets: EPERM
Control: no filter
Reference: personality(2)
"""

from tests.escape.inside import each, system, tries

READ_IMPLIES_EXEC, MMAP_PAGE_ZERO, UNAME26, SVR4 = 0x0400000, 0x0100000, 0x0020000, 0x4000001
tries(each(lambda one: system("personality", one), READ_IMPLIES_EXEC, MMAP_PAGE_ZERO, UNAME26, SVR4))
