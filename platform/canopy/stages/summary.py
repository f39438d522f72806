"""Content of ``summary.json``, the public record of a finished run (``platform/docs/summary.md``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import canopy
from canopy.config import Experiment, Space, fingerprint
from canopy.config.search_space import space_content
from canopy.data.catalogue import SPLITS, Catalogue, Split
from canopy.data.synthetic.generate import ceiling_decisions, read_oracle
from canopy.data.synthetic.near_infrared import labels_of
from canopy.ensemble.model import Ensemble
from canopy.errors import InputError, RunDirError
from canopy.metrics.score_card import score_card
from canopy.report.score_tables import DECIDED, RANKED
from canopy.runtime.stage import Stage
from canopy.stages.context import StageContext
from canopy.stages.sweep import load_best
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.sweep.result import StudyResult, SweepResult
from canopy.train.training_run import TrainingRun

SCHEMA = 1
FIGURES = (*DECIDED, *RANKED, "per_class_f1")
"""Figures of every score card."""
CARD = (*FIGURES, "intervals", "at_half")
"""Parts of a score card that the summary holds."""
CEILING_RESAMPLES = 200


@dataclass(frozen=True)
class DataSummary:
    """The data set.

    Args:
        rows: number of images by split.
        labels: number of positives by label and split, and of ``all``.
        bad_images: number of images that were left out.
    """

    rows: dict[Split, int]
    labels: dict[str, dict[str, int]]
    bad_images: int


@dataclass(frozen=True)
class SweepSummary:
    """The sweep.

    Args:
        reference: name of the first swept variant.
        result: what was found for each swept variant.
        trials: number of trials.
        stopped_early: number of trials that were stopped early.
        spaces: swept variant -> its search space.
    """

    reference: str
    result: SweepResult
    trials: int
    stopped_early: int
    spaces: Mapping[str, Space] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The JSON form: ``best`` with gamma, alpha and score, or ``studies``."""
        found = self.result.to_json()
        content = (
            {"best": found}
            if self.result.former
            else {"studies": [study_json(one, self.spaces) for one in self.result.studies]}
        )
        counts = {"trials": self.trials, "stopped_early": self.stopped_early}
        return {"reference": self.reference, **content, **counts}


@dataclass(frozen=True)
class TrainingEntry:
    """One training.

    Args:
        start: Unix seconds.
        end: Unix seconds.
        epochs: epochs trained.
        best_epoch: epoch of the kept weights, from 1.
        images_per_s: training speed over all workers.
        resumed: whether it was continued from a checkpoint.
        seconds: duration as the driver measured it.
        workers: DDP processes.
        backbone: timm name.
        cbam: place of CBAM.
        loss: loss section with the swept parameters.
    """

    start: float
    end: float
    epochs: int
    best_epoch: int
    images_per_s: float
    resumed: bool
    seconds: float
    workers: int
    backbone: str
    cbam: str
    loss: dict[str, Any]


@dataclass(frozen=True)
class EnsembleSummary:
    """The ensemble.

    Args:
        card: score card on the test split.
        weights: share of each member.
        thresholds: by label.
        method: the fitted procedure in one sentence.
        estimated: macro- and micro-F1 by cross-fitting, None where not estimated.
        versus_best_member: gain over the best single member, None with one member.
    """

    card: dict[str, Any]
    weights: dict[str, float]
    thresholds: dict[str, float]
    method: str
    estimated: dict[str, float | None] | None
    versus_best_member: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """The JSON form: the card's figures are merged with the other fields."""
        content = asdict(self)
        return {**content.pop("card"), **content}


@dataclass(frozen=True)
class Summary:
    """Content of ``summary.json`` except the seconds of the report stage.

    Args:
        config_hash: fingerprint of the experiment.
        preset: name of the preset.
        data: the data set.
        sweep: None without a sweep.
        variants: name of a training -> its entry.
        members: score card on the test split by member.
        ensemble: the ensemble.
        ceiling: best reachable scores, known for generated chips only.
        seconds: duration by finished stage.
    """

    config_hash: str
    preset: str
    data: DataSummary
    sweep: SweepSummary | None
    variants: dict[str, TrainingEntry]
    members: dict[str, dict[str, Any]]
    ensemble: EnsembleSummary
    ceiling: dict[str, Any] | None
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        sweep = None if self.sweep is None else self.sweep.to_json()
        content = {"schema": SCHEMA, **asdict(self), "sweep": sweep, "ensemble": self.ensemble.to_json()}
        head = {name: content.pop(name) for name in ("schema", "config_hash", "preset")}
        return {**head, "canopy_version": canopy.__version__, **content}


def summarize(
    context: StageContext, trainings: Sequence[TrainingRun], catalogue: Catalogue, ensemble: Ensemble
) -> Summary:
    """Collect the summary from the files of the stages before the report.

    Raises:
        RunDirError: when one of these files is missing or damaged.
    """
    config, run_dir = context.config, context.run_dir
    scores = read_part(run_dir, Stage.ENSEMBLE, "scores.json")
    validation = read_part(run_dir, Stage.PREPARE, "validation.json")
    try:
        return Summary(
            config_hash=fingerprint(config),
            preset=config.preset,
            data=data_summary(catalogue, len(validation["bad"])),
            sweep=sweep_summary(context, catalogue),
            variants={one.name: training_entry(one, run_dir) for one in trainings},
            members={name: card_of(card) for name, card in scores["members"].items()},
            ensemble=ensemble_summary(ensemble, scores),
            ceiling=ceiling(config, catalogue, run_dir),
            seconds=stage_seconds(run_dir),
        )
    except (KeyError, TypeError, AttributeError) as error:
        got = f"a part is missing or damaged ({type(error).__name__}: {error})"
        thing = f"Run directory {files.shown(run_dir.root)}"
        remedy = "Delete ensemble/done.json in it and run the pipeline again."
        raise RunDirError(thing, "must hold complete files of every stage", got, remedy) from error


def read_part(run_dir: RunDir, stage: Stage, name: str) -> Any:
    """The value in a JSON file of a stage.

    Raises:
        RunDirError: when it is missing or damaged.
    """
    path = run_dir.path(stage, name)
    try:
        return files.read_json(path)
    except (FileNotFoundError, InputError) as error:
        remedy = f"Delete {files.shown(run_dir.path(stage, 'done.json'))} and run {stage} again."
        raise RunDirError(files.shown(path), "must be a readable file", error, remedy) from error


def card_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a score card that the summary holds."""
    return {figure: card[figure] for figure in CARD}


def data_summary(catalogue: Catalogue, bad: int) -> DataSummary:
    """Rows per split, positives per label and split."""
    counts = {split: catalogue.counts(catalogue.rows(split)) for split in SPLITS}
    labels = {}
    for name in catalogue.labels.names:
        by_split: dict[str, int] = {split: counts[split][name] for split in SPLITS}
        labels[name] = {**by_split, "all": sum(by_split.values())}
    return DataSummary({split: len(catalogue.rows(split)) for split in SPLITS}, labels, bad)


def sweep_summary(context: StageContext, catalogue: Catalogue) -> SweepSummary | None:
    """Trials and result of the sweep; None when no variant takes swept values.

    Raises:
        RunDirError: when the sweep has not finished, or its files are missing or damaged.
    """
    best = load_best(context, catalogue)
    if best is None:
        return None
    reference = context.config.sweep_studies[0]
    trials = read_part(context.run_dir, Stage.SWEEP, "trials.json")
    stopped = sum(trial["stopped_early"] for trial in trials)
    spaces = {study.name: study.space for study in context.config.sweep_studies}
    return SweepSummary(reference.name, best, len(trials), stopped, spaces)


def study_json(result: StudyResult, spaces: Mapping[str, Space]) -> dict[str, Any]:
    """The result of one study, with its verdict in words and its space."""
    space = space_content(spaces.get(result.variant, {}))
    return {**result.to_json(), "verdict": result.verdict, "space": space}


def training_entry(training_run: TrainingRun, run_dir: RunDir) -> TrainingEntry:
    """Times, result and settings of one training."""
    record = run_dir.done(training_run.directory, training_run.fingerprint)
    assert record is not None
    facts = ("start", "end", "epochs", "best_epoch", "images_per_s", "resumed", "seconds")
    variant = training_run.variant
    return TrainingEntry(
        **{name: record.facts[name] for name in facts},
        workers=variant.scale.workers,
        backbone=variant.model.backbone,
        cbam=variant.model.cbam,
        loss=variant.loss.model_dump(mode="json"),
    )


def ensemble_summary(ensemble: Ensemble, scores: Mapping[str, Any]) -> EnsembleSummary:
    """Scores, weights and thresholds of the ensemble.

    Args:
        ensemble: the fitted ensemble.
        scores: content of ``scores.json``.
    """
    thresholds = [float(threshold) for threshold in ensemble.thresholds]
    scores_estimated = ensemble.estimated
    estimated = None
    if scores_estimated is not None:
        estimated = {"macro_f1": scores_estimated.macro_f1, "micro_f1": scores_estimated.micro_f1}
    return EnsembleSummary(
        card=card_of(scores["ensemble"]),
        weights=ensemble.weights,
        thresholds=dict(zip(ensemble.labels.names, thresholds, strict=True)),
        method=ensemble.summary,
        estimated=estimated,
        versus_best_member=scores["versus"] if len(scores["members"]) > 1 else None,
    )


def ceiling(config: Experiment, catalogue: Catalogue, run_dir: RunDir) -> dict[str, Any] | None:
    """Best reachable scores on the test split, known for generated chips only.

    Raises:
        DataError: when the file of the generator's label probabilities is missing or damaged.
    """
    if config.data.source != "generated":
        return None
    root = Path(config.data.root or run_dir.path("data"))
    ids, oracle_NK = read_oracle(root, labels_of(config.data.generate))
    position = {name: n for n, name in enumerate(ids)}
    rows = catalogue.rows("test")
    posterior_NK = oracle_NK[[position[catalogue.ids[row]] for row in rows]]
    decisions_NK, targets_NK = ceiling_decisions(posterior_NK), catalogue.targets_NK[rows]
    card = score_card(targets_NK, decisions_NK, posterior_NK, catalogue.labels, CEILING_RESAMPLES).to_json()
    return {figure: card[figure] for figure in FIGURES}


def stage_seconds(run_dir: RunDir) -> dict[str, float]:
    """Duration of each finished stage before the report."""
    seconds = {}
    for stage in Stage:
        mark = run_dir.read_mark(stage)
        if stage is not Stage.REPORT and mark is not None:
            seconds[stage.value] = float(mark.facts["seconds"])
    return seconds
