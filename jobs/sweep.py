"""Search over fields of the variants, by default over the focal-loss parameters of one.

The same as ``canopy sweep``, for ``ray job submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["sweep"]

if __name__ == "__main__":
    sys.exit(main())
