"""The report stage: when it is done; its page is checked by ``tests/report`` and ``tests/jobs``."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.stages.prepared import ROWS, prepared_context

from canopy.config import derive
from canopy.errors import RunDirError
from canopy.stages import report
from canopy.stages.context import StageContext
from canopy.stages.prepare import load_catalogue
from canopy.storage import files


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    """A run after prepare."""
    return prepared_context(tmp_path)


def test_it_is_done_when_page_and_summary_are_those_of_the_config(context: StageContext) -> None:
    assert not report.is_done(context)
    files.write_bytes(context.run_dir.path("report", "index.html"), b"<html>")
    assert not report.is_done(context)
    files.write_json(context.run_dir.path("summary.json"), {"config_hash": report.key(context)})
    assert report.is_done(context)
    other = derive(context.config, folds=2)
    assert not report.is_done(StageContext(other, context.run_dir, context.console))
    for damaged in (b"", b"[]", b"{"):
        files.write_bytes(context.run_dir.path("summary.json"), damaged)
        assert not report.is_done(context)


def test_it_names_the_stage_that_is_missing(context: StageContext) -> None:
    with pytest.raises(RunDirError, match=r"finished sweep of this config"):
        report.run(context)


def test_the_sheet_shows_two_chips_of_each_label(context: StageContext) -> None:
    catalogue = load_catalogue(context)
    assert report.sample_sheet(catalogue, context.run_dir) is None, "decoded chips were not kept"
    chips_NHWC = np.random.default_rng(0).integers(0, 256, (ROWS, 16, 16, 3), dtype=np.uint8)
    np.save(context.run_dir.path("prepare", "chips.npy"), chips_NHWC)
    png = report.sample_sheet(catalogue, context.run_dir)
    assert png is not None
    width, height = Image.open(io.BytesIO(png)).size
    assert width >= 6 * 128
    assert height >= 128
    jpeg = report.as_jpeg(png)
    assert Image.open(io.BytesIO(jpeg)).size == (width, height)
