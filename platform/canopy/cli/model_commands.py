"""The sub-commands that take a finished run elsewhere: export and serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from canopy.cli.options import read_options
from canopy.inference.service.settings import ServiceOptions, named_models
from canopy.runtime.logging import log_context
from canopy.storage import files

EXPORT = "Write the ensemble of a finished run as ONNX, a torch program and a folder for the Hugging Face hub"

SERVE = "Serve finished runs over HTTP, with a web page, until it is stopped"


@dataclass(frozen=True)
class ServeOptions:
    """Options of ``serve``."""

    model: tuple[str, ...]
    """Finished runs to serve: RUN_DIR, or NAME=RUN_DIR for several; the first is the default."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all. TLS belongs to a proxy before it."""
    port: int = 8000
    """Port to listen on."""
    options: Annotated[ServiceOptions, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(
        default_factory=ServiceOptions
    )


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
        options.formats,
        options.precisions,
        options.member_files,
        options.members or None,
        options.max_members,
    )
    with log_context(run=files.shown(options.run_dir)):
        export_run(options.run_dir, options.to, plan, Console())


def serve(argv: Sequence[str], prog: str) -> None:
    """Serve finished runs.

    Raises:
        CanopyError: see :func:`canopy.inference.service.run.serve_models`.
    """
    options = read_options(ServeOptions, argv, SERVE, prog)
    models = named_models(options.model)
    from canopy.inference.service.run import serve_models
    from canopy.runtime.console import Console

    serve_models(models, options.options, options.host, options.port, Console())
