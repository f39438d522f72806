"""Apply the ensemble of a finished run to a directory of images.

The same as ``canopy predict``, for ``ray job submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["predict"]

if __name__ == "__main__":
    sys.exit(main())
