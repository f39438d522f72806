"""Read, validate and split the images; write the catalogue.

The same as ``canopy prepare``, for ``ray job submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["prepare"]

if __name__ == "__main__":
    sys.exit(main())
