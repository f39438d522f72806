"""Bad input of every kind: one message, status 2, no traceback."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from tests.support import read_json, tiny_experiment, write_config

from canopy.config import DataConfig, Experiment, derive
from canopy.storage.run_dir import RunDir
from jobs import pipeline, predict, prepare

pytestmark = pytest.mark.usefixtures("ray_here")
CHIPS = 120


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in Kaggle's layout."""
    root = tmp_path_factory.mktemp("source")
    (root / "train-jpg").mkdir()
    rng = np.random.default_rng(0)
    rows = ["image_name,tags"]
    for n in range(CHIPS):
        chip = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(chip).save(root / "train-jpg" / f"c{n}.jpg")
        rows.append(f"c{n},{'clear primary' if n % 2 else 'haze water'}{' road' if n % 3 else ''}")
    (root / "train_v2.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def root(source: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(source, tmp_path / "root"))


def experiment(root: Path) -> Experiment:
    data = DataConfig(source="kaggle", root=str(root), image_size=32, val_fraction=0.35, test_fraction=0.25)
    return derive(tiny_experiment(variants=1), data=data)


def run(
    job: ModuleType, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, str]:
    file = write_config(experiment(root), tmp_path / "c.yaml")
    status = job.main(["--config", str(file), "--run-dir", str(tmp_path / "run"), *more])
    output = capsys.readouterr()
    assert "Traceback" not in output.err + output.out
    return status, output.err


def refused(
    texts: list[str], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> None:
    status, error = run(pipeline, root, tmp_path, capsys, *more)
    assert status == 2, error
    assert error.startswith("error: "), error
    assert error.count("\n") == 1, error
    for text in texts:
        assert text in error, error


def test_a_missing_root(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused([str(root / "no"), "Got:"], root / "no", tmp_path, capsys)


def test_no_root_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline.main(["--preset", "planet32", "--run-dir", str(tmp_path)]) == 2
    assert "data.root must name the directory" in capsys.readouterr().err


def test_weights_that_are_not_one_per_label(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = "--variants.0.loss."
    more = (
        "--variants.0.swept",
        "False",
        f"{loss}name",
        "weighted_bce",
        f"{loss}class-weights",
        "1",
        "2",
    )
    refused(["variant ", "loss.class_weights", "5", "Got: 2"], root, tmp_path, capsys, *more)
    assert not (tmp_path / "run" / "train").exists(), "refused before anything is trained"


def test_a_csv_without_the_columns(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train_v2.csv").write_text("name,labels\na,b\n")
    refused(["train_v2.csv", "image_name", "name, labels"], root, tmp_path, capsys)


def test_an_image_that_is_absent(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train-jpg" / "c7.jpg").unlink()
    refused(["c7"], root, tmp_path, capsys)


def test_an_unreadable_image(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (root / "train-jpg" / "c9.jpg").read_bytes()
    (root / "train-jpg" / "c9.jpg").write_bytes(whole[: len(whole) // 2])
    refused(["c9", "max_bad_fraction"], root, tmp_path, capsys)
    status, _ = run(prepare, root, tmp_path, capsys, "--data.max-bad-fraction", "0.02")
    assert status == 0
    found = read_json(tmp_path / "run" / "prepare" / "validation.json")
    assert list(found["bad"]) == ["c9"]
    assert RunDir(str(tmp_path / "run")).load_config().data.max_bad_fraction == 0.02


def test_an_unknown_backbone(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["resnt18", "resnet18"], root, tmp_path, capsys, "--variants.0.model.backbone", "resnt18")
    assert not (tmp_path / "run").exists(), "refused before anything is computed"


def test_a_file_of_weights_that_is_not_there(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["model.weights", "no.safetensors", "must be the path or URI of a file that can be read"]
    refused(texts, root, tmp_path, capsys, "--variants.0.model.weights", str(tmp_path / "no.safetensors"))
    assert not (tmp_path / "run").exists(), "refused before anything is computed"


def test_predict_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "o.parquet")
    arguments = ["--model", str(tmp_path), "--images", str(tmp_path / "none"), "--out", out]
    assert predict.main(arguments) == 2
    assert "--images must be a directory" in capsys.readouterr().err
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    arguments[3] = str(tmp_path)
    assert predict.main(arguments) == 2
    assert "must hold a config.yaml" in capsys.readouterr().err


def test_batch_norm_with_one_image_per_worker(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--variants.0.optim.batch-size", "2", "--variants.0.scale.workers", "2")
    refused(["optim.batch_size must be at least 4", "Raise optim.batch_size"], root, tmp_path, capsys, *more)
    assert not (tmp_path / "run").exists(), "refused before anything is computed"


def test_too_few_images_for_the_ensemble(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = ("--data.val-fraction", "0.15", "--data.test-fraction", "0.2")
    refused(["at least 20 rows in the second half of val", "Got: 9 of 120"], root, tmp_path, capsys, *fewer)
    assert not (tmp_path / "run" / "train").exists(), "refused before anything is trained"
    status, error = run(prepare, root, tmp_path, capsys, "--data.val-fraction", "0.35")
    assert status == 0, error


def test_a_warm_start_from_a_run_without_trials_is_refused_before_anything_starts(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, error = run(
        *(pipeline, root, tmp_path, capsys, "--sweep.space", "recipe"),
        *("--sweep.warm-start", str(tmp_path / "nowhere")),
    )
    assert status == 2
    assert "nowhere must be a run directory with a finished sweep. Got: no sweep/trials.json." in error
    assert not (tmp_path / "run" / "prepare").exists()
