"""Write the ensemble of a finished run as ONNX, a torch program and a folder for the Hugging Face hub.

The same as ``canopy export``, for ``ray job submit``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["export"]

if __name__ == "__main__":
    sys.exit(main())
