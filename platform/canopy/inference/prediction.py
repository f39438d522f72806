"""The result of a prediction: probabilities and decisions of N images, with their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from canopy.inference.predictions_table import predictions_table
from canopy.labels import LabelSet

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about N images and K labels.

    Args:
        ids: path or URI of each image as given; None for an image without one.
        probs_NK: calibrated probabilities of the ensemble, in [0, 1].
        decisions_NK: 1 for a label that is predicted, else 0: where its probability reaches its threshold;
            in a group of exclusive labels, the one that is furthest above its threshold.
        labels: names of the K labels.
        thresholds_K: threshold of each label.
        member_probs: by member, its own uncalibrated probabilities (N, K), the mean over its folds; empty
            unless asked for.
        embeddings: by member, features (N, D) of each image
            (:class:`canopy.inference.networks.NetworkOutputs`); empty unless asked for.
    """

    ids: tuple[str | None, ...]
    probs_NK: NDArray[np.float32]
    decisions_NK: NDArray[np.uint8]
    labels: LabelSet
    thresholds_K: NDArray[np.float32]
    member_probs: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    embeddings: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> list[tuple[str, ...]]:
        """Names of the labels that are predicted for each image."""
        return [tuple(names) for names in self.labels.decode(self.decisions_NK)]

    def to_arrow(self) -> pa.Table:
        """One row per image, in the columns of :mod:`canopy.inference.predictions_table`."""
        return predictions_table(
            self.ids,
            self.probs_NK,
            self.decisions_NK,
            self.labels.names,
            member_probs=self.member_probs,
            embeddings=self.embeddings,
        )

    def to_pandas(self) -> pd.DataFrame:
        """The table of :meth:`to_arrow` as a data frame."""
        return self.to_arrow().to_pandas()


def concatenate(parts: list[Prediction]) -> Prediction:
    """The rows of several predictions of one model, at least one, in their order."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Prediction(
        tuple(name for part in parts for name in part.ids),
        np.concatenate([part.probs_NK for part in parts]),
        np.concatenate([part.decisions_NK for part in parts]),
        first.labels,
        first.thresholds_K,
        {name: np.concatenate([part.member_probs[name] for part in parts]) for name in first.member_probs},
        {name: np.concatenate([part.embeddings[name] for part in parts]) for name in first.embeddings},
    )
