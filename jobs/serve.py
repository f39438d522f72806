"""Serve finished runs over HTTP, with a web page, until it is stopped.

The same as ``canopy serve``, for ``ray job submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["serve"]

if __name__ == "__main__":
    sys.exit(main())
