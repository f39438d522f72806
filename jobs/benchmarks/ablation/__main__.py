"""Measures the effect of each technique of the plan. A stopped run resumes with the same command.

``python jobs/benchmarks/ablation run --data generated`` (or ``planet32``) finds a learning rate for each
backbone, trains every row at every seed, two at a time, and appends each result to the file of figures as
soon as it is known. ``lr`` finds only the learning rates. ``table`` writes the tables in
``platform/docs/ablation.md`` from the files of figures, without data or training.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jobs.benchmarks.ablation.data import prepare_data
from jobs.benchmarks.ablation.records import Records
from jobs.benchmarks.ablation.rows import ROWS, USUAL, find, setting
from jobs.benchmarks.ablation.study import Study, section

from canopy.cli import run_job
from canopy.errors import InputError
from canopy.runtime.cluster import connect
from canopy.runtime.console import Console

REPOSITORY = Path(__file__).resolve().parents[3]
DOCS = REPOSITORY / "platform" / "docs"
PAGE = DOCS / "ablation.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the three commands and return the exit status."""
    return run_job(lambda words: _command(parse(words)), argv)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("run", "train the missing rows"), ("lr", "find only the learning rates")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--data", choices=("generated", "planet32"), required=True)
        command.add_argument("--scale", choices=("cpu", "gpu", "tiny"), default="cpu")
        command.add_argument("--out", type=Path, help="file of figures; default: platform/docs/ablation/")
        command.add_argument(
            "--root", help="directory of the Planet chips; default: under $CANOPY_SHARED_DATA"
        )
        command.add_argument(
            "--cache", type=Path, help="directory for chips and predictions; default: a temporary one"
        )
        command.add_argument("--parallel", type=int, default=2, help="number of concurrent trainings")
        if name == "run":
            command.add_argument("--seeds", type=int, default=3, help="number of seeds of each row")
            command.add_argument(
                "--rows", nargs="+", default=list(USUAL), help=f"rows to train, among: {', '.join(ROWS)}"
            )
            command.add_argument(
                "--leave-one-out",
                action="store_true",
                help="then train `all` without each technique whose interval is above zero",
            )
    table = commands.add_parser("table", help="write the tables from the files of figures")
    table.add_argument("files", type=Path, nargs="*", help="default: platform/docs/ablation/*.jsonl")
    table.add_argument(
        "--page", type=Path, default=PAGE, help="Markdown file with markers; - prints the tables"
    )
    return parser.parse_args(argv)


def _command(args: argparse.Namespace) -> None:
    if args.command == "table":
        write_tables(args.files or sorted((DOCS / "ablation").glob("*.jsonl")), args.page)
        return
    study = open_study(args)
    study.find_rates()
    if args.command == "run":
        find(args.rows)
        study.run(args.rows, args.seeds)
        if args.leave_one_out:
            study.run(study.left_out(), args.seeds)


def open_study(args: argparse.Namespace) -> Study:
    """Start Ray and prepare the data of a study."""
    size = setting(args.data, args.scale)
    suffix = "" if args.scale == "cpu" else f"-{args.scale}"
    out = args.out or DOCS / "ablation" / f"{args.data}{suffix}.jsonl"
    cache = args.cache or Path(tempfile.gettempdir()) / "canopy-ablation"
    root = args.root
    if root is None and args.data == "planet32":
        shared = os.environ.get("CANOPY_SHARED_DATA", REPOSITORY.parent / "shared" / "data")
        root = str(Path(shared) / "planet32")
    connect()
    console = Console()
    data = prepare_data(args.data, size, root, cache, console)
    return Study((args.data, args.scale), size, data, Records.open(out), console, args.parallel)


def write_tables(paths: Sequence[Path], page: Path) -> None:
    """Write each file's table between its markers in ``page``, or print it if ``page`` is ``-``.

    A page without markers gets them at its end.

    Raises:
        InputError: when a file of figures is missing.
    """
    if not paths:
        raise InputError("table", "needs files of figures", "none", "Name them, or use `run` first.")
    text = page.read_text() if page.exists() else ""
    for path in paths:
        if not path.is_file():
            raise InputError(str(path), "must be a file of figures", "no file", "Use `run` first.")
        table = section(Records.open(path))
        if str(page) == "-":
            print(table)
            continue
        begin, end = f"<!-- ablation {path.stem}: begin -->", f"<!-- ablation {path.stem}: end -->"
        if begin not in text:
            text += f"\n{begin}\n{end}\n"
        before, after = text.split(begin)[0], text.split(end)[1]
        text = f"{before}{begin}\n\n{table}\n{end}{after}"
    if str(page) != "-":
        page.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
