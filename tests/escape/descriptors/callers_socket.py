"""Speak to a socket of the caller's own, in a directory that the caller binds to be read: an agent with keys.

Wall: landlock, from its ABI 9 on
Meets: EACCES
Open: Landlock below ABI 9: a mount keeps files from being changed, not a listener from being spoken to. Bind
  directories without any
Scene: agent_in_a_bind
Control: fence
Reference: ssh-agent(1); unix(7)
"""

import socket
import sys

from tests.escape.inside import got

socket.socket(socket.AF_UNIX).connect(sys.argv[1])
got("the agent")
