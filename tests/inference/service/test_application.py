"""The application of the service: what is refused before anything starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from canopy.config import BandConfig, derive
from canopy.ensemble.model import Ensemble
from canopy.errors import ConfigError, InputError, RunDirError
from canopy.inference.service.application import (
    application,
    build,
    gateway_deployment,
    model_deployment,
    require_equal_labels,
    require_one_file,
)
from canopy.inference.service.settings import ServiceOptions
from canopy.labels import LabelSet
from canopy.storage.run_dir import RunDir

OPEN = ServiceOptions(auth=False)


def test_models_whose_labels_differ_are_refused(finished: RunDir, tmp_path: Path) -> None:
    other = RunDir(str(shutil.copytree(finished.root, tmp_path / "other")))
    file = Path(other.path("ensemble", "ensemble.json"))
    file.write_text(file.read_text().replace('"some"', '"little"'))
    assert Ensemble.load(file).labels.names[2] == "little"
    with pytest.raises(ConfigError, match=r"label 3 is little in b and some in a.*as two services"):
        application({"a": finished.root, "b": other.root}, OPEN)
    with pytest.raises(ConfigError, match="1 labels of b and 2 of a"):
        require_equal_labels({"a": LabelSet(("x", "y")), "b": LabelSet(("x",))})


def test_a_run_that_is_not_finished_is_refused(finished: RunDir, tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"must hold a config\.yaml"):
        application({"a": str(tmp_path)}, OPEN)
    copy = shutil.copytree(finished.root, tmp_path / "copy")
    shutil.rmtree(copy / "ensemble")
    with pytest.raises(RunDirError, match="the stage ensemble has not finished"):
        application({"a": str(copy)}, OPEN)


def test_a_model_whose_chips_have_several_files_is_refused(tmp_path: Path, finished: RunDir) -> None:
    for files, message in (
        (("{id}_a.tif", "{id}_b.tif"), r"The model a must read chips of one file.*2 files \(\{id\}_a\.tif, "),
        ((None, None), ""),
    ):
        run = RunDir(str(tmp_path / f"run{len(message)}"))
        shutil.copytree(finished.root, run.root)
        config = run.load_config()
        bands = tuple(BandConfig(name=f"b{n}", band=1, file=file) for n, file in enumerate(files))
        Path(run.path("config.yaml")).unlink()
        run.store_config(derive(config, data=derive(config.data, source="table", root="/data", bands=bands)))
        if not message:
            require_one_file("a", run.root)
            continue
        with pytest.raises(ConfigError, match=message):
            application({"a": run.root}, OPEN)


def test_arguments_of_a_config_file_are_checked(finished: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CANOPY_SERVE_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="CANOPY_SERVE_TOKEN"):
        build({"models": {"a": finished.root}})
    for wrong, message in (
        ({"models": {}}, "models"),
        ({"models": {"a": finished.root}, "options": {"max_image": 3}}, "max_image"),
        ({"models": {"a b": finished.root}}, "must be RUN_DIR or NAME=RUN_DIR"),
    ):
        with pytest.raises(InputError, match=message):
            build(wrong)
    build({"models": {"a": finished.root}, "options": {"auth": False}})


def test_deployments_follow_the_options() -> None:
    options = ServiceOptions(max_queue=7, max_replicas=3, gpus_per_replica=0.25, http_replicas=2)
    made = model_deployment("a", options)
    assert made["name"] == "model-a"
    assert made["max_queued_requests"] == 7
    assert made["autoscaling_config"]["max_replicas"] == 3
    assert made["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 0.25}
    assert gateway_deployment(options)["num_replicas"] == 2
    assert gateway_deployment(options)["backpressure_config"]["status_code"] == 429
