"""Images damaged between prepare and train: the job names them and loses no other image."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from tests.support import read_json, tiny_experiment, write_config

from canopy.config import Experiment, derive
from canopy.data.catalogue import SPLITS, Catalogue
from canopy.data.loading.batch_sampler import BatchSampler, rank_slice
from canopy.predictions.io import read_predictions
from jobs import pipeline, prepare

pytestmark = [pytest.mark.usefixtures("ray_here"), pytest.mark.slow]


def experiment(root: Path, epochs: int = 2) -> Experiment:
    """Two ranks, mixup, chips decoded while they stream."""
    tiny = tiny_experiment(rows=300, variants=1, epochs=epochs, trials=0)
    variant = tiny.variants[0]
    variant = derive(
        variant,
        swept=False,
        scale=derive(variant.scale, workers=2),
        augment=derive(variant.augment, mixup_alpha=0.4),
    )
    data = derive(tiny.data, root=str(root), max_bad_fraction=0.05, max_cache_gb=0)
    return derive(tiny, data=data, variants=(variant,))


def prepared(config: Experiment, folder: Path) -> tuple[list[str], Catalogue]:
    """Run prepare; the arguments of the jobs, and the catalogue."""
    run = folder / "run"
    arguments = ["--config", str(write_config(config, folder / "c.yaml")), "--run-dir", str(run)]
    assert prepare.main(arguments) == 0
    return arguments, Catalogue.read(str(run / "prepare" / "catalogue.parquet"))


def damage(catalogue: Catalogue, rows: list[int]) -> None:
    """Fill files with zeros, as a failing disk does; their sizes stay, so that the data set is the same."""
    for row in rows:
        Path(catalogue.uris[row]).write_bytes(bytes(Path(catalogue.uris[row]).stat().st_size))


def test_the_job_goes_on_and_names_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments, catalogue = prepared(experiment(tmp_path / "chips"), tmp_path)
    damaged = [int(row) for split in SPLITS for row in catalogue.rows(split)[3:5]]
    damage(catalogue, damaged)
    ids = {catalogue.ids[row] for row in damaged}
    said = io.StringIO()
    with redirect_stdout(said):
        status = pipeline.main(arguments)
    assert status == 0, said.getvalue()
    folder = run / "train" / "resnet" / "fold0"
    assert set(read_json(folder / "bad_images.json")) == ids
    assert read_json(folder / "facts.json")["bad_images"] == 6
    assert "6 images could no longer be read and were skipped" in said.getvalue()
    rates_K = catalogue.targets_NK[catalogue.rows("train")].mean(0)
    for split in ("val", "test"):
        found = read_predictions(str(folder / f"{split}.parquet"))
        assert found.ids.tolist() == [catalogue.ids[row] for row in catalogue.rows(split)]
        gone = np.isin(found.ids, list(ids))
        assert gone.sum() == 2
        np.testing.assert_allclose(found.probs_NK[gone], np.tile(rates_K, (2, 1)), atol=1e-4)
        assert np.isfinite(found.probs_NK).all()


def test_too_many_over_both_ranks_stop_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each rank alone meets few enough unreadable images; both together one more than is allowed."""
    config = experiment(tmp_path / "chips", epochs=1)  # in another one a rank would meet other rows
    arguments, catalogue = prepared(config, tmp_path)
    allowed, variant = int(config.data.max_bad_fraction * len(catalogue)), config.variants[0]
    plan = BatchSampler(catalogue.rows("train"), variant.optim.batch_size, variant.seed)
    batches = plan.batches(0, plan.steps_per_epoch)
    for rank, count in enumerate((allowed // 2, allowed + 1 - allowed // 2)):
        assert count <= allowed
        share = np.concatenate([rows_B[rank_slice(len(rows_B), rank, 2)] for rows_B in batches])
        damage(catalogue, share[:count].tolist())
    assert pipeline.main(arguments) == 1
    error = capsys.readouterr().err
    assert f"{allowed + 1} of {len(catalogue)} unreadable, first {tmp_path}" in error
    assert "data.max_bad_fraction" in error
    assert not (tmp_path / "run" / "train" / "resnet" / "fold0" / "done.json").exists()
