"""From files of predictions, whoever made them, to a directory with the tuned ensemble.

Written there: ``ensemble.json`` (see :class:`~canopy.ensemble.model.Ensemble`), ``predictions.parquet``
(the ensemble's probabilities of the test rows), ``decisions.csv`` (what it decided, for people),
``per_class.csv`` (threshold, F1 with interval, support, what each step gained).
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import EnsembleConfig, derive
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.model import Ensemble
from canopy.ensemble.selection import f1_by_step
from canopy.ensemble.shards import Spread, fit_sharded, ray_map, shards_of
from canopy.errors import PredictionsError, nearest
from canopy.metrics import bootstrap
from canopy.metrics.bootstrap import plain_json
from canopy.predictions.io import names_in_npz, read_predictions, write_predictions
from canopy.predictions.predictions import Predictions, align, concatenate, refuse_shared_rows, same_labels
from canopy.storage import files

Files = Mapping[str, Sequence[str]]
"""Member name -> its files: folds or shards."""
Arrays = Mapping[str, Sequence[NDArray[np.float32]]]
"""Member name -> its probabilities (N, K), one array per fold model."""


def members_of(given: Iterable[str]) -> dict[str, list[str]]:
    """Files by member, from arguments ``name=path`` or ``path``; a name given again adds a file to it.

    A plain path stands for the member named like the file; an npz that holds several members
    (``p_<member>`` arrays) for all of them.

    Raises:
        PredictionsError: when a file with several members is missing or cannot be read.
    """
    out: dict[str, list[str]] = {}
    for argument in given:
        name, equals, path = argument.partition("=")
        if equals and "/" not in name:
            out.setdefault(name, []).append(path)
        elif argument.endswith(".npz"):
            for member in names_in_npz(argument):
                path = f"{argument}#{member}" if member else argument
                out.setdefault(member or PurePosixPath(argument).stem, []).append(path)
        else:
            out.setdefault(PurePosixPath(argument.partition("#")[2] or argument).stem, []).append(argument)
    return out


def in_shards(fitting: Files, config: EnsembleConfig) -> bool:
    """Whether the fitting files are to be read shard by shard: large together, and every member's in as many.

    Large means more than ``config.shard_above_mb``, by their sizes on disk. A missing file counts nothing.
    """
    if len({len(paths) for paths in fitting.values()}) != 1 or min(map(len, fitting.values())) < 2:
        return False
    places = {files.parent(path.partition("#")[0]) for paths in fitting.values() for path in paths}
    total = 0
    for directory in {directory for directory, _ in places}:
        try:
            sizes = files.list_files(directory or ".")
        except FileNotFoundError:
            continue
        total += sum(max(0, size) for name, size in sizes.items() if (directory, name) in places)
    return total > config.shard_above_mb * 2**20


def run_ensemble(
    fitting: Files, test: Files | None, output: str, config: EnsembleConfig, sharded: bool = False
) -> Ensemble:
    """Fit on the fitting files, predict the test files, score where they hold targets, write it all.

    Args:
        fitting: each member's files with targets (at least one member's); out-of-fold or validation rows
            that trained and chose nothing. Several files of a member are parts: folds, shards.
        test: files to predict, of every member that gets weight. Several files of a member that hold the same
            rows are its fold models: each is calibrated, then they are averaged; else they are parts. None:
            only fit.
        output: directory or URI.
        config: what to aim at, and what to choose from.
        sharded: the i-th fitting files of all members hold the same rows: they are read shard by shard, as
            tasks of the Ray that is running (else in turn), so that all rows never meet in memory.
            :func:`in_shards` tells when that pays.

    Raises:
        PredictionsError: when files cannot be read or do not fit together, or when test rows with targets are
            among the fitting rows.
    """
    tests = None if test is None else _read_tests(test, fitting)
    barred = tests[0].ids if tests is not None and tests[0].targets_NK is not None else None
    aims = [config]
    if tests is not None and config.combination != "best_single":
        aims.append(derive(config, combination="best_single"))
    if sharded:
        spread: Spread = ray_map if _ray_runs() else map
        fitted = [fit_sharded(shards_of(fitting), aim, spread, barred) for aim in aims]
    else:
        members = align({name: _member(paths) for name, paths in fitting.items()})
        first = next(iter(members.values()))
        if barred is not None:
            refuse_shared_rows(first.ids, barred)
        if tests is not None:
            same_labels("fitting", first.labels, "test", tests[0].labels)
        fitted = [fit_ensemble(members, aim) for aim in aims]
    ensemble, single = fitted[0], fitted[-1]
    if tests is not None:
        ensemble = _predict_and_score(ensemble, single, *tests, output, config)
    files.write_bytes(files.join(output, "per_class.csv"), csv_bytes(per_class_table(ensemble)))
    ensemble.save(files.join(output, "ensemble.json"))
    return ensemble


def step_decisions(ensemble: Ensemble, single: Ensemble, arrays: Arrays) -> dict[str, NDArray[np.uint8]]:
    """Decisions (N, K) after each step, from the best single member at 0.5 to the whole ensemble."""
    raw_NK = np.mean([np.asarray(part) for part in arrays[single.members[0]]], axis=0)
    probs_NK, decisions_NK = ensemble.predict(arrays)
    return {
        "single_half": metrics.decide(raw_NK),
        "single_tuned": single.predict(arrays)[1],
        "ensemble_half": metrics.decide(probs_NK),
        "ensemble": decisions_NK,
    }


def closing_lines(card: Mapping[str, Any]) -> list[str]:
    """The figures of :func:`measure` that depend on decisions, in words: tuned, then at 0.5."""
    return [
        f"macro-F1 {scores['macro_f1']:.3f}, micro-F1 {scores['micro_f1']:.3f}, "
        f"F2 per image {scores['samples_f2']:.3f} {where}"
        for where, scores in (("at its thresholds", card), ("at 0.5", card["at_half"]))
    ]


def measure(
    ensemble: Ensemble,
    steps: Mapping[str, NDArray[np.uint8]],
    targets_NK: NDArray[np.uint8],
    probs_NK: NDArray[np.float32],
    config: EnsembleConfig,
) -> dict[str, Any]:
    """The score card of the ensemble, JSON-able, with paired differences to the best single member.

    Args:
        ensemble: whose labels the K columns are.
        steps: decisions (N, K) after each step, see :func:`step_decisions`.
        targets_NK: truth, shape (N, K), 0 and 1.
        probs_NK: the ensemble's probabilities, in [0, 1].
        config: resamples and seed of the intervals.

    Returns:
        What :func:`canopy.metrics.bootstrap.score` gives; ``at_half``: what
        :func:`canopy.metrics.bootstrap.decision_scores` gives with every threshold at 0.5; ``over_single_tuned``,
        ``over_single_half``: macro- and micro-F1 minus the best single member's, tuned and at 0.5, each with
        its 95% interval; ``steps``: each class's F1 after each step.
    """
    card = bootstrap.score(
        targets_NK, steps["ensemble"], probs_NK, ensemble.labels, bootstrap=config.bootstrap, seed=config.seed
    )
    card["at_half"] = bootstrap.decision_scores(
        targets_NK, steps["ensemble_half"], ensemble.labels, config.bootstrap, config.seed
    )
    for rival in ("single_tuned", "single_half"):
        card[f"over_{rival}"] = {}
        for name, statistic in (("macro_f1", metrics.macro_f1), ("micro_f1", metrics.micro_f1)):
            gap = bootstrap.paired_difference(
                targets_NK,
                steps["ensemble"],
                steps[rival],
                statistic=statistic,
                resamples=config.bootstrap,
                seed=config.seed,
            )
            card[f"over_{rival}"][name] = {"value": gap.value, "low": gap.low, "high": gap.high}
    card["steps"] = f1_by_step(targets_NK, steps, ensemble.labels)
    plain: dict[str, Any] = plain_json(card)
    return plain


def per_class_table(ensemble: Ensemble) -> list[dict[str, Any]]:
    """One row per label: threshold, positives, F1 with interval, F1 after each step, and what each gained.

    Measured where a test split with targets was scored, else estimated by cross-fitting; the column
    ``f1_is`` says which. The gains add up: ``gain_tuning`` from the best single member at 0.5 to the same
    calibrated and with tuned thresholds, ``gain_combining`` from there to the ensemble.
    """
    card = ensemble.measured or ensemble.estimated
    rows = []
    for k, label in enumerate(ensemble.labels.names):
        low, high = card["intervals"]["per_class_f1"][label]
        f1 = {step: by_label[label] for step, by_label in card["steps"].items()}
        before, tuned, after = (f1[step] for step in ("single_half", "single_tuned", "ensemble"))
        rows.append(
            {
                "label": label,
                "threshold": float(ensemble.thresholds[k]),
                "fitting_positives": ensemble.fitted_on["positives"][label],
                "positives": card["support"][label],
                "f1": card["per_class_f1"][label],
                "f1_low": low,
                "f1_high": high,
                "f1_is": "measured" if ensemble.measured else "estimated",
                **{f"f1_{step}": figure for step, figure in f1.items()},
                "gain_tuning": None if after is None else tuned - before,
                "gain_combining": None if after is None else after - tuned,
            }
        )
    return rows


def _ray_runs() -> bool:
    ray = sys.modules.get("ray")  # not imported means not running, and need not be imported to know
    return ray is not None and bool(ray.is_initialized())


def _member(paths: Sequence[str]) -> Predictions:
    return concatenate([read_predictions(path) for path in paths])


def _read_tests(test: Files, fitting: Files) -> tuple[Predictions, Arrays]:
    """The test rows (with targets where known), and each member's arrays, one per fold model."""
    for name in test:
        if name not in fitting:
            must, remedy = "must be of members that have fitting files", nearest(name, fitting)
            raise PredictionsError("The test files", must, name, remedy)
    parts: dict[str, Predictions] = {}
    member_of: dict[str, str] = {}
    for name, paths in test.items():
        read = [read_predictions(path) for path in paths]
        alike = len(read) > 1 and all(set(p.ids.tolist()) == set(read[0].ids.tolist()) for p in read)
        for number, part in enumerate(read if alike else [concatenate(read)]):
            key = f"{name} (test, model {number + 1:02})" if alike else f"{name} (test)"
            parts[key], member_of[key] = part, name
    aligned = align(parts)
    arrays: dict[str, list[NDArray[np.float32]]] = {}
    for key, part in aligned.items():
        arrays.setdefault(member_of[key], []).append(part.probs_NK)
    return next(iter(aligned.values())), arrays


def _predict_and_score(
    ensemble: Ensemble,
    single: Ensemble,
    truth: Predictions,
    arrays: Arrays,
    output: str,
    config: EnsembleConfig,
) -> Ensemble:
    """Writes predictions and decisions of the test rows; the ensemble, scored where they hold targets."""
    same_labels("fitting", ensemble.labels, "test", truth.labels)
    missing = [name for name in (*ensemble.members, *single.members) if name not in arrays]
    if missing:
        must = "must be there for every member that the ensemble reads"
        raise PredictionsError("The test files", must, f"none of {missing[0]}", "Add them.")
    probs_NK, decisions_NK = ensemble.predict(arrays)
    result = Predictions(truth.ids, probs_NK, truth.labels, targets_NK=truth.targets_NK)
    write_predictions(files.join(output, "predictions.parquet"), result)
    files.write_bytes(files.join(output, "decisions.csv"), _decisions_csv(result, decisions_NK))
    if truth.targets_NK is None:
        return ensemble
    steps = step_decisions(ensemble, single, arrays)
    return ensemble.scored(measure(ensemble, steps, truth.targets_NK, probs_NK, config))


def csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A table as CSV, its columns those of the first row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _decisions_csv(result: Predictions, decisions_NK: NDArray[np.uint8]) -> bytes:
    tags = result.labels.decode(decisions_NK)
    rows = zip(result.ids.tolist(), tags, strict=True)
    return csv_bytes([{"image_name": name, "tags": " ".join(names)} for name, names in rows])
