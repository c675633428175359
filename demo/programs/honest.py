"""Honest work: counts the words of the files that it may read, and writes a report where it may write."""

import collections
import json
import pathlib
import re
import sys

source, out = map(pathlib.Path, sys.argv[1:])
words: collections.Counter[str] = collections.Counter()
for path in sorted(source.iterdir()):
    words.update(re.findall("[a-z]+", path.read_text().lower()))
(out / "report.json").write_text(json.dumps({"words": words.total(), "most": words.most_common(3)}))
print(f"{words.total()} words, most often {words.most_common(1)[0][0]!r}")
