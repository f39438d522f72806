"""Write summary.json and the report page.

The same as ``canopy report``, for ``ray job submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["report"]

if __name__ == "__main__":
    sys.exit(main())
