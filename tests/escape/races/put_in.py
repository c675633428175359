"""Exchange the directory that a run's files are put into for a link to one of root's.

Wall: files are put in as the payload, inside, without following links
Meets: outside-decides
Ends: path_denied path_missing root_owned path_kind target_invalid cwd_missing
Scene: race_files
Control: fence
Reference: CVE-2018-15664, CVE-2019-14271 (docker cp)
"""

from tests.escape.inside import contained

contained("outside-decides")  # the scene looks at root's directory
