"""An ensemble from files of predictions of any origin, written to a directory.

The directory holds ``ensemble.json`` (see :class:`~canopy.ensemble.model.Ensemble`), ``predictions.parquet``
(the ensemble's probabilities of the test rows), ``decisions.csv`` (its decisions, for people) and
``per_class.csv`` (threshold, F1 with interval, support, gain of each step).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from canopy.config import EnsembleConfig, derive
from canopy.ensemble.csv_outputs import decisions_csv, per_class_csv
from canopy.ensemble.evaluate import MemberArrays, decide_by_step, measured_scores
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.model import Ensemble
from canopy.ensemble.shards import MapFunction, fit_sharded, ray_map, shards_of
from canopy.errors import PredictionsError, nearest
from canopy.predictions.io import names_in_npz, read_predictions, split_member, write_predictions
from canopy.predictions.predictions import (
    Predictions,
    align,
    concatenate,
    refuse_shared_rows,
    require_same_labels,
)
from canopy.storage import files

MemberFiles = Mapping[str, Sequence[str]]
"""Member name -> its files: folds or shards."""


def members_of(arguments: Iterable[str]) -> dict[str, list[str]]:
    """Files by member, from arguments ``name=path`` or ``path``; a repeated name adds a file to its member.

    A plain path is the member named like the file, or, for an npz with several members (``p_<member>``
    arrays), all of its members.

    Raises:
        PredictionsError: when an npz is missing or cannot be read.
    """
    out: dict[str, list[str]] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if equals and "/" not in name:
            out.setdefault(name, []).append(path)
            continue
        file, member = split_member(argument)
        stem = PurePosixPath(files.parent(file)[1]).stem
        if files.suffix(file) == ".npz" and not member:
            for found in names_in_npz(file):
                out.setdefault(found or stem, []).append(f"{file}#{found}" if found else file)
        else:
            out.setdefault(member or stem, []).append(argument)
    return out


def reads_in_shards(fitting: MemberFiles, config: EnsembleConfig) -> bool:
    """Whether to read the fitting files shard by shard.

    True if they are larger together than ``config.shard_above_mb`` and every member has the same number of
    files, at least two. A missing file counts as empty.
    """
    if len({len(paths) for paths in fitting.values()}) != 1 or min(map(len, fitting.values())) < 2:
        return False
    places = {files.parent(split_member(path)[0]) for paths in fitting.values() for path in paths}
    total = 0
    for directory in {directory for directory, _ in places}:
        try:
            sizes = files.list_files(directory or ".")
        except FileNotFoundError:
            continue
        total += sum(max(0, size) for name, size in sizes.items() if (directory, name) in places)
    return total > config.shard_above_mb * 2**20


def run_ensemble(
    fitting: MemberFiles,
    test: MemberFiles | None,
    output: str,
    config: EnsembleConfig,
    sharded: bool = False,
) -> Ensemble:
    """Fit on the fitting files, predict the test files, score them where they hold targets, write everything.

    Args:
        fitting: each member's files, at least one member's with targets: out-of-fold or validation rows
            that trained and selected nothing. Several files of a member are parts: folds or shards.
        test: files to predict, of every member with weight. Several files of a member that hold the same
            rows are its fold models: each is calibrated, then they are averaged; else they are parts. None
            to fit only.
        output: directory or URI.
        config: objective, and the methods to choose from.
        sharded: whether the i-th fitting files of all members hold the same rows and are read shard by shard,
            as tasks of the running Ray (without one, in turn), so that memory never holds all rows. See
            :func:`reads_in_shards`.

    Raises:
        PredictionsError: when files cannot be read or do not fit together, or when test rows with targets are
            among the fitting rows.
    """
    tests = None if test is None else _read_tests(test, fitting)
    excluded_ids = tests[0].ids if tests is not None and tests[0].targets_NK is not None else None
    configs = [config]
    if tests is not None and config.combination != "best_single":
        configs.append(derive(config, combination="best_single"))
    if sharded:
        map_shards: MapFunction = ray_map if _ray_runs() else map
        fitted = [fit_sharded(shards_of(fitting), each, map_shards, excluded_ids) for each in configs]
    else:
        members = align({name: _read_member(name, paths) for name, paths in fitting.items()})
        first = next(iter(members.values()))
        if excluded_ids is not None:
            refuse_shared_rows(first.ids, excluded_ids)
        if tests is not None:
            require_same_labels("the fitting files", first.labels, "the test files", tests[0].labels)
        fitted = [fit_ensemble(members, each) for each in configs]
    ensemble, single = fitted[0], fitted[-1]
    if tests is not None:
        ensemble = _predict_and_score(ensemble, single, *tests, output, config)
    files.write_bytes(files.join(output, "per_class.csv"), per_class_csv(ensemble))
    ensemble.save(files.join(output, "ensemble.json"))
    return ensemble


def _ray_runs() -> bool:
    ray = sys.modules.get("ray")  # Ray that was never imported does not run, and importing it takes seconds
    return ray is not None and bool(ray.is_initialized())


def _read_member(name: str, paths: Sequence[str]) -> Predictions:
    return concatenate([read_predictions(path) for path in paths], [f"{name}={path}" for path in paths])


def _read_tests(test: MemberFiles, fitting: MemberFiles) -> tuple[Predictions, MemberArrays]:
    """The test rows, with targets where known, and each member's probabilities, one array per fold model."""
    for name in test:
        if name not in fitting:
            must, remedy = "must be of members that have fitting files", nearest(name, fitting)
            raise PredictionsError("The test files", must, name, remedy)
    parts: dict[str, Predictions] = {}
    member_of: dict[str, str] = {}
    for name, paths in test.items():
        read = [read_predictions(path) for path in paths]
        same_rows = len(read) > 1 and all(set(p.ids.tolist()) == set(read[0].ids.tolist()) for p in read)
        named = [f"{name}={path}" for path in paths]
        for number, part in enumerate(read if same_rows else [concatenate(read, named)]):
            key = f"{name} (test, model {number + 1:02})" if same_rows else f"{name} (test)"
            parts[key], member_of[key] = part, name
    aligned = align(parts)
    test_probs_by_member: dict[str, list[NDArray[np.float32]]] = {}
    for key, part in aligned.items():
        test_probs_by_member.setdefault(member_of[key], []).append(part.probs_NK)
    return next(iter(aligned.values())), test_probs_by_member


def _predict_and_score(
    ensemble: Ensemble,
    single: Ensemble,
    test_rows: Predictions,
    test_probs_by_member: MemberArrays,
    output: str,
    config: EnsembleConfig,
) -> Ensemble:
    """Write predictions and decisions of the test rows; return the ensemble, scored if targets are known."""
    require_same_labels("the fitting files", ensemble.labels, "the test files", test_rows.labels)
    missing = [name for name in (*ensemble.members, *single.members) if name not in test_probs_by_member]
    if missing:
        must = "must be there for every member that the ensemble reads"
        raise PredictionsError("The test files", must, f"none of {missing[0]}", "Add them.")
    probs_NK, decisions_NK = ensemble.predict(test_probs_by_member)
    result = Predictions(test_rows.ids, probs_NK, test_rows.labels, targets_NK=test_rows.targets_NK)
    write_predictions(files.join(output, "predictions.parquet"), result)
    table = decisions_csv(result.ids, decisions_NK, result.labels)
    files.write_bytes(files.join(output, "decisions.csv"), table)
    if test_rows.targets_NK is None:
        return ensemble
    steps = decide_by_step(ensemble, single, test_probs_by_member)
    return ensemble.scored(measured_scores(ensemble, steps, test_rows.targets_NK, probs_NK, config))
