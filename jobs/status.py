"""Show the progress of a run from its files alone.

The same as ``canopy status``, for ``ray job submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["status"]

if __name__ == "__main__":
    sys.exit(main())
