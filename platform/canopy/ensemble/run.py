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

from canopy import files, intervals, metrics
from canopy.config import EnsembleConfig, derive
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.members import Predictions, align, concatenate
from canopy.ensemble.model import Ensemble
from canopy.ensemble.predictions import read_members, read_predictions, write_predictions
from canopy.ensemble.shards import Spread, fit_sharded, ray_map, shards_of
from canopy.errors import PredictionsError
from canopy.intervals import plain_json

Files = Mapping[str, Sequence[str]]
"""Member name -> its files: folds or shards."""


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
            several = read_members(argument)
            for member in several:
                out.setdefault(member, []).append(f"{argument}#{member}" if len(several) > 1 else argument)
        else:
            out.setdefault(PurePosixPath(argument.partition("#")[2] or argument).stem, []).append(argument)
    return out


def run_ensemble(
    fitting: Files, test: Files | None, output: str, config: EnsembleConfig, sharded: bool = False
) -> Ensemble:
    """Fit on the fitting files, predict the test files, score where they hold targets, write it all.

    Args:
        fitting: each member's files with targets (at least one member's); out-of-fold or validation rows
            that trained and chose nothing. Several files of a member are parts: folds, shards.
        test: each member's files to predict. Several files of a member that hold the same rows are its
            fold models: each is calibrated, then they are averaged; else they are parts. None: only fit.
        output: directory or URI.
        config: what to aim at, and what to choose from.
        sharded: the i-th fitting files of all members hold the same rows: they are read shard by shard, as
            tasks of the Ray that is running (else in turn), so that all rows never meet in memory.

    Raises:
        PredictionsError: when files cannot be read or do not fit together.
    """
    alone = derive(config, combination="best_single")
    if sharded:
        spread: Spread = ray_map if _ray_runs() else map
        ensemble, single = (fit_sharded(shards_of(fitting), aim, spread) for aim in (config, alone))
    else:
        members = align({name: _member(paths) for name, paths in fitting.items()})
        ensemble, single = (fit_ensemble(members, aim) for aim in (config, alone))
    if test is None:
        steps = None
    else:
        truth, arrays = _test_arrays(test, sorted({*ensemble.members, *single.members}), ensemble)
        probs_NK, decisions_NK = ensemble.predict(arrays)
        result = Predictions(truth.ids, probs_NK, truth.labels, targets_NK=truth.targets_NK)
        write_predictions(files.join(output, "predictions.parquet"), result)
        files.write_bytes(files.join(output, "decisions.csv"), _decisions_csv(result, decisions_NK))
        steps = None if truth.targets_NK is None else step_decisions(ensemble, single, arrays)
        if steps is not None and truth.targets_NK is not None:
            ensemble = ensemble.scored(measure(ensemble, steps, truth.targets_NK, probs_NK, config))
    table = per_class_table(ensemble, steps, None if steps is None else truth.targets_NK)
    files.write_bytes(files.join(output, "per_class.csv"), csv_bytes(table))
    ensemble.save(files.join(output, "ensemble.json"))
    return ensemble


def step_decisions(
    ensemble: Ensemble, single: Ensemble, arrays: Mapping[str, Sequence[NDArray[np.float32]]]
) -> dict[str, NDArray[np.uint8]]:
    """Decisions (N, K) after each step, from the best single member at 0.5 to the whole ensemble."""
    raw_NK = np.mean([np.asarray(part) for part in arrays[single.members[0]]], axis=0)
    probs_NK, decisions_NK = ensemble.predict(arrays)
    return {
        "single_half": metrics.decide(raw_NK),
        "single_tuned": single.predict(arrays)[1],
        "ensemble_half": metrics.decide(probs_NK),
        "ensemble": decisions_NK,
    }


def measure(
    ensemble: Ensemble,
    steps: Mapping[str, NDArray[np.uint8]],
    targets_NK: NDArray[np.uint8],
    probs_NK: NDArray[np.float32],
    config: EnsembleConfig,
) -> dict[str, Any]:
    """The score card of the ensemble, with paired differences to the best single member, tuned and at 0.5."""
    card = intervals.score(
        targets_NK, steps["ensemble"], probs_NK, ensemble.labels, bootstrap=config.bootstrap, seed=config.seed
    )
    for rival in ("single_tuned", "single_half"):
        card[f"over_{rival}"] = {}
        for name, statistic in (("macro_f1", metrics.macro_f1), ("micro_f1", metrics.micro_f1)):
            gap = intervals.paired_difference(
                targets_NK,
                steps["ensemble"],
                steps[rival],
                statistic=statistic,
                resamples=config.bootstrap,
                seed=config.seed,
            )
            card[f"over_{rival}"][name] = {"value": gap.value, "low": gap.low, "high": gap.high}
    plain: dict[str, Any] = plain_json(card)
    return plain


def per_class_table(
    ensemble: Ensemble,
    steps: Mapping[str, NDArray[np.uint8]] | None = None,
    targets_NK: NDArray[np.uint8] | None = None,
) -> list[dict[str, Any]]:
    """One row per label: threshold, positives, F1 with interval, and F1 after each step.

    Measured where there is a test split with targets (``steps`` from :func:`step_decisions`), else
    estimated by cross-fitting; the column ``f1_is`` says which.
    """
    card = ensemble.measured or ensemble.estimated
    by_step = {}
    if steps is not None and targets_NK is not None:
        by_step = {
            f"f1_{name}": metrics.per_class_f1(metrics.Counts.of(targets_NK, decided_NK))
            for name, decided_NK in steps.items()
        }
    rows = []
    for k, label in enumerate(ensemble.labels.names):
        low, high = card["intervals"]["per_class_f1"][label]
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
                **{name: None if np.isnan(f1_K[k]) else float(f1_K[k]) for name, f1_K in by_step.items()},
            }
        )
    return rows


def _ray_runs() -> bool:
    ray = sys.modules.get("ray")  # not imported means not running, and need not be imported to know
    return ray is not None and bool(ray.is_initialized())


def _member(paths: Sequence[str]) -> Predictions:
    return concatenate([read_predictions(path) for path in paths])


def _test_arrays(
    test: Files, needed: Sequence[str], ensemble: Ensemble
) -> tuple[Predictions, dict[str, list[NDArray[np.float32]]]]:
    """The test rows (with targets where known), and each needed member's arrays, one per fold model."""
    missing = sorted(set(needed) - set(test))
    if missing:
        must = "must be there for every member that the ensemble reads"
        raise PredictionsError("The test files", must, f"none of {missing[0]}", "Add them.")
    parts: dict[str, Predictions] = {}
    for name in needed:
        read = [read_predictions(path) for path in test[name]]
        alike = len(read) > 1 and all(set(p.ids.tolist()) == set(read[0].ids.tolist()) for p in read)
        for number, part in enumerate(read if alike else [concatenate(read)]):
            parts[f"{name}\0{number}"] = part
    aligned = align(parts)
    first = next(iter(aligned.values()))
    if first.labels != ensemble.labels:
        got = f"{', '.join(first.labels.names[:3])}, …"
        must = f"must hold the labels it was fitted on ({', '.join(ensemble.labels.names[:3])}, …)"
        raise PredictionsError("The test files", must, got, "Give the columns in the same order.")
    arrays: dict[str, list[NDArray[np.float32]]] = {}
    for key, part in aligned.items():
        arrays.setdefault(key.partition("\0")[0], []).append(part.probs_NK)
    return first, arrays


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
