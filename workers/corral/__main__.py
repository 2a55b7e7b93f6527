"""`python -m corral`: the same as `corral`."""

import sys

from corral.cli import main

if __name__ == "__main__":
    sys.exit(main())
