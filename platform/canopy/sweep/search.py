"""The sweep: for each swept variant a search, then the finalists beside the untouched default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import (
    Experiment,
    FieldValues,
    Study,
    SweepConfig,
    describe_values,
    fingerprint,
)
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_source import ChipSource
from canopy.errors import StageError
from canopy.runtime.console import Console
from canopy.runtime.logging import current_context
from canopy.runtime.stage import Stage
from canopy.storage.run_dir import RunDir, timed
from canopy.sweep.equal_cost import EqualCost
from canopy.sweep.finals import FinalPoints, judge_runs
from canopy.sweep.keys import study_key, sweep_key
from canopy.sweep.members import (
    Member,
    ValidationRows,
    by_score,
    choose_members,
    with_complete_trials,
)
from canopy.sweep.objective import Objective
from canopy.sweep.outputs import write_outputs
from canopy.sweep.records import TrialRecord, TrialRecords
from canopy.sweep.result import StudyResult, SweepResult
from canopy.sweep.rounds import run_round
from canopy.sweep.samplers import next_point, own_point
from canopy.sweep.selection import Finalist, finalists, ranked, winner
from canopy.sweep.stored_logits import read_probs
from canopy.sweep.trials import TrialContext, final_variant, trial_resources, trial_variant
from canopy.sweep.warm_start import warm_start_text, warm_starts
from canopy.train.fleet.resources import cluster_capacity
from canopy.train.fleet.scheduler import describe_resources, fits


def sweep(
    config: Experiment, catalogue: Catalogue, chips: ChipSource, run_dir: RunDir, console: Console
) -> None:
    """Run the sweep and write its files below ``sweep/``: :mod:`canopy.sweep.outputs`.

    Args:
        config: the experiment.
        catalogue: the run's catalogue.
        chips: decoded images.
        run_dir: the run directory.
        console: prints one line per trial and epoch.

    Raises:
        StageError: when all trials of a variant failed, or all runs of its default.
    """
    digest, priors = catalogue.digest(), warm_starts(config)
    with timed() as watch:
        results, trials = [], {}
        for study in config.sweep_studies:
            search = StudySearch(
                config, study, catalogue, chips, run_dir, console, priors.get(study.name, ())
            )
            trials[study.name] = search.run()
            results.append(search.judge(trials[study.name]))
            console.say(Stage.SWEEP, results[-1].verdict)
        result = SweepResult(tuple(results), former=config.sweep.is_plain_focal)
        written = write_outputs(config, result, trials, run_dir)
    reference = config.sweep_studies[0].name
    run_dir.finish(Stage.SWEEP, sweep_key(config, digest), written, **watch, reference=reference)


@dataclass(frozen=True)
class StudySearch:
    """The search over one variant.

    Args:
        config: the experiment.
        study: variant, space, sampler.
        catalogue: the run's catalogue.
        chips: decoded images.
        run_dir: the run directory.
        console: prints one line per trial and epoch.
        priors: trials of earlier sweeps (:mod:`canopy.sweep.warm_start`).
    """

    config: Experiment
    study: Study
    catalogue: Catalogue
    chips: ChipSource
    run_dir: RunDir
    console: Console
    priors: tuple[TrialRecord, ...] = ()

    @property
    def settings(self) -> SweepConfig:
        """The sweep's config."""
        return self.config.sweep

    @property
    def key(self) -> str:
        """Fingerprint of the search."""
        return study_key(self.config, self.study, self.catalogue.digest())

    @property
    def objective(self) -> Objective | None:
        """The objective; None: the variant's ``optim.select_by``."""
        name = self.settings.objective
        if name is None and self.study.sampler == "halton":
            return None
        return Objective(name or "map", self.config.ensemble, self.catalogue.labels)

    @property
    def equal_cost(self) -> EqualCost | None:
        """The rule for the epochs of a trial; None: the same number for all."""
        if not self.settings.equal_cost:
            return None
        return EqualCost(self.study.variant, self.config.data.image_size)

    def at_full_length(self, values: FieldValues) -> dict[str, Any]:
        """``values``, with epochs where trainings are of equal cost."""
        return dict(values) if self.equal_cost is None else self.equal_cost.at_full_length(values)

    def run(self) -> list[TrialRecord]:
        """Run the trials; returns their records.

        Raises:
            StageError: when all failed.
        """
        context = self._context()
        self._say_what_is_missing(context)
        draw = partial(draw_point, self.study, self.settings, self.priors, context.reference_epochs)
        if self.settings.warm_start:
            self.console.say(Stage.SWEEP, f"{self.study.name}: {warm_start_text(self.priors)}")
        found = run_round(context, self.catalogue, self.settings.trials, draw, self.console)
        if self.settings.members:
            found = with_complete_trials(found, context, self.catalogue, draw, self.console)
        if not ranked(found):
            failed = [record.error for record in found if record.error is not None]
            reason = f", the first with: {failed[0]}" if failed else ""
            raise StageError(f"sweep: all {len(found)} trials failed{reason}")
        return found

    def _context(self) -> TrialContext:
        """The inputs of the trials."""
        return TrialContext(
            variant=trial_variant(self.study.variant, self.settings),
            settings=self.settings,
            chips=self.chips,
            records=TrialRecords(self.run_dir, self.key),
            objective=self.objective,
            keep_logits=bool(self.settings.members),
            equal_cost=self.equal_cost,
            fleet=self.config.fleet,
            log_fields=current_context(),
        )

    def choose_members(self) -> tuple[Member, ...]:
        """The trials that go on as members; empty without ``sweep.members``.

        Raises:
            StageError: when a trial's logits cannot be read.
            PredictionsError: when there are too few validation rows.
        """
        count = self.settings.members
        if not count:
            return ()
        context = self._context()
        context.records.load(self.settings.trials)
        rows_N, records = self._selection_rows(), context.records.ended
        ids_N = np.array(self.catalogue.ids)[rows_N]
        rows = ValidationRows(ids_N, self.catalogue.targets_NK[rows_N], self.catalogue.labels)
        probs = {number: read_probs(context.records, number) for number in by_score(records)}
        chosen = choose_members(records, probs, rows, self.config.ensemble, count)
        return tuple(replace(one, values=self.at_full_length(one.values)) for one in chosen)

    def _selection_rows(self) -> NDArray[np.int64]:
        return self.catalogue.rows("val", fold=0 if self.catalogue.folds == 1 else None)

    def _say_what_is_missing(self, context: TrialContext) -> None:
        """Print a line when trials wait for a node that the cluster does not have yet."""
        wanted = trial_resources(context.variant.scale)
        if not any(fits(wanted, node) for node in cluster_capacity(self.config.fleet)):
            need = describe_resources(wanted)
            self.console.say(Stage.SWEEP, f"no node has {need} for a trial: waiting for the cluster to grow")

    def judge(self, records: list[TrialRecord]) -> StudyResult:
        """The result: the best trial, or the winner of the finalists' runs.

        Raises:
            StageError: when a run of the untouched default failed.
        """
        best = ranked(records)[0]
        assert best.score is not None
        count = self.settings.effective_finalists
        points = finalists(records, own_point(self.study), count)
        if count == 0:
            members = self.choose_members()
            values = self.at_full_length(best.values)
            return StudyResult(self.study.name, values, best.score, dict(best.values), members=members)
        if not points:
            return StudyResult(self.study.name, {}, best.score, dict(best.values))
        candidates: list[FieldValues] = [{}, *map(self.at_full_length, points)]
        judged = self.run_finals(candidates)
        return StudyResult(
            self.study.name, winner(judged).values, best.score, dict(best.values), tuple(judged)
        )

    def run_finals(self, candidates: list[FieldValues]) -> list[Finalist]:
        """Train the default and the finalists at full length with further seeds, and judge them.

        Args:
            candidates: the points, that of the default first and empty.

        Raises:
            StageError: when a run of the default failed.
        """
        seeds = self.settings.final_seeds
        context = self.final_context(candidates)
        names = ", ".join(describe_values(point) for point in candidates)
        self.console.say(Stage.SWEEP, f"finalists of {self.study.name}: {names}; {seeds} seeds each")
        draw = FinalPoints(tuple(candidates), seeds, self.study.variant.seed)
        run_round(context, self.catalogue, len(candidates) * seeds, draw, self.console)
        return self.judge_finals(candidates, context)

    def judge_finals(self, candidates: list[FieldValues], context: TrialContext) -> list[Finalist]:
        """Compare the runs of the finalists with those of the default.

        Raises:
            StageError: when a run of the default failed.
        """
        objective = self.objective or Objective(
            "macro_f1" if self.study.variant.optim.select_by == "macro_f1" else "map",
            self.config.ensemble,
            self.catalogue.labels,
        )
        targets_NK = self.catalogue.targets_NK[self._selection_rows()]
        return judge_runs(candidates, self.settings.final_seeds, context, objective, targets_NK)

    def final_context(self, candidates: list[FieldValues]) -> TrialContext:
        """The inputs of the finalists' runs."""
        key = fingerprint(self.key, "finals", [dict(one) for one in candidates], self.settings.final_seeds)
        return TrialContext(
            variant=final_variant(self.study.variant, self.settings),
            settings=self.settings,
            chips=self.chips,
            records=TrialRecords(self.run_dir, key),
            final=True,
            fleet=self.config.fleet,
            unstopped=True,  # a final run is compared over all its epochs
            log_fields=current_context(),
        )


def draw_point(
    study: Study,
    settings: SweepConfig,
    priors: Sequence[TrialRecord],
    position: Callable[[FieldValues, int], float],
    number: int,
    ended: Mapping[int, TrialRecord],
    running: list[FieldValues],
) -> dict[str, Any] | None:
    """The point of a trial of the search: :func:`canopy.sweep.samplers.next_point`.

    TPE ranks stopped trials by their epochs; at equal cost these are counted as epochs of the variant.
    """
    if settings.equal_cost:
        ended = {
            n: replace(one, epochs=round(position(one.values, one.epochs)), curve=())
            for n, one in ended.items()
        }
    return next_point(study, settings, number, ended, running, priors)
