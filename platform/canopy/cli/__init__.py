"""The ``canopy`` command, whose sub-commands ``jobs/*.py`` run too: stages, and what uses a finished run."""

from canopy.cli.exit_status import canopy_error, run_job
from canopy.cli.options import parse

__all__ = ["canopy_error", "parse", "run_job"]
