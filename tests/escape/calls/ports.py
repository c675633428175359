"""Speak to hardware: input and output ports.

Wall: filter; capabilities
Meets: EPERM
Control: fence without ids, capabilities
Needs: iopl
Machine: x86_64
Reference: iopl(2)
"""

from tests.escape.inside import system, tries

tries({"iopl": lambda: system("iopl", 3), "ioperm": lambda: system("ioperm", 0x80, 1, 1)})
