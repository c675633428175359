"""Switch setgroups on again, and write another map of ids.

Wall: user namespace: its files belong to host root
Meets: EACCES EPERM EROFS
Control: fence
Reference: CVE-2014-8989, user_namespaces(7)
"""

from tests.escape.inside import NEWUSER, outcome, system, tries

outcome(lambda: system("unshare", NEWUSER))  # where that works, the files are one's own


def write(name: str, text: str) -> None:
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)


tries(
    {
        "setgroups": lambda: write("setgroups", "deny"),
        "uid_map": lambda: write("uid_map", "0 0 1"),
        "gid_map": lambda: write("gid_map", "0 0 1"),
    }
)
