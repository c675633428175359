"""Put a module into the kernel, take one out, put in another kernel.

Each call is made with nonsense: whoever may make it is told that it is nonsense.

Wall: filter; capabilities
Meets: EPERM
Control: fence without ids, capabilities
Needs: modules or kexec
Reference: init_module(2), kexec_load(2)
"""

from tests.escape.inside import through, tries

tries(
    {
        "init_module": lambda: through("init_module", 0, 0, b""),
        "finit_module": lambda: through("finit_module", -1, b"", 0),
        "kexec_load": lambda: through("kexec_load", 0, 0, 0, 0x10),
    }
)
