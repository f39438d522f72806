"""Measures what a fourth band brings: networks with red, green and blue, with near infrared, with a copy.

``python jobs/benchmarks/bands run`` generates chips of four bands in which two labels show in the near
infrared only, trains each network for several seeds on the same rows, and appends each result to the file of
figures as soon as it is known; a stopped run resumes with the same command. ``table`` prints the table. The
copy of the green band is the control: it says nothing new, so that network should be as good as its twin of
three bands.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jobs.benchmarks.ablation.records import Records
from jobs.benchmarks.bands.study import NETWORKS, BandStudy, Size, markdown

from canopy.cli import run_job

REPOSITORY = Path(__file__).resolve().parents[3]
OUT = REPOSITORY / "platform" / "docs" / "bands.jsonl"


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
    run.add_argument("--rows", type=int, default=6000, help="number of chips")
    run.add_argument("--size", type=int, default=64, help="side of a chip in pixels")
    run.add_argument("--epochs", type=int, default=12, help="epochs of every training")
    run.add_argument("--seeds", type=int, default=5, help="number of seeds")
    run.add_argument("--backbone", default="test_resnet", help="timm name of the network")
    run.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    run.add_argument("--threads", type=int, default=2, help="CPU threads of a training")
    run.add_argument("--cache", type=Path, help="directory for the chips; default: a temporary one")
    table = commands.add_parser("table", help="print the table")
    for command in (run, table):
        command.add_argument("--out", type=Path, default=OUT, help="file of figures")
    return parser.parse_args(argv)


def _command(args: argparse.Namespace) -> None:
    records = Records.open(args.out)
    if args.command == "run":
        size = Size(args.rows, args.size, args.epochs, args.backbone, args.threads)
        cache = args.cache or Path(tempfile.gettempdir()) / "canopy-bands"
        BandStudy.open(size, args.networks, cache, records).run(args.seeds)
    print(markdown(records))


if __name__ == "__main__":
    sys.exit(main())
