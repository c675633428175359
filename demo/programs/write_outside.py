"""Tries to write where it was not allowed to: prints, for each place, the errno's name or OK."""

import errno
import pathlib
import sys

for place in sys.argv[1:]:
    try:
        pathlib.Path(place).write_text("was here")
    except OSError as refused:
        print(errno.errorcode[refused.errno or 0])
    else:
        print("OK")
