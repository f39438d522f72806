"""The sub-commands: one for each job, the same parser behind both."""

from __future__ import annotations

import importlib

import pytest
from tests.support import REPOSITORY

from canopy.cli.commands import COMMANDS
from canopy.cli.main import main


def test_every_job_is_a_command_of_the_same_name() -> None:
    jobs = {path.stem for path in (REPOSITORY / "jobs").glob("*.py")}
    assert jobs == set(COMMANDS)
    for name in jobs:
        assert importlib.import_module(f"jobs.{name}").main is COMMANDS[name]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: canopy {name}" in text
    assert len(text.splitlines()) <= {"serve": 48, "predict": 80}.get(name, 40), "a screen"


def test_a_job_names_itself_in_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMANDS["sweep"](["--help"]) == 0
    assert "usage: jobs/sweep.py" in capsys.readouterr().out


def test_the_ensemble_of_files_has_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ensemble", "--fitting", "a=none.csv", "--out", "o", "--ensemble.folds", "3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ensemble.folds in the command line must be greater than or equal to 4")
    assert error.count("\n") == 1
    assert main(["ensemble", "--fitting", "a=none.csv", "--help"]) == 0
    assert "--test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["predict", "--model", "m", "--out", "o"], "--images"),
        (["status"], "RUN_DIR"),
        (["status", "nowhere"], "must hold a config.yaml"),
        (["report", "--run-dir", "nowhere", "--folds", "0"], "folds"),
    ],
)
def test_bad_options_end_with_two(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert text in capsys.readouterr().err
