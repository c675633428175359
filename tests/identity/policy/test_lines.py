"""Which line a table or name stands on, whatever else the file looks like."""

from __future__ import annotations

import pytest

from immured.identity.policy.lines import line_of

TEXT = """\
schema = 1            # 1
[ roles . "viewer" ]  # 2
title = '''
[roles.fake]
title = "not this"
'''
includes = [          # 7
  "x",
]

[[rules]]             # 11
name = "a"

[[rules]]             # 14
"name" = "b"
text = \"\"\"one line\"\"\"
labels.team = "red"   # 17

[roles.last]          # 19
"""


@pytest.mark.parametrize(
    ("table", "index", "name", "line"),
    [
        ("", None, "schema", 1),
        ("roles.viewer", None, None, 2),
        ("roles.viewer", None, "includes", 7),
        ("roles.viewer", None, "nothing", 2),
        ("roles.fake", None, None, None),
        ("rules", 0, "name", 12),
        ("rules", 1, "name", 15),
        ("rules", 1, "labels", 17),
        ("rules", 2, None, None),
        ("roles.last", None, None, 19),
        ("roles.last", None, "title", 19),
    ],
)
def test_lines(table: str, index: int | None, name: str | None, line: int | None) -> None:
    assert line_of(TEXT, table, index, name) == line
