"""Credentials reach no file and no line of output, in whatever way they are given."""

from __future__ import annotations

import logging
import os
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support import start_job, tiny_experiment, write_config
from tests.test_errors import PUBLIC, SECRETS

from canopy.cli.main import main
from canopy.config import Experiment, derive
from canopy.runtime.console import Console
from canopy.runtime.logging import configure_logging
from canopy.storage import files
from canopy.storage.run_dir import RunDir

STAGE = ("prepare", "--preset", "demo", "--run-dir", "run")
WAYS: dict[str, Callable[[str], list[str]]] = {
    "the run directory": lambda a: ["pipeline", "--run-dir", a],
    "the run directory, with an equals sign": lambda a: ["train", f"--run-dir={a}"],
    "the data root": lambda a: [*STAGE, "--data.source", "kaggle", "--data.root", a],
    "the table": lambda a: [*STAGE, "--data.csv", a],
    "the folder of images": lambda a: [*STAGE, "--data.images", a],
    "the weights": lambda a: ["train", "--run-dir", "run", "--variants.0.model.weights", a],
    "the tracking server": lambda a: [*STAGE, f"--tracking.mlflow-uri={a}"],
    "a name": lambda a: [*STAGE, "--variants.0.name", a],
    "the config file's address": lambda a: ["pipeline", "--config", a, "--run-dir", "run"],
    "the plan": lambda a: ["train", "--dry-run", "--data.root", a],
    "the help": lambda a: ["prepare", "--help", "--run-dir", a],
    "the model": lambda a: ["predict", "--model", a, "--images", "given", "--out", "out.csv"],
    "the images": lambda a: ["predict", "--model", "run", "--images", a, "--out", "out.csv"],
    "the output": lambda a: ["predict", "--model", "run", "--images", "given", "--out", a],
    "a fitting file": lambda a: ["ensemble", "--fitting", f"a={a}", "--out", "out"],
    "a test file": lambda a: ["ensemble", "--fitting", "a=given/a.csv", "--test", a, "--out", "out"],
    "the ensemble's output": lambda a: ["ensemble", "--fitting", "a=given/a.csv", "--out", a],
    "the status": lambda a: ["status", a],
    "a misspelt option": lambda a: [*STAGE, "--data.rot", a],
    "a misspelt command": lambda a: [a],
    "a file of options": lambda a: [
        *STAGE[:1], "--config", given("c.yaml", yaml.safe_dump({"data": {"root": a}})),
    ],
    "an unknown field of a file": lambda a: [
        *STAGE[:1], "--config", given("c.yaml", yaml.safe_dump({"tracking": {"mlflow_password": a}})),
    ],
    "a field of another type in a file": lambda a: [
        *STAGE[:1], "--config", given("c.yaml", yaml.safe_dump({"variants": {"password": a}})),
    ],
    "a broken file of options": lambda a: [*STAGE[:1], "--config", given("c.yaml", f"data: [{a}")],
    "a cell of the table": lambda a: [
        *STAGE, "--data.source", "table", "--data.root", "given", "--data.images", ".",
        "--data.csv", given("labels.csv", f"image_name,tags,file\na,road,{a}\n"), "--data.table.path", "file",
    ],
}  # fmt: skip
"""How somebody gives an address: the arguments of ``canopy``. Files that hold it lie in the folder given."""
KINDS = list(SECRETS)


def given(name: str, text: str) -> str:
    """Write a file of the user's; its path in the folder of the user's files."""
    Path("given", name).write_text(text)
    return name if name.endswith(".csv") else f"given/{name}"


def refused_without_a_word(arguments: list[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Run a command that must refuse its arguments: nothing that it writes or prints holds the secret."""
    status = main(arguments)
    out, err = capfd.readouterr()
    assert status == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "planted" not in (out + err).lower()
    for path in folder.rglob("*"):
        assert "planted" not in path.name.lower()
        if path.is_file() and folder / "given" not in path.parents:
            assert b"planted" not in path.read_bytes().lower(), path


def in_turn() -> list[Any]:
    """Every way with two kinds of secrets, and every kind in some way; all others are slow."""
    pairs = []
    for n, way in enumerate(WAYS):
        for k, kind in enumerate(KINDS):
            chosen = (k - n) % len(KINDS) in (0, len(KINDS) // 2)
            pairs.append(pytest.param(way, kind, marks=() if chosen else pytest.mark.slow))
    return pairs


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(("way", "kind"), in_turn())
def test_an_address_with_credentials_is_refused_in_whatever_way_it_is_given(
    way: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    refused_without_a_word(WAYS[way](SECRETS[kind]), tmp_path, capfd)


@pytest.mark.parametrize(
    "arguments",
    [
        [*STAGE, "--tracking.mlflow-password", "planted"],
        [*STAGE, "--data.secret_key=planted"],
        ["predict", "--model", "run", "--images", "given", "--out", "o.csv", "--token", "planted"],
        ["status", "run", "--password", "planted"],
        ["ensemble", "--fitting", "a=given/a.csv", "--out", "o", "--api-key=planted"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_secret_as_an_option_of_its_own_is_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    refused_without_a_word(arguments, tmp_path, capfd)


@pytest.mark.parametrize("address", ["ray://user:planted@host:10001", "user:planted@host:6379"])
def test_a_secret_in_the_address_of_ray_is_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    monkeypatch.setenv("RAY_ADDRESS", address)
    refused_without_a_word(list(STAGE), tmp_path, capfd)


@pytest.mark.slow
def test_secrets_in_the_environment_are_not_written(tmp_path: Path, s3_here: str) -> None:
    """A whole pipeline in a bucket, with the credentials where they belong: no file and no log holds them."""
    config = write_config(tiny_experiment(variants=1, trials=0), tmp_path / "c.yaml")
    urllib.request.urlopen(urllib.request.Request(f"{s3_here}/secrets", method="PUT")).close()
    with tempfile.TemporaryDirectory(prefix="csec", ignore_cleanup_errors=True) as folder:
        names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AZURE_PASSWORD")
        env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder}
        env |= {name: f"planted{n}" for n, name in enumerate(names)}
        arguments = ["--config", str(config), "--run-dir", "s3://secrets/run"]
        arguments += ["--data.root", f"{tmp_path}/data"]
        job = start_job("pipeline", *arguments, env=env, log=tmp_path / "log")
        assert job.wait(timeout=600) == 0, (tmp_path / "log").read_text()
        written = [path for root in (tmp_path, Path(folder)) for path in root.rglob("*") if path.is_file()]
        assert any("raylet" in path.name for path in written), "Ray's logs are elsewhere"
        for path in written:
            assert b"planted" not in path.read_bytes(), path
    stored = files.list_files("s3://secrets/run", recursive=True)
    assert "summary.json" in stored
    for name in stored:
        assert b"planted" not in files.read_bytes(f"s3://secrets/run/{name}"), name


planted = pytest.mark.parametrize("address", SECRETS.values(), ids=SECRETS)


@planted
def test_an_address_with_credentials_is_refused_where_it_enters(
    address: str, tmp_path: Path, tiny: Experiment
) -> None:
    run_dir = RunDir(str(tmp_path / "run"))
    run_dir.store_config(tiny)
    attempts: list[Callable[[], object]] = [
        lambda: RunDir(address),
        lambda: run_dir.claim("a" * 64, 10, address),
        lambda: run_dir.store_config(derive(tiny, data=derive(tiny.data, root=address))),
        lambda: run_dir.store_config(derive(tiny, tracking=derive(tiny.tracking, mlflow_uri=address))),
        lambda: files.write_bytes(address, b""),
        lambda: files.read_bytes(address),
    ]
    for attempt in attempts:
        with pytest.raises(ValueError, match=r"credentials|must be one that Canopy can read") as error:
            attempt()
        assert "planted" not in files.shown(str(error.value)).lower()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"preset: tiny" in written
    assert b"planted" not in written.lower()


@planted
def test_an_address_with_credentials_is_masked_in_what_people_read(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("driver")
    Console().say("train", f"writing to {address}")
    logging.getLogger("canopy.tests").warning("cannot write to %s", address)
    out, err = capsys.readouterr()
    assert "writing to" in out
    assert "cannot write to" in err
    assert "planted" not in (out + err).lower()


@pytest.mark.parametrize(
    "address", [one for one in PUBLIC if one.startswith(("s3://bucket/runs", "abfs", "/"))]
)
def test_an_address_without_credentials_is_stored(address: str, tmp_path: Path) -> None:
    run_dir = RunDir(str(tmp_path))
    run_dir.claim("a" * 64, 10, address)
    record = run_dir.read_data()
    assert record is not None
    assert record.root == address
