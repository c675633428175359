"""Adds one line to a file: so that somebody can count how often it ran."""

import pathlib
import sys

with pathlib.Path(sys.argv[1]).open("a") as file:
    file.write("ran\n")
