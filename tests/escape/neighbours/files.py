"""Read what another sandbox keeps in /tmp and /dev/shm.

Wall: view: private /tmp and /dev/shm
Meets: ENOENT
Scene: neighbour
Control: fence without view
Reference: shm_overview(7)
"""

import json
import sys

from tests.escape.inside import each, read, tries

NAME = json.loads(sys.argv[1])["name"]
tries(each(lambda place: read(f"{place}/{NAME}"), "/tmp", "/dev/shm", "/var/tmp"))
