from __future__ import annotations

from pathlib import Path

import pytest

from canopy.config import Experiment
from canopy.errors import RunDirError
from canopy.storage.run_dir import RunDir


def test_a_unit_is_done_for_its_fingerprint_only(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path))
    assert run.done("prepare", "aa") is None
    run.finish("prepare", "aa", seconds=3.5)
    assert run.done("prepare", "aa") == {"fingerprint": "aa", "seconds": 3.5}
    assert run.done("prepare", "bb") is None


def test_a_run_belongs_to_one_data_set(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path))
    run.claim("a" * 64, 10, "/data/one")
    run.claim("a" * 64, 10, "/moved/elsewhere")
    with pytest.raises(RunDirError, match=r"10 rows of /data/one .* Got: 12 rows of /data/two .*--run-dir"):
        run.claim("b" * 64, 12, "/data/two")


def test_the_config_comes_back_as_it_was(tmp_path: Path, tiny: Experiment) -> None:
    run = RunDir(str(tmp_path))
    with pytest.raises(RunDirError, match=r"config\.yaml"):
        run.load_config()
    run.store_config(tiny)
    assert run.load_config() == tiny
