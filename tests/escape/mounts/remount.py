"""Make the host's programs writable by a remount.

Wall: capabilities; filter
Meets: EPERM
Control: fence without ids, capabilities
Reference: mount(2)
"""

from tests.escape.inside import each, system, tries

MS_REMOUNT, MS_BIND = 32, 4096


def remount(place: bytes) -> None:
    system("mount", b"x", place, 0, MS_REMOUNT | MS_BIND, 0)


tries(each(remount, b"/usr", b"/"))
