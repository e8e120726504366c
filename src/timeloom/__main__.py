"""`python -m timeloom` is the `timeloom` command."""

import sys

from timeloom.cli import main

if __name__ == "__main__":
    sys.exit(main())
