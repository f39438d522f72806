"""List the pretrained weights on this machine, or fetch some.

The same as ``canopy weights``, for ``ray job submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["weights"]

if __name__ == "__main__":
    sys.exit(main())
