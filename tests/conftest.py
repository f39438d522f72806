"""What the tests share: one real Ray, the real chips where they are at hand."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import REPOSITORY, tiny_experiment

from canopy.cluster import quiet
from canopy.config import Experiment

os.environ["RAY_AUTH_MODE"] = "disabled"  # a Ray of our own, on loopback, for as long as the tests run
os.environ.pop("RAY_ADDRESS", None)


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """One Ray of our own for all tests, started as a job starts it, on free ports, in a folder of its own."""
    import ray

    # Not below pytest's own folder: socket paths must stay short.
    with tempfile.TemporaryDirectory(prefix="cray", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=500 << 20,
            _temp_dir=folder,
        )
        quiet()
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def planet32() -> Path:
    """Folder with ``train_v2.csv`` and ``train-jpg.zip`` of the real chips; skips where it is absent."""
    place = Path(os.environ.get("CANOPY_SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / "planet32"
    if not (place / "train-jpg.zip").exists():
        pytest.skip(f"the real chips are not here ({place}); set CANOPY_SHARED_DATA to the folder above")
    return place


@pytest.fixture
def tiny() -> Experiment:
    """A whole experiment at a size for tests."""
    return tiny_experiment()
