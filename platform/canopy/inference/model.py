"""The model of a finished run: its ensemble, the networks of the members, and their preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.ensemble.model import Ensemble
from canopy.errors import ConfigError
from canopy.explain.evidence import Method
from canopy.explain.explanation import Explanation
from canopy.inference.chips import ChipDecoder, ImageLike, ImagesLike, listed, name_of, parts
from canopy.inference.networks import Networks
from canopy.inference.prediction import Prediction, concatenate
from canopy.labels import LabelSet

ROWS_AT_ONCE = 256
"""Images that :meth:`Model.predict` decodes before it predicts them."""


@dataclass(frozen=True, eq=False)
class Model:
    """An ensemble with the networks of its members and the decoder of its images.

    :func:`canopy.load` makes one from a run directory. Batch inference, the service and the exports go
    through :meth:`predict_decoded`.

    Args:
        ensemble: weights, calibration, thresholds.
        networks: the members' networks on their device.
        decoder: turns images into the chips that the networks were trained on.
    """

    ensemble: Ensemble
    networks: Networks
    decoder: ChipDecoder

    @property
    def labels(self) -> LabelSet:
        """The K labels, in the order of all columns."""
        return self.ensemble.labels

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members."""
        return self.ensemble.members

    @property
    def thresholds(self) -> NDArray[np.float32]:
        """Threshold of each label's probability."""
        return self.ensemble.thresholds

    def predict(
        self, images: ImagesLike, *, member_probabilities: bool = False, embeddings: bool = False
    ) -> Prediction:
        """Probabilities and decisions of images.

        Args:
            images: one image or a list of them: paths or URIs, bytes of files, images of Pillow, arrays
                (H, W, 3) of uint8, mixed as you like; or one array (N, H, W, 3) of uint8. Images of any size
                are resized as in training.
            member_probabilities: whether the result holds each member's probabilities too.
            embeddings: whether it holds each member's features.

        Raises:
            DataError: naming the first image that cannot be read.
            ConfigError: when something given is no image.
            StorageError: when an object store refuses.
        """
        found = [
            self.predict_decoded(
                self.decoder.chips(part, first),
                [name_of(image) for image in part],
                member_probabilities=member_probabilities,
                embeddings=embeddings,
            )
            for first, part in parts(listed(images), ROWS_AT_ONCE)
        ]
        return concatenate(found) if found else self._nothing(member_probabilities, embeddings)

    def predict_decoded(
        self,
        chips_NHWC: NDArray[Any],
        ids: Sequence[str | None] | None = None,
        *,
        member_probabilities: bool = False,
        embeddings: bool = False,
    ) -> Prediction:
        """The prediction for decoded chips, uint8, (N, S, S, 3), with S the decoder's size.

        Args:
            chips_NHWC: chips of :attr:`decoder`.
            ids: name of each; None: none has one.
            member_probabilities: whether the result holds each member's probabilities too.
            embeddings: whether it holds each member's features.

        Raises:
            ConfigError: when the array has another shape or type.
        """
        expected = (len(chips_NHWC), *self.decoder.shape)
        if chips_NHWC.shape != expected or chips_NHWC.dtype != self.decoder.dtype:
            need = f"must be {self.decoder.dtype} of the shape (N, {', '.join(map(str, expected[1:]))})"
            got = f"{chips_NHWC.dtype} {chips_NHWC.shape}"
            raise ConfigError("Decoded chips", need, got, "Use predict, which resizes images.")
        if not len(chips_NHWC):
            return self._nothing(member_probabilities, embeddings)
        outputs = self.networks(chips_NHWC, embeddings=embeddings)
        probs_NK, decisions_NK = self.ensemble.predict(
            {name: list(outputs.probs[name]) for name in self.ensemble.members}
        )
        members = self.ensemble.members if member_probabilities else ()
        return Prediction(
            tuple(ids) if ids is not None else (None,) * len(chips_NHWC),
            probs_NK,
            decisions_NK,
            self.labels,
            self.thresholds,
            {name: np.mean(outputs.probs[name], axis=0, dtype=np.float32) for name in members},
            outputs.embeddings,
        )

    def explain(self, image: ImageLike) -> Explanation:
        """Where in an image the evidence for each label is.

        Each network looks at the image once, without test-time augmentation, in float32; folds are averaged,
        members weighted by their share in the ensemble.

        Args:
            image: as for :meth:`predict`.

        Raises:
            DataError: when the image cannot be read.
            ConfigError: when a backbone's features have no positions.
        """
        chips_1HWC = self.decoder.chips([image])
        found = self.predict_decoded(chips_1HWC)
        share_MK = np.abs(self.ensemble.combination.weights_MK)
        share_MK = share_MK / np.maximum(share_MK.sum(axis=0), 1e-12)
        maps_KHW = np.zeros((len(self.labels), *chips_1HWC.shape[1:3]), np.float32)
        methods: dict[str, Method] = {}
        for name, share_K in zip(self.ensemble.members, share_MK, strict=True):
            own_KHW, methods[name] = self.networks.evidence(name, chips_1HWC)
            maps_KHW += share_K[:, None, None].astype(np.float32) * own_KHW
        probs_K, decisions_K = found.probs_NK[0], found.decisions_NK[0]
        bands = self.networks.bands
        shown_1HWC = chips_1HWC if bands is None else bands.shown(chips_1HWC)
        return Explanation(shown_1HWC[0], maps_KHW, probs_K, decisions_K, self.labels, methods)

    def _nothing(self, member_probabilities: bool, embeddings: bool) -> Prediction:
        """The prediction for no images, with the columns of others: that of a black chip without its row."""
        black_1HWC = np.zeros((1, *self.decoder.shape), self.decoder.dtype)
        one = self.predict_decoded(
            black_1HWC, member_probabilities=member_probabilities, embeddings=embeddings
        )
        return Prediction(
            (),
            one.probs_NK[:0],
            one.decisions_NK[:0],
            one.labels,
            one.thresholds_K,
            {name: probs_NK[:0] for name, probs_NK in one.member_probs.items()},
            {name: features_ND[:0] for name, features_ND in one.embeddings.items()},
        )
