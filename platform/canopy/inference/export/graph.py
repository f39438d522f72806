"""A model as one torch module: from decoded images to probabilities and decisions, without numpy.

Images are uint8 RGB (N, S, S, 3), or levels of a run's bands, uint8 or uint16 (N, S, S, C) in their order.

The symmetries of an image pass through a network as one batch, so that the graph holds each network once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from canopy.data.transforms.crop import center_crop
from canopy.data.transforms.normalize import scale_and_offset
from canopy.inference.export.ensemble_layers import CombinationLayer, DecisionLayer, calibration_layer
from canopy.models.network import MultiLabelNetwork
from canopy.train.logits import Symmetries, symmetries

if TYPE_CHECKING:
    from canopy.ensemble.model import Ensemble
    from canopy.train.trained_model import TrainedModel

FloatType = Literal["float32", "float16"]
"""Number format of the networks' weights and activations."""


class MemberGraph(nn.Module):
    """One member: images (N, S, S, C) to the probability of each fold's network, float32 (N, F, K).

    Args:
        folds: the member's networks, one per fold.
        precision: number format of the networks; everything else stays in float32.
    """

    scale_C: Tensor
    offset_C: Tensor

    def __init__(self, folds: Sequence[TrainedModel], precision: FloatType = "float32") -> None:
        super().__init__()
        variant = folds[0].variant
        self.crop = variant.augment.crop
        self.tta: Symmetries = variant.tta
        self.dtype = getattr(torch, precision)
        networks = [copy.deepcopy(fold.network).cpu().eval().requires_grad_(False) for fold in folds]
        # Channels-last weights would be stored as slices.
        plain = torch.contiguous_format
        typed = (network.to(dtype=self.dtype) for network in networks)
        self.networks = nn.ModuleList(network.to(memory_format=plain) for network in typed)
        bands = cast(MultiLabelNetwork, folds[0].network).bands
        scale_C, offset_C = scale_and_offset(1, torch.device("cpu"), bands)
        self.register_buffer("scale_C", scale_C.clone())
        self.register_buffer("offset_C", offset_C.clone())

    def forward(self, images_NHWC: Tensor) -> Tensor:
        """Probabilities (N, F, K), before calibration."""
        count = images_NHWC.shape[0]
        chips_NHWC = center_crop(images_NHWC, self.crop)
        x_NCHW = (chips_NHWC.float() * self.scale_C - self.offset_C).permute(0, 3, 1, 2).to(self.dtype)
        views = list(symmetries(x_NCHW, self.tta))
        stacked_NCHW = torch.cat(views) if len(views) > 1 else views[0]
        probs = []
        for network in self.networks:
            logits = network(stacked_NCHW).float()
            if len(views) > 1:
                logits = logits.reshape(len(views), count, -1).mean(0)
            probs.append(torch.sigmoid(logits))
        return torch.stack(probs, dim=1)


class EnsembleGraph(nn.Module):
    """The ensemble: images (N, S, S, C) to probabilities float32 (N, K) and decisions uint8 (N, K).

    Members without any weight are left out.

    Args:
        ensemble: calibration, weights, thresholds.
        members: name -> graph of each member of the ensemble.
    """

    def __init__(self, ensemble: Ensemble, members: Mapping[str, MemberGraph]) -> None:
        super().__init__()
        weights_MK = ensemble.combination.weights_MK
        used = [m for m in range(len(ensemble.members)) if weights_MK[m].any()] or [0]
        self.members = nn.ModuleList(members[ensemble.members[m]] for m in used)
        self.calibrations = nn.ModuleList(calibration_layer(ensemble.calibrations[m]) for m in used)
        self.combination = CombinationLayer(ensemble.combination, used)
        self.recalibration = calibration_layer(ensemble.recalibration)
        groups = [[ensemble.labels.index(name) for name in group] for group in ensemble.exclusive]
        self.decide = DecisionLayer(ensemble.thresholds, groups)

    @classmethod
    def of(
        cls,
        ensemble: Ensemble,
        members: Mapping[str, Sequence[TrainedModel]],
        precision: FloatType = "float32",
    ) -> EnsembleGraph:
        """The graph of an ensemble and its members' networks, one per fold; the networks are copied."""
        graphs = {name: MemberGraph(folds, precision) for name, folds in members.items()}
        return cls(ensemble, graphs)

    def forward(self, images_NHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and decisions, each (N, K)."""
        calibrated = []
        for member, calibration in zip(self.members, self.calibrations, strict=True):
            folds = [calibration(probs_NK) for probs_NK in member(images_NHWC).unbind(1)]
            calibrated.append(folds[0] if len(folds) == 1 else torch.stack(folds).mean(0))
        probs_NK = self.recalibration(self.combination(calibrated))
        return probs_NK, self.decide(probs_NK)
