"""Errors that must not end a training: they are logged as warnings, each kind once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class SuppressedErrors:
    """Suppresses errors of one training in one process, and logs the first of each kind.

    A training calls the same function thousands of times: without the limit an unreachable server would fill
    the log.

    Args:
        logger: logger of the module that suppresses.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._logged: set[str] = set()

    @contextmanager
    def suppress(self, problem: str, *kinds: type[BaseException]) -> Iterator[None]:
        """Suppress errors of the given classes in the block.

        Args:
            problem: what goes wrong, as the beginning of the log line; it also identifies the kind.
            kinds: classes of errors; everything else is raised.
        """
        try:
            yield
        except kinds as error:
            self.log(problem, error)

    def log(self, problem: str, error: BaseException) -> None:
        """Log ``problem`` with its ``error``, unless it was logged before."""
        if problem not in self._logged:
            self._logged.add(problem)
            self._logger.warning("%s: %s: %s", problem, type(error).__name__, error)
