"""`python -m scigen` is `scigen`."""

import sys

from scigen.cli import main

if __name__ == "__main__":
    sys.exit(main())
