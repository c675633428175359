"""What this host can and cannot enforce: the probes, and `immure doctor` that reads them aloud.

Nothing here is on the way of a run, and nothing here changes the host: what a probe must make in order to try it
(a namespace, a cgroup, a file) is made in a child or under our own name, and is gone when it returns.
"""
