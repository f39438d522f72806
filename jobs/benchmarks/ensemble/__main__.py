"""Quality of Canopy's ensemble compared with other methods on the same rows, and its speed.

``python jobs/benchmarks/ensemble quality [FILE.npz]`` tunes on some folds and scores on the others;
``python jobs/benchmarks/ensemble speed`` times the thresholds and the whole search on a million rows.
The file contains ``image_name``, ``classes``, ``fold``, ``y`` and ``p_<member>`` arrays (out-of-fold
probabilities). The default is ``planet32/oof_probabilities.npz`` under ``$CANOPY_SHARED_DATA``.

Other methods: the best single member at 0.5 and on the usual grid (0.1 to 0.9 by 0.05, per class); the mean
on that grid; scikit-learn's stacking (logistic regression on the members' probabilities) at 0.5 and with
its own tuned thresholds; AutoGluon's weighted ensemble selection with its own threshold calibration, where
``autogluon.core`` can be imported (``pip install --no-deps --target DIR autogluon.core autogluon.common
autogluon.features`` and PYTHONPATH=DIR are enough).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.benchmarks.ensemble.quality import quality, shared_file
from jobs.benchmarks.ensemble.speed import speed


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the two benchmarks and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    quality_parser = commands.add_parser("quality", help="macro-F1 and micro-F1 of all methods")
    quality_parser.add_argument("file", nargs="?", help="npz of out-of-fold probabilities")
    quality_parser.add_argument(
        "--rows", type=int, nargs="*", default=[500], help="also tune on these numbers of rows"
    )
    quality_parser.add_argument("--out", help="append the figures to this JSON-lines file")
    speed_parser = commands.add_parser("speed", help="time of the thresholds and of the whole search")
    speed_parser.add_argument("--rows", type=int, default=1_000_000)
    speed_parser.add_argument("--members", type=int, default=10)
    args = parser.parse_args(argv)
    match args.command:
        case "quality":
            records = quality(Path(args.file) if args.file else shared_file(), args.rows)
            if args.out:
                with Path(args.out).open("a") as stream:
                    stream.writelines(json.dumps(record) + "\n" for record in records)
        case "speed":
            speed(args.rows, args.members)
    return 0


if __name__ == "__main__":
    sys.exit(main())
