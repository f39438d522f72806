"""Train every variant that is not trained yet, all in parallel.

The same as ``canopy train``, for ``ray job submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["train"]

if __name__ == "__main__":
    sys.exit(main())
