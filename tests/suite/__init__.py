"""How the suite itself runs: its halves, what of it is said last, and what becomes of a test that hangs."""
