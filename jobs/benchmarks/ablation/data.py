"""The data of an ablation: chips that are generated or unpacked, split, decoded once, and kept in a cache."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jobs.benchmarks.ablation.rows import DataName, Setting
from numpy.typing import NDArray

from canopy.config import Experiment, derive, fingerprint
from canopy.data.catalogue import Catalogue, Split
from canopy.data.loading.chip_source import ChipSource
from canopy.errors import DataError
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.stages import prepare
from canopy.stages.context import StageContext
from canopy.storage.run_dir import RunDir


@dataclass(frozen=True)
class AblationData:
    """The data of an ablation.

    Args:
        catalogue: catalogue of the chips.
        chips: source of the decoded chips.
        cache: directory of the predictions.
    """

    catalogue: Catalogue
    chips: ChipSource
    cache: Path

    def rows(self, split: Split) -> NDArray[np.int64]:
        """The catalogue rows of a split."""
        return self.catalogue.rows(split)

    def targets(self, split: Split) -> NDArray[np.uint8]:
        """The targets of a split, shape (N, K)."""
        return self.catalogue.targets_NK[self.rows(split)]


def prepare_data(
    data_name: DataName, setting: Setting, root: str | None, cache: Path, console: Console
) -> AblationData:
    """Generate or unpack the chips, decode, validate and split them, unless the cache holds the result.

    Raises:
        DataError: when the Planet chips are not in ``root``.
    """
    if data_name == "planet32":
        root = planet32_directory(root, cache.parent)
    config = Experiment(
        preset=f"ablation-{data_name}", data=derive(setting.data, root=root), variants=(setting.baseline,)
    )
    return prepare_config(config, cache, console)


def prepare_config(config: Experiment, cache: Path, console: Console) -> AblationData:
    """Prepare the data of ``config``, unless the cache holds it.

    Raises:
        DataError: when the data cannot be prepared.
    """
    run_dir = RunDir(str(cache / f"data-{fingerprint(config.data)[:8]}"))
    context = StageContext(config, run_dir, console)
    prepare.run(context)
    catalogue = prepare.load_catalogue(context)
    chips = prepare.shared_chips(context, catalogue, Stage.PREPARE)
    return AblationData(catalogue, chips, cache / "predictions" / catalogue.digest()[:8])


def planet32_directory(root: str | None, cache: Path) -> str:
    """The directory of the Planet chips in Kaggle's layout; a zip file is unpacked into the cache.

    Raises:
        DataError: when there is neither a directory nor a zip file.
    """
    if root is None:
        raise DataError(
            "planet32", "must have a directory", "none", "Give --root, or set CANOPY_SHARED_DATA."
        )
    source = Path(root)
    if (source / "train-jpg").is_dir():
        return root
    archive, goal = source / "train-jpg.zip", cache / "planet32"
    if not archive.is_file():
        raise DataError(root, "must hold train-jpg/ or train-jpg.zip", "neither", "Give another --root.")
    if not goal.is_dir():
        partial_path = goal.with_name("planet32.part")
        shutil.rmtree(partial_path, ignore_errors=True)
        with zipfile.ZipFile(archive) as chips:
            chips.extractall(partial_path)
        shutil.copy(source / "train_v2.csv", partial_path / "train_v2.csv")
        partial_path.replace(goal)
    return str(goal)
