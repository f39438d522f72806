"""Mixup and CutMix for multi-hot targets: two images in one, with soft labels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from canopy.config import AugmentConfig


def mix(
    images: Tensor, targets_NK: Tensor, config: AugmentConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """The batch mixed with a permutation of itself; unchanged when ``config`` asks for neither.

    With both ``mixup_alpha`` and ``cutmix_alpha`` a coin decides for each batch.

    Args:
        images: (N, H, W, 3) or (N, 3, H, W); uint8 stays uint8, rounded.
        targets_NK: in [0, 1].
        config: the Beta parameters, and how CutMix labels.
        rng: the same one gives the same mix.

    Returns:
        Images of the same shape and type, and float32 targets (N, K) in [0, 1].
    """
    targets_NK = targets_NK.float()
    use_cutmix = rng.uniform() < 0.5 if config.mixup_alpha > 0 else True
    partner_N = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    if config.cutmix_alpha > 0 and use_cutmix:
        share = float(rng.beta(config.cutmix_alpha, config.cutmix_alpha))
        centre = rng.uniform(size=2)
        union = config.cutmix_labels == "union"
        return cutmix(images, targets_NK, partner_N, share, centre, union=union)
    if config.mixup_alpha > 0:
        share = float(rng.beta(config.mixup_alpha, config.mixup_alpha))
        return mixup(images, targets_NK, partner_N, share)
    return images, targets_NK


def mixup(images: Tensor, targets_NK: Tensor, partner_N: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """``share`` of each image and of its labels, the rest from its partner.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    mixed = torch.lerp(images[partner_N].float(), images.float(), share)
    if images.dtype == torch.uint8:
        mixed = mixed.round_().to(torch.uint8)
    return mixed, torch.lerp(targets_NK[partner_N], targets_NK, share)


def cutmix(
    images: Tensor,
    targets_NK: Tensor,
    partner_N: Tensor,
    share: float,
    centre: NDArray[np.float64],
    *,
    union: bool = False,
) -> tuple[Tensor, Tensor]:
    """A box of 1 - ``share`` of the area, cut off at the border, pasted from each image's partner.

    Yun et al., "CutMix", ICCV 2019. Labels are weighted by the areas that are really there; with
    ``union`` both sets of labels count in full, which marks objects that the box may have hidden.

    Args:
        images: (N, H, W, 3) or (N, 3, H, W).
        targets_NK: in [0, 1].
        partner_N: a permutation of the batch.
        share: of the area that is kept, before the box is cut off at the border.
        centre: of the box, down and across, in [0, 1).
        union: see above.
    """
    first = 1 if images.shape[-1] == 3 else 2
    height, width = images.shape[first : first + 2]
    side = np.sqrt(1 - share)
    (top, bottom), (left, right) = (
        np.clip([int(c * n) - int(side * n) // 2, int(c * n) + int(side * n) // 2], 0, n)
        for c, n in zip(centre, (height, width), strict=True)
    )
    box = (slice(None),) * first + (slice(top, bottom), slice(left, right))
    mixed = images.clone()
    mixed[box] = images[partner_N][box]
    if union:
        return mixed, torch.maximum(targets_NK, targets_NK[partner_N])
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, torch.lerp(targets_NK[partner_N], targets_NK, kept)
