"""Put keys into keyrings, which no namespace but the user's divides, and whose references were counted wrongly.

Wall: filter
Meets: EPERM
Control: no filter
Needs: keyrings
Reference: CVE-2016-0728, keyrings(7)
"""

from tests.escape.inside import system, tries

SESSION, USER, DESCRIBE = -3, -4, 6
tries(
    {
        "add_key": lambda: system("add_key", b"user", b"immured", b"x", 1, SESSION),
        "keyctl": lambda: system("keyctl", DESCRIBE, USER, 0, 0, 0),
        "request_key": lambda: system("request_key", b"user", b"immured", 0, SESSION),
    }
)
