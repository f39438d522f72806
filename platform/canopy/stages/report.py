"""The last stage: ``summary.json``, the page, the closing table."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from canopy.config import Experiment, fingerprint
from canopy.data.catalogue import SPLITS, Catalogue
from canopy.data.contact_sheet import write_sheets
from canopy.data.synthetic.generate import ceiling_decisions, read_oracle
from canopy.ensemble.model import Ensemble
from canopy.metrics.bootstrap import score
from canopy.report.attention_maps import attention_looks
from canopy.report.page import Seen, render_report
from canopy.report.plots import contact_sheet
from canopy.report.score_tables import DECIDED, RANKED
from canopy.report.terminal_tables import closing_table, further_table
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.training_run import TrainingRun

UNIT = "report"
FIGURES = (*DECIDED, *RANKED, "per_class_f1")
CARD = (*FIGURES, "intervals", "at_half")
SHEET_CHIPS = 34


def report(
    config: Experiment,
    training_runs: Sequence[TrainingRun],
    catalogue: Catalogue,
    run: RunDir,
    console: Console,
) -> dict[str, Any]:
    """Write the summary and the page from what the stages left; print the closing table."""
    started = time.monotonic()
    summary = summarize(config, training_runs, catalogue, run)
    sheet = sample_sheet(catalogue, run)
    if sheet is not None:
        files.write_bytes(run.path(UNIT, "contact_sheet.png"), sheet)
    trials_file = run.path("sweep", "trials.json")
    trials = files.read_json(trials_file) if summary["sweep"] else []
    histories = {
        training_run.name: files.read_json(run.path(training_run.directory, "history.json"))
        for training_run in training_runs
    }
    seconds = summary["seconds"]
    seconds[UNIT] = round(time.monotonic() - started, 2)  # all but drawing the page, which shows it
    seconds["total"] = round(sum(seconds.values()), 2)
    seen = [
        Seen(shown.variants, shown.words, as_jpeg(files.read_bytes(shown.path)))
        for shown in write_sheets(config, run, catalogue)
    ]
    looks = attention_looks(training_runs, catalogue, config.data, run, console)
    for look in looks:
        files.write_bytes(run.path(UNIT, f"attention-{look.variant}.png"), look.png)
    page = render_report(summary, histories, trials, sheet, seen, looks)
    files.write_bytes(run.path(UNIT, "index.html"), page.encode())
    files.write_json(run.path("summary.json"), summary)
    console.rich.print()
    console.rich.print(closing_table(summary))
    console.rich.print(further_table(summary))
    console.rich.print(f"Report: {run.path(UNIT, 'index.html')}\nSummary: {run.path('summary.json')}")
    return summary


def summarize(
    config: Experiment, training_runs: Sequence[TrainingRun], catalogue: Catalogue, run: RunDir
) -> dict[str, Any]:
    """The public contract of ``summary.json`` (docs/summary.md), less the report's own seconds."""
    scores = files.read_json(run.path("ensemble", "scores.json"))
    fitted = Ensemble.load(run.path("ensemble", "ensemble.json"))
    validation = files.read_json(run.path("prepare", "validation.json"))
    thresholds = dict(zip(fitted.labels.names, [float(t) for t in fitted.thresholds], strict=True))
    return {
        "schema": 1,
        "config_hash": fingerprint(config),
        "preset": config.preset,
        "canopy_version": version("canopy"),
        "data": data_summary(catalogue, len(validation["bad"])),
        "sweep": sweep_summary(config, run),
        "variants": {training_run.name: unit_summary(training_run, run) for training_run in training_runs},
        "members": {
            name: {figure: card[figure] for figure in CARD} for name, card in scores["members"].items()
        },
        "ensemble": {
            **{figure: scores["ensemble"][figure] for figure in CARD},
            "weights": fitted.weights,
            "thresholds": thresholds,
            "method": fitted.summary,
            "estimated": {figure: fitted.estimated[figure] for figure in ("macro_f1", "micro_f1")}
            if fitted.estimated
            else None,
            "versus_best_member": scores["versus"] if len(scores["members"]) > 1 else None,
        },
        "ceiling": ceiling(config, catalogue, run),
        "seconds": stage_seconds(run),
    }


def data_summary(catalogue: Catalogue, bad: int) -> dict[str, Any]:
    """Rows per split, positives per label and split."""
    counts = {split: catalogue.counts(catalogue.rows(split)) for split in SPLITS}
    return {
        "rows": {split: len(catalogue.rows(split)) for split in SPLITS},
        "labels": {
            name: {
                **{split: counts[split][name] for split in SPLITS},
                "all": sum(counts[s][name] for s in SPLITS),
            }
            for name in catalogue.labels.names
        },
        "bad_images": bad,
    }


def sweep_summary(config: Experiment, run: RunDir) -> dict[str, Any] | None:
    """What the sweep tried and found; None when there was none."""
    reference = config.sweep_reference
    if reference is None:
        return None
    trials = files.read_json(run.path("sweep", "trials.json"))
    return {
        "reference": reference.name,
        "best": files.read_json(run.path("sweep", "best.json")),
        "trials": len(trials),
        "stopped_early": sum(trial["stopped_early"] for trial in trials),
    }


def unit_summary(training_run: TrainingRun, run: RunDir) -> dict[str, Any]:
    """When and how a unit was trained."""
    facts = run.done(training_run.directory, training_run.fingerprint)
    assert facts is not None
    kept = ("start", "end", "epochs", "best_epoch", "images_per_s", "resumed", "seconds")
    return {
        **{name: facts[name] for name in kept},
        "workers": training_run.variant.scale.workers,
        "backbone": training_run.variant.model.backbone,
        "cbam": training_run.variant.model.cbam,
        "loss": training_run.variant.loss.model_dump(mode="json"),
    }


def ceiling(config: Experiment, catalogue: Catalogue, run: RunDir) -> dict[str, Any] | None:
    """The best reachable scores on the test split, known for generated chips only."""
    if config.data.source != "generated":
        return None
    ids, oracle_NK = read_oracle(Path(config.data.root or run.path("data")))
    position = {name: n for n, name in enumerate(ids)}
    rows = catalogue.rows("test")
    posterior_NK = oracle_NK[[position[catalogue.ids[row]] for row in rows]]
    card = score(
        catalogue.targets_NK[rows], ceiling_decisions(posterior_NK), posterior_NK, catalogue.labels, 200
    )
    return {figure: card[figure] for figure in FIGURES}


def stage_seconds(run: RunDir) -> dict[str, float]:
    """Seconds of each finished stage."""
    seconds = {}
    for stage in ("prepare", "sweep", "train", "ensemble"):
        marker = run.path(stage, "done.json")
        if files.exists(marker):
            seconds[stage] = float(files.read_json(marker)["seconds"])
    return seconds


def as_jpeg(png: bytes) -> bytes:
    """A picture for the page: a quarter of the bytes."""
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).save(out, "JPEG", quality=85)
    return out.getvalue()


def sample_sheet(catalogue: Catalogue, run: RunDir) -> bytes | None:
    """Two training chips per label, rarest labels first; None when decoded chips were not kept."""
    path = run.path("prepare", "chips.npy")
    if files.is_uri(path) or not files.exists(path):
        return None
    chips_NHWC = np.load(path, mmap_mode="r", allow_pickle=False)
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
    return contact_sheet(
        np.asarray(chips_NHWC[rows]), captions, columns=8, scale=max(1, 128 // chips_NHWC.shape[1])
    )
