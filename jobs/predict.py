"""Apply a finished run's ensemble to a folder of images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from canopy.cli import run_job
from canopy.inference.batch import predict_folder
from canopy.runtime.console import Console


@dataclass(frozen=True)
class Options:
    """What to apply to what."""

    model: str
    """The run directory of a finished run."""
    images: str
    """Folder or URI of images, searched with all folders below it."""
    out: str
    """The Parquet file to write: id, one probability and one decision per label."""
    max_bad_fraction: float = 0.0
    """Unreadable images up to this share are named and left out."""


def predict(argv: Sequence[str]) -> None:
    """Parse, score, say where the result is."""
    options = tyro.cli(Options, args=list(argv), description=__doc__)
    console = Console()
    count = predict_folder(options.model, options.images, options.out, options.max_bad_fraction, console)
    console.say("predict", f"{count:,} images written to {options.out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return run_job(predict, argv)


if __name__ == "__main__":
    sys.exit(main())
