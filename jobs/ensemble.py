"""Tune weights and thresholds; score once on the test split.

Over a run directory, as the stage after train; or over anybody's files of probabilities:
``--fitting NAME=FILE … [--test NAME=FILE …] --out DIR`` (Parquet, CSV or npz; see docs/ensemble.md).
Files that are large together are read shard by shard, as Ray tasks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import tyro

from canopy.cli import parse, run_job
from canopy.config import EnsembleConfig
from canopy.ensemble.from_files import closing_lines, in_shards, members_of, run_ensemble
from canopy.pipeline import run_stages
from canopy.runtime.cluster import connect


@dataclass(frozen=True)
class FileOptions:
    """An ensemble of files that somebody brings."""

    fitting: tuple[str, ...]
    """NAME=FILE of each member, with targets, of rows that trained and chose nothing."""
    out: str
    """Directory or URI for ensemble.json, predictions.parquet, decisions.csv and per_class.csv."""
    test: tuple[str, ...] = ()
    """NAME=FILE of each member, to predict and, where they hold targets, to score."""
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)


def ensemble(argv: Sequence[str]) -> None:
    """The stage, or the ensemble of files when ``--fitting`` is given."""
    if not any(argument.partition("=")[0] == "--fitting" for argument in argv):
        run_stages(parse(argv, __doc__ or ""), ["ensemble"])
        return
    options = tyro.cli(FileOptions, args=list(argv), description=__doc__)
    fitting, tests = members_of(options.fitting), members_of(options.test) or None
    sharded = in_shards(fitting, options.ensemble)
    if sharded:
        connect()
    fitted = run_ensemble(fitting, tests, options.out, options.ensemble, sharded)
    print(fitted.summary, *closing_lines(fitted.measured or fitted.estimated), options.out, sep="\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return run_job(ensemble, argv)


if __name__ == "__main__":
    sys.exit(main())
