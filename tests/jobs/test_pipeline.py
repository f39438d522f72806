"""``jobs/pipeline.py`` on a real Ray: its files, what a second start redoes, predictions of its ensemble."""

from __future__ import annotations

import base64
import io
import os
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from tests.support import read_json, tiny_experiment, write_config

import canopy
from canopy.config import derive, fingerprint
from canopy.data.catalogue import Catalogue
from canopy.errors import RunDirError
from canopy.predictions.io import read_predictions
from canopy.runtime.console import Console
from canopy.stages.context import StageContext
from canopy.stages.train import missing, training_runs
from canopy.storage.run_dir import RunDir
from jobs import ensemble, pipeline, predict, prepare, report, sweep, train

pytestmark = pytest.mark.usefixtures("ray_here")
CONFIG = tiny_experiment()
MEMBERS = [variant.name for variant in CONFIG.variants]


@dataclass(frozen=True)
class Finished:
    """A finished run and its console output."""

    folder: Path
    file: Path
    output: str

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = read_json(self.folder / "summary.json")
        return found

    @property
    def arguments(self) -> list[str]:
        return ["--config", str(self.file), "--run-dir", str(self.folder)]

    def markers(self) -> dict[str, int]:
        """Time at which each directory was last finished."""
        return {
            str(path.relative_to(self.folder).parent): path.stat().st_mtime_ns
            for path in sorted(self.folder.rglob("done.json"))
        }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Finished:
    folder = tmp_path_factory.mktemp("run")
    file = write_config(CONFIG, folder.parent / "tiny.yaml")
    said = io.StringIO()
    with redirect_stdout(said):
        status = pipeline.main(["--config", str(file), "--run-dir", str(folder)])
    assert status == 0, said.getvalue()
    return Finished(folder, file, said.getvalue())


def test_the_summary_has_the_shape_that_people_script_against(run: Finished) -> None:
    summary = run.summary
    assert summary["config_hash"] == fingerprint(CONFIG)
    assert sum(summary["data"]["rows"].values()) == CONFIG.data.generate.rows
    assert len(summary["data"]["labels"]) == 17
    assert list(summary["members"]) == sorted(MEMBERS)
    for card in [*summary["members"].values(), summary["ensemble"]]:
        assert {"micro_f1", "macro_f1", "map", "per_class_f1", "intervals"} <= set(card)
        for figure in ("micro_f1", "macro_f1", "map"):
            low, high = card["intervals"][figure]
            assert 0 <= low <= card[figure] <= high <= 1
        for decided in (card, card["at_half"]):
            assert {"micro_f1", "macro_f1", "samples_f1", "samples_f2", "per_class_f1"} <= set(decided)
        assert {"ranking_loss", "coverage_error", "calibration_error"} <= set(card)
        assert 1 <= card["coverage_error"] <= 17
        assert set(card["per_class_f1"]) == set(summary["data"]["labels"])
    assert set(summary["ensemble"]["weights"]) == set(MEMBERS)
    assert set(summary["ensemble"]["thresholds"]) == set(summary["data"]["labels"])
    assert 0.8 < summary["ceiling"]["macro_f1"] < 1
    assert {"prepare", "sweep", "train", "ensemble", "report", "total"} == set(summary["seconds"])


def test_variants_trained_at_the_same_time(run: Finished) -> None:
    variants = run.summary["variants"]
    assert {v["workers"] for v in variants.values()} == {1, 2}
    assert {(v["backbone"], v["cbam"]) for v in variants.values()} == {
        ("test_resnet", "none"),
        ("test_resnet", "last"),
        ("test_efficientnet", "none"),
    }
    assert max(v["start"] for v in variants.values()) < min(v["end"] for v in variants.values())


def test_variants_take_the_parameters_of_the_sweep(run: Finished) -> None:
    best = run.summary["sweep"]["best"]
    assert run.summary["sweep"]["trials"] == CONFIG.sweep.trials
    for name, variant in run.summary["variants"].items():
        if name == "efficientnet":
            assert variant["loss"]["name"] == "bce"
        else:
            assert (variant["loss"]["gamma"], variant["loss"]["alpha"]) == (best["gamma"], best["alpha"])


def test_predictions_keep_the_contract(run: Finished) -> None:
    catalogue = Catalogue.read(str(run.folder / "prepare" / "catalogue.parquet"))
    for name in MEMBERS:
        for split in ("val", "test"):
            path = run.folder / "train" / name / "fold0" / f"{split}.parquet"
            found = read_predictions(str(path))
            rows = catalogue.rows(split)
            assert found.ids.tolist() == [catalogue.ids[row] for row in rows]
            np.testing.assert_array_equal(found.targets_NK, catalogue.targets_NK[rows])
            assert found.labels == catalogue.labels
            assert found.config_hash == fingerprint(CONFIG)
            assert str(pq.read_schema(path).field("probs").type) == "fixed_size_list<element: float>[17]"
    for part in ("train", "val", "test"):
        assert catalogue.targets_NK[catalogue.rows(part)].any(0).all()


def test_weights_are_safetensors_and_nothing_of_ours_is_a_pickle(run: Finished) -> None:
    for name in MEMBERS:
        folder = run.folder / "train" / name / "fold0"
        with safe_open(folder / "weights.safetensors", "pt") as weights:
            assert any(key.startswith("head") for key in weights.keys())  # noqa: SIM118 (not a dict)
        assert read_json(folder / "config.json")["name"] == name
        assert len(read_json(folder / "labels.json")) == 17
    suffixes = {path.suffix for path in run.folder.rglob("*") if path.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt"}, suffixes


def test_the_console_shows_its_own_lines_and_nothing_else(run: Finished) -> None:
    for stage in ("prepare", "sweep", "train", "ensemble"):
        assert f"  {stage}" in run.output
    for name in MEMBERS:
        assert f"{name} epoch" in run.output or f"{name} done" in run.output
    assert "Best reachable" in run.output
    assert str(run.folder / "report" / "index.html") in run.output.replace("\n", "")
    for noise in ("INFO", "WARNING", "(pid=", "Traceback", "(raylet)"):
        assert noise not in run.output


def test_the_report_is_there(run: Finished) -> None:
    page = (run.folder / "report" / "index.html").read_text()
    assert f"{run.summary['ensemble']['macro_f1']:.3f}" in page
    assert (run.folder / "report" / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")
    pictures = list((run.folder / "report").glob("attention-*.png"))
    assert [path.name for path in pictures] == ["attention-resnet-cbam.png"]
    assert base64.b64encode(pictures[0].read_bytes()).decode() in page


def test_the_model_predicts_what_its_training_stored(run: Finished) -> None:
    catalogue = Catalogue.read(str(run.folder / "prepare" / "catalogue.parquet"))
    uri_of = dict(zip(catalogue.ids, catalogue.uris, strict=True))
    stored = read_predictions(str(run.folder / "ensemble" / "test.parquet"))
    found = canopy.load(str(run.folder)).predict([uri_of[name] for name in stored.ids.tolist()])
    np.testing.assert_allclose(found.probs_NK, stored.probs_NK, atol=1e-5)
    assert np.ptp(stored.probs_NK) > 0.1, "else anything would agree"


def test_a_second_start_does_nothing_again(run: Finished) -> None:
    before = run.markers()
    model = (run.folder / "model.json").read_bytes()
    (run.folder / "model.json").unlink()  # as a run of an earlier version
    assert pipeline.main(run.arguments) == 0
    for job in (prepare, sweep, train, ensemble, report):
        assert job.main(["--run-dir", str(run.folder)]) == 0
    assert run.markers() == before
    assert (run.folder / "model.json").read_bytes() == model


def test_a_changed_config_redoes_just_what_depends_on_it(run: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(run.folder, folder, copy_function=shutil.copy2)
    copy = Finished(folder, run.file, "")
    before = copy.markers()
    assert pipeline.main([*copy.arguments, "--ensemble.bootstrap", "120"]) == 0
    after = copy.markers()
    assert {training_run for training_run in after if after[training_run] != before[training_run]} == {
        "ensemble"
    }

    # Which trainings a changed variant, sweep or data section would redo, without paying for them.
    def stale(**changes: Any) -> set[str]:
        config = derive(CONFIG, **changes)
        catalogue = Catalogue.read(str(folder / "prepare" / "catalogue.parquet"))
        context = StageContext(config, RunDir(str(folder)), Console())
        return {one.name for one in missing(context, training_runs(context, catalogue))}

    reference, attended, other = CONFIG.variants
    assert stale() == set()
    assert stale(variants=(reference, derive(attended, seed=7), other)) == {attended.name}
    assert stale(fleet=derive(CONFIG.fleet, capacity_timeout_s=5.0)) == set()
    with pytest.raises(RunDirError, match=r"finished sweep of this config.*jobs/sweep\.py"):
        stale(variants=(derive(reference, seed=7), attended, other))


def test_a_stage_names_the_one_that_must_come_before(
    tmp_path: Path, run: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--config", str(run.file), "--run-dir", str(tmp_path)]) == 2
    assert "Run jobs/prepare.py with it first." in capsys.readouterr().err
    shutil.copytree(run.folder, tmp_path / "copy")
    (tmp_path / "copy" / "ensemble" / "done.json").unlink()
    assert report.main(["--run-dir", str(tmp_path / "copy")]) == 2
    assert "Run jobs/ensemble.py with it first." in capsys.readouterr().err


def test_another_data_set_is_refused_and_nothing_is_lost(
    run: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run.markers()
    assert pipeline.main([*run.arguments, "--data.generate.seed", "9"]) == 2
    error = capsys.readouterr().err
    assert "error:" in error
    assert "Traceback" not in error
    other = ["--data.source", "kaggle", "--data.root", str(run.folder / "data"), "--data.limit", "200"]
    assert pipeline.main([*run.arguments, *other]) == 2
    assert "must belong to one data set" in capsys.readouterr().err
    assert run.markers() == before
    assert pipeline.main(run.arguments) == 0


def test_predict_gives_what_the_ensemble_gave(run: Finished, tmp_path: Path) -> None:
    tested = read_predictions(str(run.folder / "ensemble" / "test.parquet"))
    images = tmp_path / "images"
    images.mkdir()
    for name in tested.ids[:40]:
        os.link(run.folder / "data" / "train-jpg" / f"{name}.jpg", images / f"{name}.jpg")
    out = tmp_path / "out.parquet"
    arguments = ["--model", str(run.folder), "--images", str(images), "--out", str(out)]
    assert predict.main(arguments) == 0
    table = pq.read_table(out).to_pydict()
    position = {f"{name}.jpg": n for n, name in enumerate(tested.ids)}
    rows = [position[name] for name in table["id"]]
    assert sorted(rows) == list(range(40))
    thresholds = run.summary["ensemble"]["thresholds"]
    for k, label in enumerate(tested.labels.names):
        np.testing.assert_allclose(table[f"prob:{label}"], tested.probs_NK[rows, k], atol=1e-5)
        if not tiny_ambiguity(table[f"prob:{label}"], thresholds[label]):
            expected = np.array(table[f"prob:{label}"], np.float32) >= np.float32(thresholds[label])
            np.testing.assert_array_equal(table[label], expected)

    (images / "broken.jpg").write_bytes(b"no image")
    assert predict.main(arguments) == 2
    assert predict.main([*arguments, "--max-bad-fraction", "0.1"]) == 0
    assert pq.read_table(out).num_rows == 40


def tiny_ambiguity(probs: list[float], threshold: float) -> bool:
    """Whether a probability lies so near to the threshold that rounding decides."""
    return bool(np.any(np.abs(np.array(probs) - threshold) < 1e-6))
