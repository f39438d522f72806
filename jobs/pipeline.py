"""Run all stages: prepare, sweep, train, ensemble, report.

The same as ``canopy pipeline``, for ``ray job submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["pipeline"]

if __name__ == "__main__":
    sys.exit(main())
