"""Exit statuses: one message, no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from canopy.cli.exit_status import RESUMES, STARTS_OVER, canopy_error, run_job
from canopy.errors import DataError, StageError, Stopped, StorageError


def raising(error: BaseException) -> Callable[[Sequence[str]], object]:
    """A job that fails with ``error``."""

    def job(_: Sequence[str]) -> None:
        raise error

    return job


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (DataError("a", "must be b", "c", "Do d."), 2, "error: a must be b. Got: c. Do d.\n"),
        (
            StorageError("s3://b", "must answer", "a time-out", "Wait."),
            1,
            "error: s3://b must answer. Got: a",
        ),
        (StageError("the sweep failed"), 1, "error: the sweep failed\n"),
        (Stopped(signal.SIGINT, "2 checkpoints kept"), 130, "stopped (SIGINT); 2 checkpoints kept"),
        (KeyboardInterrupt(), 130, f"interrupted; {RESUMES}\n"),
        (SystemExit(143), 143, f"stopped (SIGTERM); {RESUMES}\n"),
        (SystemExit(0), 0, ""),
        (SystemExit("no"), 2, ""),
    ],
)
def test_each_error_has_its_status_and_one_message(
    error: BaseException, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(raising(error), []) == status
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(text)
    assert output.err.count("\n") == bool(text)


def test_a_command_that_cannot_resume_does_not_promise_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(raising(KeyboardInterrupt()), [], STARTS_OVER) == 130
    assert capsys.readouterr().err == f"interrupted; {STARTS_OVER}\n"


def test_an_unknown_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_job(raising(ZeroDivisionError()), [])


def test_an_unknown_log_level_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CANOPY_LOG_LEVEL", "loud")
    assert run_job(lambda _: None, []) == 2
    assert "CANOPY_LOG_LEVEL must be one of DEBUG, INFO" in capsys.readouterr().err


def test_a_reader_that_goes_away_ends_a_job_without_a_traceback() -> None:
    script = "from canopy.cli.exit_status import run_job; exit(run_job(lambda _: print('x' * 200_000), []))"
    job = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert job.stdout is not None
    job.stdout.close()
    assert job.stderr is not None
    assert job.stderr.read() == b""
    assert job.wait() == 141


def test_an_error_of_ours_is_found_behind_others() -> None:
    ours = DataError("a", "b", "c", "d")
    wrapped = RuntimeError("task failed")
    wrapped.__cause__ = ours
    assert canopy_error(wrapped) is ours
    assert canopy_error(RuntimeError("other")) is None


def test_an_error_whose_cause_comes_back_to_it_ends_the_search() -> None:
    outer, inner = ValueError("outer"), ValueError("inner")
    outer.__cause__, inner.__cause__ = inner, outer
    assert canopy_error(outer) is None
    inner.__cause__ = known = DataError("A", "must be b", "c", "Do d.")
    assert canopy_error(outer) is known
