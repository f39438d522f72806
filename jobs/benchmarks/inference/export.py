"""Throughput on CPU of a run's ensemble: torch, and ONNX Runtime over its export, on the same cores.

    python jobs/benchmarks/inference export --run-dir RUN_DIR

All contenders get the same decoded chips and give probabilities and decisions. Batches are of 32 images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import jobs.benchmarks.env_vars  # noqa: F401  (before numpy, torch and Ray)
import numpy as np
import torch
from jobs.benchmarks.measurement import CpuMeter, Report, alternate
from numpy.typing import NDArray

import canopy
from canopy.inference.export import onnx_file, quantize
from canopy.inference.export.export import ExportPlan, export_run
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir


def export(
    run_dir: str,
    images: int = 512,
    repeats: int = 5,
    threads: int = 2,
    precisions: tuple[Literal["float16", "int8"], ...] = ("float16", "int8"),
    out: Path | None = None,
) -> None:
    """ONNX Runtime against torch on the CPU.

    Args:
        run_dir: directory of a finished run.
        images: number of images per repeat.
        repeats: number of repeats.
        threads: threads of each contender.
        precisions: smaller number formats to measure.
        out: JSON-lines file to append records to.
    """
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "export")
        plan = ExportPlan(("onnx",), precisions, member_files=False)
        record = export_run(run_dir, str(place), plan, Console())
        report = Report("inference on CPU", out)
        measure(run_dir, place, images, repeats, threads, report)
        for name, facts in record.get("precisions", {}).items():
            report.add_value(f"{name} on val chips", facts.get("val"))
        report.add_value("versions", {**record["versions"], "opset": record["opset"]})
        report.show()


def measure(run_dir: str, out: Path, images: int, repeats: int, threads: int, report: Report) -> None:
    """Time every contender in turn.

    Args:
        run_dir: the run.
        out: its export.
        images: number of images per repeat.
        repeats: number of repeats.
        threads: threads of each contender.
        report: receives readings and ratios.
    """
    models = {
        f"torch {kind}": canopy.load(run_dir, device="cpu", precision=kind)
        for kind in ("float32", "bfloat16")
    }
    sessions = {
        f"ONNX Runtime {path.name.removeprefix('ensemble.').removesuffix('onnx').strip('.') or 'float32'}": (
            onnx_file.open_session(path, threads)
        )
        for path in sorted(out.glob("ensemble*.onnx"))
    }
    chips_NHWC = chips_of(run_dir, models["torch float32"].decoder.size, images)
    meter = CpuMeter()
    works: dict[str, Callable[[], object]] = {
        name: partial(model.predict_decoded, chips_NHWC) for name, model in models.items()
    }
    works |= {name: partial(onnx_file.predict, one, chips_NHWC) for name, one in sessions.items()}
    for work in works.values():
        work()

    def contender(name: str) -> None:
        report.add_reading(name, meter.measure(lambda: (works[name](), images)[1]))

    alternate([partial(contender, name) for name in works], repeats)
    for name in [*sessions, "torch bfloat16"]:
        report.compare(name, "torch float32")


def chips_of(run_dir: str, size: int, count: int) -> NDArray[np.uint8]:
    """Chips of the run, repeated to ``count``; random ones where it keeps none."""
    run = RunDir(files.absolute(run_dir))
    stored = quantize.stored_chips(run, canopy.load(run_dir, device="cpu").labels.names)
    if stored is None:
        return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    chips_NHWC = stored.measured_NHWC
    return np.ascontiguousarray(chips_NHWC[np.arange(count) % len(chips_NHWC)])
