"""A suite that tries to get out: one file an idea, each run twice, in a sandbox and where a wall is missing."""
