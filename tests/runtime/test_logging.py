"""Logging: one line each, with the context, in the driver and in Ray's log files."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from canopy.errors import ConfigError
from canopy.runtime.logging import (
    CurrentStderrHandler,
    configure_logging,
    current_context,
    log_context,
    remote_log_context,
)
from canopy.runtime.ray_internals.core import session_directory
from canopy.runtime.ray_tasks import map_blocks

logger = logging.getLogger("canopy.tests")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    parent = logging.getLogger("canopy")
    level, handlers = parent.level, list(parent.handlers)
    yield
    parent.setLevel(level)
    parent.handlers[:] = handlers


def test_the_driver_prints_warnings_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("driver")
    with log_context(run="runs/a", variant="resnet"), log_context(fold=0, rank=1):
        logger.info("nobody reads this")
        logger.warning("file %s", "a\nb?secret_key=planted")
    try:
        raise OSError("first\nsecond")
    except OSError:
        logger.warning("cannot read", exc_info=True)
    out, err = capsys.readouterr()
    assert not out
    assert err.splitlines() == [
        r"warning: file a\nb?secret_key=*** [run=runs/a variant=resnet fold=0 rank=1]",
        r"warning: cannot read (OSError: first\nsecond)",
    ]


def test_workers_write_from_info_upwards_with_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("worker")
    logger.debug("no")
    with log_context(rank=0):
        logger.info("epoch 1")
    try:
        raise OSError("gone")
    except OSError:
        logger.exception("cannot read")
    first, second, *traceback = capsys.readouterr().err.splitlines()
    assert first.endswith(" INFO canopy.tests rank=0 | epoch 1")
    assert second.endswith(" ERROR canopy.tests | cannot read")
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1] == "OSError: gone"


def test_a_second_configuration_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        configure_logging("driver")
    logger.warning("once")
    assert capsys.readouterr().err == "warning: once\n"
    ours = [h for h in logging.getLogger("canopy").handlers if isinstance(h, CurrentStderrHandler)]
    assert len(ours) == 1


def test_the_level_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CANOPY_LOG_LEVEL", "debug")
    configure_logging("driver")
    logger.debug("seen")
    assert capsys.readouterr().err == "debug: seen\n"
    monkeypatch.setenv("CANOPY_LOG_LEVEL", "loud")
    with pytest.raises(ConfigError, match=r"CANOPY_LOG_LEVEL must be one of DEBUG.*Got: LOUD"):
        configure_logging("driver")


def test_the_context_nests_and_ends() -> None:
    with log_context(run="a", fold=0):
        with log_context(fold=1):
            inner = current_context()
            assert inner == {"run": "a", "fold": "1"}
        assert current_context() == {"run": "a", "fold": "0"}
        with remote_log_context(inner):
            assert current_context() == inner
    assert current_context() == {}


@pytest.mark.usefixtures("ray_here")
def test_a_ray_task_writes_to_rays_log_files_with_the_context_of_the_driver() -> None:
    def work(block: int) -> str:
        logging.getLogger("canopy.tests").warning("block %d was odd", block)
        return str(session_directory())

    with log_context(run="runs/b", variant="resnet", fold=2):
        session = Path(next(iter(map_blocks(work, [7]))))
    expected = " WARNING canopy.tests run=runs/b variant=resnet fold=2 | block 7 was odd"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = [line for log in session.glob("logs/worker-*.err") for line in log.read_text().splitlines()]
        if any(line.endswith(expected) for line in lines):
            return
        time.sleep(0.1)
    pytest.fail(f"no such line in {session}/logs/worker-*.err")
