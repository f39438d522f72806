"""The defaults on out-of-fold probabilities of five real models, against common alternatives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from jobs.benchmarks.ensemble.__main__ import main
from jobs.benchmarks.ensemble.baselines import plain_mean, single
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble.fit import fit_ensemble
from canopy.metrics import bootstrap
from canopy.predictions.io import read_members


def test_defaults_hold_against_single_member_and_mean_on_few_real_rows(planet32: Path) -> None:
    path = planet32 / "oof_probabilities.npz"
    members = read_members(path)
    with np.load(path, allow_pickle=False) as arrays:
        fold_N = arrays["fold"]
    some = np.flatnonzero(fold_N == 1)[:1500]
    fitting = {name: p.rows(some) for name, p in members.items()}
    test = {name: p.rows(fold_N == 2) for name, p in members.items()}
    ensemble = fit_ensemble(fitting, EnsembleConfig(bootstrap=100))
    ours_NK = ensemble.predict({name: p.probs_NK for name, p in test.items()})[1]
    targets_NK = test["linear"].targets_NK
    assert targets_NK is not None

    def over(theirs_NK: NDArray[np.uint8], statistic: bootstrap.Statistic) -> bootstrap.Interval:
        return bootstrap.paired_difference(targets_NK, ours_NK, theirs_NK, statistic=statistic)

    for baseline in (single(fitting, test, tuned=True), plain_mean(fitting, test)):
        assert over(baseline, metrics.macro_f1).value > -0.005
        assert over(baseline, metrics.micro_f1).low > 0
    half = single(fitting, test, tuned=False)
    assert over(half, metrics.macro_f1).low > 0.03
    assert over(half, metrics.micro_f1).low > -0.01
    assert ensemble.weights["linear"] < 0.15  # the badly calibrated one


@pytest.mark.slow
def test_benchmark_runs_end_to_end_on_a_file_of_the_same_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    signal = 2 * rng.normal(size=(450, 1))
    targets = (rng.random((450, 1)) < 1 / (1 + np.exp(-signal))).astype(np.int8)
    probs = {
        f"p_{name}": 1 / (1 + np.exp(-(signal + noise * rng.normal(size=(450, 1)))))
        for name, noise in (("a", 1.0), ("b", 1.2))
    }
    names = {"image_name": np.array([f"i{n}" for n in range(450)]), "classes": np.array(["x"])}
    np.savez(tmp_path / "o.npz", fold=np.arange(450) % 2, y=targets, **names, **probs)  # type: ignore[arg-type]
    out = tmp_path / "figures.jsonl"
    assert main(["quality", str(tmp_path / "o.npz"), "--rows", "100", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "tuned on 1 folds" in printed
    assert "tuned on 100 rows" in printed
    assert out.read_text().count('"method": "canopy"') == 3
    assert main(["speed", "--rows", "1000", "--members", "2"]) == 0
    assert "whole default search" in capsys.readouterr().out
