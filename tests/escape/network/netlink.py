"""Speak to other parts of the kernel by netlink: the firewall, keys of IPsec, events of devices, audit.

Wall: filter
Meets: EPROTONOSUPPORT
Control: no filter
Needs: netlink families beside the route's
Reference: CVE-2022-32250, CVE-2023-32233 (nf_tables); netlink(7)
"""

import socket

from tests.escape.inside import each, tries

NETFILTER, XFRM, UEVENT, AUDIT, GENERIC, CONNECTOR, SOCK_DIAG = 12, 6, 15, 9, 16, 11, 4
KINDS = (NETFILTER, XFRM, UEVENT, AUDIT, GENERIC, CONNECTOR, SOCK_DIAG)
tries(each(lambda kind: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, kind), *KINDS))
