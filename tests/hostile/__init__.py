"""Clients with a hex editor: whatever comes, the answer is typed, and the daemon serves the next one."""
