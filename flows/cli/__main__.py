"""`python -m flows.cli` is the command `blockqnn`."""

import sys

from flows.cli import main

sys.exit(main())
