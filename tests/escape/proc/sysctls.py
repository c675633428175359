"""Find any kernel setting that opens for writing.

Those of the network and ipc namespaces belong to their user namespace's root, which a payload could try to be.

Wall: user namespace; /proc/sys is read-only
Meets: none
Control: fence without ids, capabilities
Reference: proc_sys(5)
"""

import os
from functools import partial

from tests.escape.inside import contained, got, open_to_write, outcome

for directory, _, names in os.walk("/proc/sys"):
    for name in names:
        path = os.path.join(directory, name)
        if outcome(partial(open_to_write, path)) == "ok":
            got(path)
contained("none")
