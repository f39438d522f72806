"""Errors that do not end a training are logged, each kind once."""

from __future__ import annotations

import logging

import pytest

from canopy.train.monitor.suppressed_errors import SuppressedErrors

logger = logging.getLogger("canopy.tests")


def test_each_kind_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    errors = SuppressedErrors(logger)
    with caplog.at_level(logging.WARNING, "canopy"):
        for problem in ("The disk", "The disk", "The server", "The disk"):
            with errors.suppress(problem, OSError):
                raise OSError("is full")
    assert [record.message for record in caplog.records] == [
        "The disk: OSError: is full",
        "The server: OSError: is full",
    ]


def test_other_errors_are_raised() -> None:
    with pytest.raises(ZeroDivisionError), SuppressedErrors(logger).suppress("The disk", OSError):
        raise ZeroDivisionError
