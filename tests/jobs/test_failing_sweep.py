"""A sweep whose trials all fail: the reason is printed, no result is kept, a second start tries again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.support import tiny_experiment, write_config

from canopy.config import derive
from jobs import prepare, sweep

pytestmark = [pytest.mark.usefixtures("ray_here"), pytest.mark.slow]


def test_failed_trials_are_reported_and_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"another": torch.zeros(2)}, tmp_path / "other.safetensors")
    plain = tiny_experiment(rows=200, variants=1, trials=2, epochs=1)
    (variant,) = plain.variants
    foreign = derive(variant.model, weights=str(tmp_path / "other.safetensors"))
    config = derive(plain, variants=(derive(variant, model=foreign),))
    arguments = [
        "--config",
        str(write_config(config, tmp_path / "c.yaml")),
        "--run-dir",
        str(tmp_path / "run"),
    ]
    assert prepare.main(arguments) == 0
    for _ in ("first", "again"):
        capsys.readouterr()
        assert sweep.main(arguments) == 1
        output = capsys.readouterr()
        assert "2 trials of resnet" in output.out
        assert "done already" not in output.out, "a failed trial gets another chance"
        (line,) = [line for line in output.err.splitlines() if line.startswith("error:")]
        assert "other.safetensors" in line
        assert "Traceback" not in output.out + output.err
    assert not (tmp_path / "run" / "sweep" / "best.json").exists()
