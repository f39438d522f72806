"""Combine the members' probabilities, tune thresholds, score once on the test split.

The same as ``canopy ensemble``, for ``ray job submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["ensemble"]

if __name__ == "__main__":
    sys.exit(main())
