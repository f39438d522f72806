"""The sub-commands that take a finished run elsewhere: export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from canopy.cli.options import read_options
from canopy.runtime.logging import log_context
from canopy.storage import files

EXPORT = "Write the ensemble of a finished run as ONNX, a torch program and a folder for the Hugging Face hub"


@dataclass(frozen=True)
class ExportOptions:
    """Options of ``export``."""

    run_dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Directory or URI of a finished run."""
    to: str
    """Directory or URI to write; it must not exist yet, or be empty."""
    formats: tuple[Literal["onnx", "torch", "hub"], ...] = ("onnx", "torch", "hub")
    """Forms to write: ONNX files with runtime.py, a program of torch.export, a folder for the Hugging Face
    hub."""
    precisions: tuple[Literal["float16", "int8"], ...] = ()
    """ONNX files in smaller number formats to write besides; what they cost in macro-F1 is measured on the
    run's val chips."""
    member_files: Annotated[bool, tyro.conf.FlagConversionOff] = True
    """Write each member as an ONNX file of its own, too."""
    members: tuple[str, ...] = ()
    """Variants to export; empty: all that the run's ensemble reads. Another choice is refitted to the run's
    stored predictions."""
    max_members: int | None = None
    """Largest number of members, 1 or more; the best subset of that size is refitted in the same way."""


def export(argv: Sequence[str], prog: str) -> None:
    """Export a finished run.

    Raises:
        CanopyError: see :func:`canopy.inference.export.export.export_run`.
    """
    options = read_options(ExportOptions, argv, EXPORT, prog)
    from canopy.inference.export.export import ExportPlan, export_run
    from canopy.runtime.console import Console

    plan = ExportPlan(
        options.formats, options.precisions, options.member_files, options.members or None, options.max_members
    )
    with log_context(run=files.shown(options.run_dir)):
        export_run(options.run_dir, options.to, plan, Console())
