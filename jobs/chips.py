"""Cut a georeferenced scene into chips, labelled by polygons.

The same as ``canopy chips``, for ``ray job submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["chips"]

if __name__ == "__main__":
    sys.exit(main())
