"""Set up Prometheus and Grafana for Ray's and Canopy's metrics, on the cluster's head node.

The same as ``canopy monitor``.
"""

import sys

from canopy.cli.commands import COMMANDS

main = COMMANDS["monitor"]

if __name__ == "__main__":
    sys.exit(main())
