"""Smaller number formats of an exported ensemble, and what they cost in macro-F1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy import metrics
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_cache import ChipCache
from canopy.errors import RunDirError
from canopy.inference.export.onnx_file import INPUT
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir

CALIBRATION_CHIPS, MEASURED_CHIPS = 256, 2000
"""Training chips that give the ranges of int8 activations, and val chips that are scored, at most."""
BATCH = 16
QUANTIZED = ("Conv", "Gemm", "MatMul")
"""Operators that are computed in 8 bits. They occur in networks only, never in calibration or combination."""


@dataclass(frozen=True, eq=False)
class StoredChips:
    """Chips of a run with their labels.

    Args:
        training_NHWC: training chips, uint8.
        measured_NHWC: val chips, uint8; the test split stays unread.
        targets_NK: labels of the val chips.
    """

    training_NHWC: NDArray[np.uint8]
    measured_NHWC: NDArray[np.uint8]
    targets_NK: NDArray[np.uint8]


def stored_chips(run: RunDir, labels: tuple[str, ...]) -> StoredChips | None:
    """The chips that a run directory keeps, evenly drawn; None where it keeps none (a streamed data set).

    Raises:
        RunDirError: when the stored chips are damaged or belong to other labels.
    """
    cache, path = ChipCache.of_run(run), run.path(Stage.PREPARE, "catalogue.parquet")
    if not (cache.exists() and files.exists(path)):
        return None
    catalogue, chips_NHWC = Catalogue.read(path), cache.open()
    if catalogue.labels.names != labels or len(catalogue) != len(chips_NHWC):
        got = f"{len(catalogue)} rows of {len(catalogue.labels)} labels for {len(chips_NHWC)} chips"
        remedy = "Run jobs/prepare.py with the run again."
        raise RunDirError(files.shown(path), "must describe the run's chips and labels", got, remedy)
    training, measured = catalogue.rows("train"), catalogue.rows("val")
    training = training[:: max(1, len(training) // CALIBRATION_CHIPS)][:CALIBRATION_CHIPS]
    measured = measured[:: max(1, -(-len(measured) // MEASURED_CHIPS))]
    return StoredChips(
        np.array(chips_NHWC[training]), np.array(chips_NHWC[measured]), catalogue.targets_NK[measured]
    )


class ChipReader:
    """Batches of chips for the calibration of ONNX Runtime's quantizer.

    Args:
        chips_NHWC: the chips, uint8.
    """

    def __init__(self, chips_NHWC: NDArray[np.uint8]) -> None:
        self._batches: Iterator[dict[str, Any]] = iter(
            [{INPUT: chips_NHWC[start : start + BATCH]} for start in range(0, len(chips_NHWC), BATCH)]
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None after the last."""
        return next(self._batches, None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._batches


def write_int8(source: Path, target: Path, chips_NHWC: NDArray[np.uint8]) -> None:
    """Write an ensemble's file with the layers of its networks in 8 bits.

    Weights are quantized per channel; ranges of activations are those of ``chips_NHWC`` (post-training static
    quantization, Jacob et al., CVPR 2018).
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_name(f".{target.name}.prepared")
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            ChipReader(chips_NHWC),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
    finally:
        prepared.unlink(missing_ok=True)


def macro_f1_loss(
    targets_NK: NDArray[np.uint8], full_NK: NDArray[np.uint8], reduced_NK: NDArray[np.uint8]
) -> dict[str, float]:
    """Macro-F1 of the decisions in float32 and in a smaller format, and the difference.

    Args:
        targets_NK: labels.
        full_NK: decisions in float32.
        reduced_NK: decisions in the smaller format.
    """
    full, reduced = (
        float(metrics.macro_f1(metrics.Counts.of(targets_NK, each))) for each in (full_NK, reduced_NK)
    )
    return {
        "macro_f1_float32": round(full, 6),
        "macro_f1": round(reduced, 6),
        "loss": round(full - reduced, 6),
        "decisions_changed": round(float((full_NK != reduced_NK).mean()), 6),
    }
