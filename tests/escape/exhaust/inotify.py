"""Take all of a user's inotify instances: its desktop and its editors then watch nothing.

Wall: ids of a run's own: fs.inotify.max_user_instances is counted by user and by user namespace
Meets: bounded
Scene: shared_inotify
Control: fence
Reference: inotify(7)
"""

from tests.escape.inside import contained, got, holding, libc

while libc.inotify_init() >= 0:
    pass
if holding() == "none left":
    got("everybody's")
contained("bounded")
