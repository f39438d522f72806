"""The ``canopy`` command as a program."""

from __future__ import annotations

import pytest

import canopy
from canopy.cli.commands import COMMANDS
from canopy.cli.main import main
from canopy.runtime.stage import Stage


def test_every_stage_is_a_command() -> None:
    assert set(Stage) | {
        "pipeline",
        "predict",
        "export",
        "chips",
        "serve",
        "status",
        "weights",
        "monitor",
        "submit",
    } == set(COMMANDS)


def test_no_command_prints_the_commands_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "usage: canopy COMMAND" in output.err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"canopy {canopy.__version__}\n"


def test_an_unknown_command_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert capsys.readouterr().err.endswith("Got: trian. Nearest: train.\n")


def test_a_misspelt_option_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data.rot", "x"]) == 2
    output = capsys.readouterr()
    assert "--data.root" in output.err
    assert "Traceback" not in output.err


def test_the_plan_is_printed_without_starting_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "--dry-run"]) == 0
    assert "nothing was read, started or written" in capsys.readouterr().out
