"""Changes one file of a project, removes one and adds one."""

import pathlib
import sys

project = pathlib.Path(sys.argv[1])
text = project / "text"
text.write_text(text.read_text().replace("teh", "the"))
(project / "draft").unlink()
(project / "done").write_text("mended\n")
