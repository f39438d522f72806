"""Runs a command and converts exceptions into a message on standard error and an exit status.

====== =========================================================================
status meaning
====== =========================================================================
0      done
1      a stage, a service or a machine failed (:class:`canopy.errors.StageError`)
2      bad input (:class:`canopy.errors.InputError`), or an unknown option
130    interrupted by Ctrl-C
141    the reader of standard output has gone
143    ended by SIGTERM
====== =========================================================================
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Sequence

from canopy.errors import SIGTERM_STATUS, CanopyError, InputError, Stopped
from canopy.runtime.logging import configure_logging

INTERRUPT_STATUS = 128 + signal.SIGINT
PIPE_STATUS = 128 + signal.SIGPIPE
RESUMES = "the same command continues where this one ended"
STARTS_OVER = "the same command starts over"


def run_job(
    job: Callable[[Sequence[str]], object], argv: Sequence[str] | None = None, after_stop: str = RESUMES
) -> int:
    """Run the body of a command and return its exit status.

    Args:
        job: takes the arguments.
        argv: arguments; None takes those of the process.
        after_stop: effect of running the command again after a signal ended it, as a phrase.
    """
    try:
        configure_logging("driver")
        job(sys.argv[1:] if argv is None else argv)
    except SystemExit as error:  # tyro's --help and its refusals, and SIGTERM
        if error.code == SIGTERM_STATUS:
            print(f"stopped (SIGTERM); {after_stop}", file=sys.stderr)
        return error.code if isinstance(error.code, int) else InputError.exit_status
    except KeyboardInterrupt:
        print(f"interrupted; {after_stop}", file=sys.stderr)
        return INTERRUPT_STATUS
    except BrokenPipeError:
        if not is_output_closed():
            raise
        return PIPE_STATUS
    except Exception as error:
        known = canopy_error(error)
        if known is None:
            raise
        print(known if isinstance(known, Stopped) else f"error: {known}", file=sys.stderr)
        return known.exit_status
    return 0


def is_output_closed() -> bool:
    """Whether the reader of standard output (head, less) has gone; later output is then discarded."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # POLLERR is reported without being requested
    closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the last flush would fail too
    return closed


def canopy_error(error: BaseException | None) -> CanopyError | None:
    """The first CanopyError among ``error`` and its causes, such as the cause of a Ray task's error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # causes may form a cycle
        if isinstance(error, CanopyError):
            return error
        seen.add(id(error))
        error = getattr(error, "cause", None) or error.__cause__
    return None
