"""`python -m immured.service`."""

import sys

from immured.service.main import main

sys.exit(main())
