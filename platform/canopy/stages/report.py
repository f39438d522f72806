"""Last stage: write ``summary.json`` and the report page, print the closing tables.

The stage takes seconds and is done again at each start. Files written: ``summary.json``, and
under ``report/`` of the run directory ``index.html``, ``contact_sheet.png`` and ``attention-VARIANT.png``.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from canopy.config import fingerprint
from canopy.data.augmentation_sheet import write_contact_sheets
from canopy.data.catalogue import Catalogue
from canopy.data.loading.band_sums import read_band_statistics
from canopy.data.loading.chip_cache import ChipCache
from canopy.errors import InputError
from canopy.report.attention_maps import attention_figures
from canopy.report.image_grid import image_grid
from canopy.report.page import AugmentationExamples, render_report
from canopy.report.terminal_tables import closing_table, further_table
from canopy.runtime.stage import Stage
from canopy.stages.context import StageContext
from canopy.stages.ensemble import load_ensemble
from canopy.stages.prepare import load_catalogue
from canopy.stages.summary import summarize
from canopy.stages.train import finished_training_runs
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.training_run import TrainingRun

SHEET_CHIPS = 34
"""Maximum number of chips on the contact sheet of the page."""


def key(context: StageContext) -> str:
    """Fingerprint of the whole experiment, as ``summary.json`` holds it under ``config_hash``."""
    return fingerprint(context.config)


def is_done(context: StageContext) -> bool:
    """Whether the page and the summary of this config exist. The stage writes the summary last."""
    try:
        summary = files.read_json(context.run_dir.path("summary.json"))
    except (FileNotFoundError, InputError):
        return False
    return (
        isinstance(summary, dict)
        and summary.get("config_hash") == key(context)
        and files.exists(context.run_dir.path(Stage.REPORT, "index.html"))
    )


def run(context: StageContext) -> None:
    """Write the summary and the page from the files of the earlier stages; print the closing tables.

    Raises:
        RunDirError: when an earlier stage has not finished for this config.
    """
    catalogue = load_catalogue(context)
    trainings = finished_training_runs(context, catalogue)
    ensemble = load_ensemble(context, trainings)
    run_dir, console, started = context.run_dir, context.console, time.monotonic()
    summary = summarize(context, trainings, catalogue, ensemble).to_json()
    sheet = sample_sheet(catalogue, run_dir, bool(context.config.data.bands))
    if sheet is not None:
        files.write_bytes(run_dir.path(Stage.REPORT, "contact_sheet.png"), sheet)
    seconds = summary["seconds"]
    # Without drawing the page, which shows this duration.
    seconds[Stage.REPORT.value] = round(time.monotonic() - started, 2)
    seconds["total"] = round(sum(seconds.values()), 2)
    page = draw_page(context, trainings, catalogue, summary, sheet)
    files.write_bytes(run_dir.path(Stage.REPORT, "index.html"), page.encode())
    files.write_json(run_dir.path("summary.json"), summary)
    console.rich.print()
    console.rich.print(closing_table(summary))
    console.rich.print(further_table(summary))
    page_path, summary_path = run_dir.path(Stage.REPORT, "index.html"), run_dir.path("summary.json")
    console.rich.print(f"Report: {page_path}\nSummary: {summary_path}", markup=False)


def draw_page(
    context: StageContext,
    trainings: Sequence[TrainingRun],
    catalogue: Catalogue,
    summary: dict[str, Any],
    sheet_png: bytes | None,
) -> str:
    """The report page as HTML; also writes the attention maps into the directory of the page.

    Args:
        context: context of the stage.
        trainings: the finished trainings.
        catalogue: the prepared data.
        summary: content of ``summary.json``.
        sheet_png: contact sheet of training chips, None without one.
    """
    run_dir = context.run_dir
    trials = files.read_json(run_dir.path(Stage.SWEEP, "trials.json")) if summary["sweep"] else []
    histories = {one.name: files.read_json(run_dir.path(one.directory, "history.json")) for one in trainings}
    augmentations = [
        AugmentationExamples(shown.variants, shown.description, as_jpeg(files.read_bytes(shown.path)))
        for shown in write_contact_sheets(context.config, run_dir, catalogue)
    ]
    attention = attention_figures(trainings, catalogue, context.config.data, run_dir, context.console)
    for figure in attention:
        files.write_bytes(run_dir.path(Stage.REPORT, f"attention-{figure.variant}.png"), figure.png)
    importance_path = run_dir.path(Stage.SWEEP, "importance.json")
    importance = files.read_json(importance_path) if trials and files.exists(importance_path) else None
    surface_path = run_dir.path(Stage.SWEEP, "surface.json")
    surfaces = files.read_json(surface_path) if trials and files.exists(surface_path) else None
    return render_report(
        summary, histories, trials, sheet_png, augmentations, attention, importance, surfaces
    )


def as_jpeg(png: bytes) -> bytes:
    """A PNG as JPEG, about a quarter of its size."""
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).save(out, "JPEG", quality=85)
    return out.getvalue()


def sample_sheet(catalogue: Catalogue, run_dir: RunDir, has_bands: bool = False) -> bytes | None:
    """A PNG of two training chips per label, rarest labels first; None without a local chip cache.

    ``has_bands``: whether the chips are those of ``data.bands``.
    """
    chips_NHWC = ChipCache.of_run(run_dir).open_local()
    if chips_NHWC is None:
        return None
    train = catalogue.rows("train")
    targets_NK = catalogue.targets_NK[train]
    rng = np.random.default_rng(0)
    rows, captions = [], []
    for k in np.argsort(targets_NK.sum(0), kind="stable"):
        having = train[targets_NK[:, k] == 1]
        for row in rng.choice(having, min(2, len(having)), replace=False):
            rows.append(row)
            captions.append(catalogue.labels.names[k])
    rows, captions = rows[:SHEET_CHIPS], captions[:SHEET_CHIPS]
    scale = max(1, 128 // chips_NHWC.shape[1])
    bands = read_band_statistics(run_dir) if has_bands else None
    shown_NHWC = np.asarray(chips_NHWC[rows]) if bands is None else bands.shown(chips_NHWC[rows])
    return image_grid(shown_NHWC, captions, columns=8, scale=scale)
