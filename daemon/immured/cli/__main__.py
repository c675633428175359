"""`python -m immured.cli` is `immure`."""

from immured.cli import main

main()
