"""``canopy submit`` on the command line; ``tests/jobs/test_submit.py`` has a real cluster."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from tests.support import REPOSITORY, tiny_experiment, write_config

from canopy.cli.main import main
from canopy.cli.options import Options
from canopy.cli.predict_command import PredictOptions
from canopy.cli.submit_command import SubmitOptions, split_arguments


@pytest.fixture(autouse=True)
def without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the top of the repository, as the docs say, and no address."""
    monkeypatch.chdir(REPOSITORY)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_its_options_may_stand_anywhere() -> None:
    own = ["pipeline", "--submission-id", "first", "--no-wait"]
    rest = ["--preset", "amazon", "--folds=5"]
    assert split_arguments([*own, *rest]) == (own, rest)
    assert split_arguments(["pipeline", *rest, *own[1:]]) == (own, rest)
    assert split_arguments([*own[1:], "pipeline", *rest]) == (own, rest)
    assert split_arguments(["sweep", "--submission_id=a"]) == (["sweep", "--submission_id=a"], [])


def test_no_job_has_an_option_of_its_names() -> None:
    own = {field.name for field in fields(SubmitOptions)} - {"stage"}
    assert own == {"submission_id", "no_wait"}
    assert not own & {field.name for kind in (Options, PredictOptions) for field in fields(kind)}


def test_the_help_of_a_job_is_at_hand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "usage: canopy submit train" in text
    assert "--variants.0.optim.epochs" in text


RUN = ["--run-dir", "s3://bucket/run"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["serve", *RUN], "STAGE must be one of pipeline, prepare"),
        (["pipeline"], "--run-dir must be absolute or a URI in a submitted job"),
        (["pipeline", "--run-dir", "runs/a"], "--run-dir must be absolute"),
        (["pipeline", "--run-dir", "/shared/a", "--data.root", "chips"], "--data.root must be absolute"),
        (["prepare", "--run-dir", "/shared/a", "--config", "c.yaml"], "--config must lie in configs/"),
        (["train", "--run-dir", "/shared/a", "--folds", "0"], "folds in the command line must be"),
        (["predict", "--model", "m", "--images", "/i", "--out", "/o"], "--model must be absolute"),
        (["predict", "--model", "/m", "--out", "/o"], "--images and --scene must be given one without"),
        (["predict", "--model", "/m", "--images", "/i", "--out", "/o", "--mosaic"], "--mosaic must not be"),
        (["sweep", "--run-dir", "s3://key:secret@bucket/run"], "must not hold credentials"),
        (
            ["pipeline", "--run-dir", "/shared/a", "--submission-id", "a/b"],
            "--submission-id must be up to 100",
        ),
        (["pipeline", "--run-dir", "/shared/a"], "RAY_ADDRESS must be the http address"),
    ],
)
def test_bad_input_ends_with_two_before_anything_is_sent(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_the_job_is_sent_from_the_top_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["submit", "pipeline", *RUN]) == 2
    assert "must be the top of Canopy's repository" in capsys.readouterr().err


def test_a_config_of_the_cluster_is_left_to_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tiny_experiment(), tmp_path / "c.yaml")
    assert main(["submit", "pipeline", "--run-dir", "/shared/a", "--config", str(config)]) == 2
    assert "--config is a file of the cluster" not in capsys.readouterr().out
    assert main(["submit", "pipeline", "--run-dir", "/shared/a", "--config", "/nowhere/c.yaml"]) == 2
    assert "--config is a file of the cluster" in capsys.readouterr().out
