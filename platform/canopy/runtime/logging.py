"""Logging of every process under the logger ``canopy``, with the run, variant, fold and rank in each line.

The driver prints warnings to standard error, one line each, between the lines of the console. Ray workers
write from INFO upwards to their standard error, which Ray keeps in ``logs/worker-*.err`` of its session and
shows in its dashboard. The environment variable ``CANOPY_LOG_LEVEL`` (DEBUG, INFO, WARNING, ERROR) sets the
level of both.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TextIO

from canopy.errors import ConfigError, printable, without_credentials

Process = Literal["driver", "worker"]

LEVEL_VARIABLE = "CANOPY_LOG_LEVEL"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
DEFAULT_LEVEL: dict[Process, str] = {"driver": "WARNING", "worker": "INFO"}

_context: ContextVar[Mapping[str, str]] = ContextVar("canopy_log_context", default={})  # noqa: B039 (never changed)


def configure_logging(process: Process) -> None:
    """Give the logger ``canopy`` its handler; a second call replaces the first one's handler.

    Args:
        process: ``driver`` for a job's own process, ``worker`` for Ray tasks, actors and training workers.

    Raises:
        ConfigError: when ``CANOPY_LOG_LEVEL`` is not a level.
    """
    level = os.environ.get(LEVEL_VARIABLE, DEFAULT_LEVEL[process]).upper()
    if level not in LEVELS:
        remedy = "Correct the environment variable, or unset it."
        raise ConfigError(LEVEL_VARIABLE, f"must be one of {', '.join(LEVELS)}", level, remedy)
    handler = CurrentStderrHandler(level)
    handler.addFilter(add_context)
    handler.setFormatter(DriverFormatter() if process == "driver" else WorkerFormatter())
    logger = logging.getLogger("canopy")
    for former in [h for h in logger.handlers if isinstance(h, CurrentStderrHandler)]:
        logger.removeHandler(former)
    logger.addHandler(handler)
    logger.setLevel(level)


@contextmanager
def log_context(
    *,
    run: str | None = None,
    variant: str | None = None,
    fold: int | None = None,
    rank: int | None = None,
) -> Iterator[None]:
    """Add fields to every log line of the block; outer blocks' fields stay, None leaves a field as it is.

    The fields belong to the current thread: a thread that is started in the block begins without them.
    """
    given = {"run": run, "variant": variant, "fold": fold, "rank": rank}
    fields = {name: str(value) for name, value in given.items() if value is not None}
    with remote_log_context({**_context.get(), **fields}):
        yield


def current_context() -> dict[str, str]:
    """The fields of the current block, to be passed to :func:`remote_log_context` in another process."""
    return dict(_context.get())


@contextmanager
def remote_log_context(fields: Mapping[str, str]) -> Iterator[None]:
    """Use the fields of another process's or thread's :func:`current_context` in the block."""
    token = _context.set(dict(fields))
    try:
        yield
    finally:
        _context.reset(token)


def add_context(record: logging.LogRecord) -> bool:
    """A filter of a handler: stores the current fields in the record, as text; lets every record pass."""
    record.canopy_context = "".join(f" {name}={value}" for name, value in _context.get().items())
    return True


class CurrentStderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stderr`` is at the time of the line: tests and notebooks replace it."""

    def __init__(self, level: str) -> None:
        super().__init__(sys.stderr)
        self.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self.stream = sys.stderr
        super().emit(record)


class DriverFormatter(logging.Formatter):
    """``warning: MESSAGE [variant=resnet fold=0]``; one line, without a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        fields = getattr(record, "canopy_context", "").strip()
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        line = f"{record.levelname.lower()}: {text}" + (f" [{fields}]" if fields else "")
        return printable(without_credentials(line))


class WorkerFormatter(logging.Formatter):
    """``TIME LEVEL LOGGER run=… variant=… | MESSAGE``; one line, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        fields = getattr(record, "canopy_context", "")
        head = f"{self.formatTime(record)} {record.levelname} {record.name}{fields} | "
        line = printable(without_credentials(head + record.getMessage()))
        if record.exc_info:
            line += "\n" + without_credentials(self.formatException(record.exc_info))
        return line
