"""``python -m blendtitan``: the command line."""

import sys

from blendtitan.cli import main

sys.exit(main())
