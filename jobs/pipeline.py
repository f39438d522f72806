"""The whole way: prepare, sweep, train, ensemble, report."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from canopy.cli import parse, run_job
from canopy.pipeline import run_stages


def main(argv: Sequence[str] | None = None) -> int:
    """Run all stages over a run directory; returns the exit status."""
    return run_job(lambda args: run_stages(parse(args, __doc__ or "")), argv)


if __name__ == "__main__":
    sys.exit(main())
