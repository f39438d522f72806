"""Graphs as ONNX files, and ONNX Runtime sessions over them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from canopy.bands import BandLayout, channels_of, dtype_of
from canopy.errors import ConfigError

if TYPE_CHECKING:
    import onnxruntime

    from canopy.config import SensorConfig
    from canopy.ensemble.model import Ensemble
    from canopy.inference.export.parity import Prediction

OPSET = 20
"""Version of ONNX's operators in the files: torch's default, read by ONNX Runtime from 1.17 on."""
FORMAT = "canopy-onnx/1"
INPUT = "images"
MODULES = ("onnx", "onnxscript", "onnxruntime")
Kind = Literal["ensemble", "member"]
OUTPUTS: dict[Kind, tuple[str, ...]] = {"ensemble": ("probs", "decisions"), "member": ("probs",)}


def require_onnx() -> None:
    """Refuse to go on without the packages that ONNX files need.

    Raises:
        ConfigError: naming the first package that is missing.
    """
    import importlib.util

    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        need, remedy = "needs packages that are not installed", "pip install 'canopy-eo[export]'."
        raise ConfigError("--formats onnx", need, f"no {', '.join(missing)}", remedy)


def exported_program(
    graph: nn.Module, image_size: int, layout: BandLayout | None = None
) -> torch.export.ExportedProgram:
    """The program of a graph over images (N, image_size, image_size, C), for any N from 1 on.

    Args:
        graph: of :mod:`canopy.inference.export.graph`.
        image_size: height and width of its images, pixels.
        layout: their bands; None for RGB.
    """
    shape, dtype = (2, image_size, image_size, channels_of(layout)), dtype_of(layout)
    example = torch.from_numpy(np.zeros(shape, dtype))
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        # torch warns about itself: deprecated helpers, and constants that timm's models create.
        return torch.export.export(graph, (example,), dynamic_shapes=({0: torch.export.Dim("N")},))


def write_onnx(
    program: torch.export.ExportedProgram, kind: Kind, path: Path, metadata: Mapping[str, str]
) -> None:
    """Write a program as an ONNX file; weights of more than 1.5 GB go into a second file beside it.

    Args:
        program: of a graph of :mod:`canopy.inference.export.graph`.
        kind: decides the names of the outputs.
        path: the file; its directory exists.
        metadata: texts for the file's metadata.
    """
    with warnings.catch_warnings(action="ignore"):
        converted = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=list(OUTPUTS[kind]),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert converted is not None
    converted.model.metadata_props.update(metadata)
    converted.save(path)


def ensemble_metadata(
    ensemble: Ensemble, image_size: int, sensor: SensorConfig, layout: BandLayout | None = None
) -> dict[str, str]:
    """Metadata of an ensemble's file: all that a reader needs besides the graph.

    Args:
        ensemble: labels and thresholds.
        image_size: height and width of the images, pixels.
        sensor: conversion of RGB images.
        layout: the bands of the images; None for RGB.
    """
    bands = {} if layout is None else {"canopy.bands": json.dumps(layout.to_json())}
    thresholds = [float(threshold) for threshold in ensemble.thresholds]
    return {
        "canopy.format": FORMAT,
        "canopy.labels": json.dumps(list(ensemble.labels.names)),
        "canopy.thresholds": json.dumps(thresholds),
        "canopy.image_size": str(image_size),
        "canopy.sensor": json.dumps(sensor.model_dump(mode="json")),
        **bands,
    }


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session of ONNX Runtime on the CPU.

    Args:
        path: an ONNX file.
        threads: threads that compute; 0 for one per core.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only: it warns about weights that a node does not use
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_session(session: Any, images_NHWC: NDArray[Any], batch: int = 32) -> list[NDArray[Any]]:
    """The outputs of a graph for N images, in batches."""
    found = [
        session.run(None, {INPUT: np.ascontiguousarray(images_NHWC[start : start + batch])})
        for start in range(0, len(images_NHWC), batch)
    ]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def predict(session: Any, images_NHWC: NDArray[Any], batch: int = 32) -> Prediction:
    """Probabilities and decisions of an ensemble's session."""
    probs_NK, decisions_NK = run_session(session, images_NHWC, batch)
    return probs_NK, decisions_NK


def versions(names: Sequence[str] = ("torch", *MODULES)) -> dict[str, str]:
    """Installed versions of packages by name."""
    from importlib.metadata import version

    return {name: version(name) for name in names}
