"""Have a link brought back instead of a file: what it names outside, or inside, comes along.

Wall: files are collected as the payload, inside, without following links
Meets: outside-decides
Scene: collects_a_link
Control: fence
Reference: CVE-2018-15664 (docker cp)
"""

import os
import sys

from tests.escape.inside import contained

os.symlink(sys.argv[1], sys.argv[2])
contained("outside-decides")  # the scene looks at what came back
