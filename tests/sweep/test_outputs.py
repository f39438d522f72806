from __future__ import annotations

from pathlib import Path

import yaml

from canopy.cli.options import load_config_file
from canopy.config import Experiment, SearchSpace, derive
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.sweep.outputs import trials_summary, trials_table, write_outputs
from canopy.sweep.records import TrialRecord
from canopy.sweep.result import StudyResult, SweepResult

BCE = TrialRecord({"loss.name": "bce", "optim.lr": 0.01}, 0.5, 2, False, None, (0.4, 0.5), 8.0)
FOCAL = TrialRecord(
    {"loss.name": "focal", "loss.gamma": 1.0, "optim.lr": 0.02}, 0.3, 1, True, None, (0.3,), 4.0
)
DEAD = TrialRecord({"loss.name": "bce", "optim.lr": 1.0}, None, 0, False, "loss is not finite")


def test_a_row_per_trial_and_epoch() -> None:
    rows = trials_table({"a": [BCE, FOCAL, DEAD]}).to_pylist()
    assert [(row["trial"], row["epoch"], row["score"], row["last"]) for row in rows] == [
        *((0, 1, 0.4, False), (0, 2, 0.5, True), (1, 1, 0.3, True), (2, 0, None, True)),
    ]
    assert rows[0]["loss.gamma"] is None
    assert rows[2]["loss.gamma"] == 1.0
    assert rows[2]["stopped_early"]
    assert rows[3]["error"] == "loss is not finite"


def test_values_of_several_types_are_text_unless_all_are_numbers() -> None:
    records = [
        TrialRecord({"model.input_size": size, "optim.clip_norm": clip}, 0.5, 1, False, None, (0.5,))
        for size, clip in ((32, 1), (None, 0.5))
    ]
    table = trials_table({"a": records})
    assert table.column("model.input_size").to_pylist() == [32, None]
    assert table.column("optim.clip_norm").to_pylist() == [1.0, 0.5]
    mixed = [TrialRecord({"loss.alpha": alpha}, 0.5, 1, False, None, (0.5,)) for alpha in (0.5, "frequency")]
    assert trials_table({"a": mixed}).column("loss.alpha").to_pylist() == ["0.5", '"frequency"']


def test_the_json_of_a_focal_sweep_is_that_of_former_versions() -> None:
    record = TrialRecord({"loss.gamma": 1.0, "loss.alpha": 0.5}, 0.5, 2, False, None, (0.4, 0.5), 8.0)
    (found,) = trials_summary({"a": [record]}, former=True)
    assert found == {
        **{"gamma": 1.0, "alpha": 0.5, "score": 0.5, "epochs": 2, "stopped_early": False, "error": None},
    }


def test_the_best_config_is_a_config_file(tiny: Experiment, tmp_path: Path) -> None:
    space = SearchSpace({"optim.lr": (0.01, 0.02), "loss.name": ("bce", "focal"), "loss.gamma": (1.0, 2.0)})
    config = derive(tiny, sweep=derive(tiny.sweep, space=space))
    result = SweepResult((StudyResult("resnet", BCE.values, 0.5, BCE.values),))
    run_dir = RunDir(str(tmp_path))
    assert write_outputs(config, result, {"resnet": [BCE, FOCAL]}, run_dir) == ("best.json", "trials.json")
    settled = load_config_file(str(tmp_path / "sweep" / "best.yaml"))
    assert settled.sweep_studies == ()
    assert [(one.loss.name, one.optim.lr) for one in settled.variants[:2]] == [("bce", 0.01)] * 2
    assert settled.variants[2].optim == tiny.variants[2].optim
    assert settled.data == tiny.data
    assert not any(
        variant["swept"] for variant in yaml.safe_load((tmp_path / "sweep/best.yaml").read_text())["variants"]
    )
    assert SweepResult.from_json(files.read_json(run_dir.path("sweep", "best.json")), config) == result
    assert files.read_table(run_dir.path("sweep", "trials.parquet")).num_rows == 3
