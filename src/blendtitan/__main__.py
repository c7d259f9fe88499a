"""``python -m blendtitan``: the command line."""

import sys

from blendtitan.cli import main

if __name__ == "__main__":
    sys.exit(main())
