"""Take pages that no limit on memory counts: those set aside by the host.

Wall: filter
Meets: EPERM EINVAL
Control: no filter
Needs: huge pages
Reference: memfd_create(2), MFD_HUGETLB
"""

from tests.escape.inside import system, tries

HUGETLB, SHM_HUGETLB, CREATE = 4, 0o4000, 0o1600
tries(
    {
        "memfd": lambda: system("memfd_create", b"x", HUGETLB),
        "shared": lambda: system("shmget", 0, 2 << 20, CREATE | SHM_HUGETLB),
    }
)
