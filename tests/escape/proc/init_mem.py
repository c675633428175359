"""Read and write the memory of PID 1 through /proc.

Wall: ids; PID 1 is not dumpable
Meets: EACCES EPERM
Control: fence without ids, capabilities
Reference: CVE-2012-0056
"""

import os

from tests.escape.inside import each, tries

tries(each(lambda way: os.open("/proc/1/mem", way), os.O_RDWR, os.O_RDONLY))
