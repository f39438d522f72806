"""Measures what pretrained weights bring: from scratch, probe, LP-FT and fine-tuning, by share of the labels.

``python jobs/benchmarks/transfer run --weights FILE`` trains every method at 1 %, 10 % and 100 % of the
training labels for three seeds, one training after the other, and appends each result to the file of figures
as soon as it is known; a stopped run resumes with the same command. ``table`` prints the table.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jobs.benchmarks.ablation.records import Records
from jobs.benchmarks.transfer.methods import METHODS, SHARES, Size
from jobs.benchmarks.transfer.study import TransferStudy, markdown

from canopy.cli import run_job

REPOSITORY = Path(__file__).resolve().parents[3]
OUT = REPOSITORY / "platform" / "docs" / "transfer.jsonl"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the two commands and return the exit status."""
    return run_job(lambda words: _command(parse(words)), argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train what is missing")
    run.add_argument("--weights", required=True, help="model.weights of the backbone")
    run.add_argument("--backbone", default="tf_efficientnet_lite0", help="timm name of the network")
    run.add_argument("--input-size", type=int, default=96, help="side of the network's input in pixels")
    run.add_argument("--root", help="directory of the Planet chips; default: under $CANOPY_SHARED_DATA")
    run.add_argument("--cache", type=Path, help="directory for the chips; default: a temporary one")
    run.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    run.add_argument("--shares", nargs="+", type=float, default=list(SHARES), help="shares of the labels")
    run.add_argument("--seeds", type=int, default=3, help="number of seeds")
    run.add_argument("--rows", type=int, help="number of chips of the data set; default: all")
    run.add_argument("--epochs", type=int, help="epochs of every training; default: by share")
    run.add_argument("--threads", type=int, default=2, help="CPU threads of a training")
    table = commands.add_parser("table", help="print the table")
    for command in (run, table):
        command.add_argument("--out", type=Path, default=OUT, help="file of figures")
    return parser.parse_args(argv)


def _command(args: argparse.Namespace) -> None:
    records = Records.open(args.out)
    if args.command == "table":
        print(markdown(records))
        return
    shared = os.environ.get("CANOPY_SHARED_DATA", REPOSITORY.parent / "shared" / "data")
    root = args.root or str(Path(shared) / "planet32")
    cache = args.cache or Path(tempfile.gettempdir()) / "canopy-transfer"
    size = Size(args.weights, args.backbone, args.input_size, args.rows, args.epochs, args.threads)
    study = TransferStudy.open(size, root, cache, records)
    study.run(args.methods, args.shares, args.seeds)
    print(markdown(records))


if __name__ == "__main__":
    sys.exit(main())
