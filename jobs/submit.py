"""Send a stage to a cluster as a job, and follow it.

The same as ``canopy submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["submit"]

if __name__ == "__main__":
    sys.exit(main())
