"""Tune weights and thresholds; score once on the test split."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from canopy.cli import parse, run_job
from canopy.pipeline import run_stages


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage over a run directory; returns the exit status."""
    return run_job(lambda args: run_stages(parse(args, __doc__ or ""), ["ensemble"]), argv)


if __name__ == "__main__":
    sys.exit(main())
