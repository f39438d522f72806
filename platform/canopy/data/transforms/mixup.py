"""Mixup and CutMix for multi-hot targets: two images in one, with soft labels.

Neighbors in the global batch are partners: 0 with 1, 2 with 3, …; a last image without a partner is not
mixed. Each epoch has another order, so pairs are random. Both images of a pair are mixed with the same
share, so mixing does not change label frequencies. Pairs and shares depend on the seed, the step and the
position in the *global* batch, so any number of ranks trains on the same images. If a rank's share of the
batch splits a pair, the rank also loads the missing image (:func:`widen_to_pairs`) and drops it after
mixing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from canopy.config import AugmentConfig


@dataclass(frozen=True)
class MixParams:
    """Mixing parameters of N images; both images of a pair have the same.

    ``params[a:b]`` are the parameters of images a to b - 1; a must be even.
    """

    mixup_N: NDArray[np.float32]
    """Mixup: share of the partner, in [0, 1]; 0 for CutMix."""
    cutmix_N: NDArray[np.float32]
    """CutMix: share of the box in the area before it is clipped at the border, in [0, 1]; 0 for Mixup."""
    center_N2: NDArray[np.float32]
    """CutMix: center of the box, down and to the right, in [0, 1)."""
    union: bool
    """CutMix: whether the targets are the union of both label sets."""

    def __len__(self) -> int:
        return len(self.mixup_N)

    def __getitem__(self, part: slice) -> MixParams:
        assert part.start % 2 == 0, "the slice splits a pair"
        return MixParams(self.mixup_N[part], self.cutmix_N[part], self.center_N2[part], self.union)


def uses_mix(config: AugmentConfig) -> bool:
    """Whether ``config`` has Mixup or CutMix."""
    return config.mixup_alpha > 0 or config.cutmix_alpha > 0


def widen_to_pairs(share: slice, rows: int) -> slice:
    """``share``, a slice of a global batch of ``rows`` images, widened to whole pairs."""
    return slice(share.start - share.start % 2, min(share.stop + share.stop % 2, rows))


def draw_mix_params(config: AugmentConfig, rows: int, seed: int, step: int) -> MixParams | None:
    """Draw the parameters of the global batch of ``step``; None without Mixup and CutMix.

    The share of each pair is drawn from Beta(alpha, alpha), as in both papers. If both alphas are above 0,
    each pair uses Mixup or CutMix with equal probability.

    Args:
        config: augmentation.
        rows: size of the global batch.
        seed: base seed; each step derives its own.
        step: step of the training.
    """
    if not uses_mix(config):
        return None
    rng = np.random.default_rng([seed, step, 0x319])
    pairs = (rows + 1) // 2
    coin_P, center_P2 = rng.uniform(size=pairs), rng.uniform(size=(pairs, 2))
    mixup_P, cutmix_P = (
        rng.beta(alpha, alpha, pairs) if alpha > 0 else np.zeros(pairs)
        for alpha in (config.mixup_alpha, config.cutmix_alpha)
    )
    if config.mixup_alpha > 0 and config.cutmix_alpha > 0:
        mixup_P, cutmix_P = np.where(coin_P < 0.5, mixup_P, 0), np.where(coin_P < 0.5, 0, cutmix_P)
    mixup_N, cutmix_N, center_N2 = (
        np.repeat(array, 2, axis=0)[:rows].astype(np.float32) for array in (mixup_P, cutmix_P, center_P2)
    )
    return MixParams(mixup_N, cutmix_N, center_N2, config.cutmix_labels == "union")


def apply_mix(images: Tensor, targets_NK: Tensor, params: MixParams | None) -> tuple[Tensor, Tensor]:
    """Mix each image and its targets with those of its partner.

    Mixup blends two images and their labels. CutMix pastes a box of the partner; the labels are weighted by
    the areas after clipping. With ``union``, the targets are the union of both label sets, although the box
    may hide an object.

    Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al., "CutMix",
        ICCV 2019.

    Args:
        images: floats (N, C, H, W), or integers (N, H, W, C), which stay integers, rounded.
        targets_NK: targets in [0, 1].
        params: parameters of the N images; None mixes nothing.

    Returns:
        Images of the same shape and type; float32 targets (N, K) in [0, 1].
    """
    targets_NK = targets_NK.float()
    if params is None:
        return images, targets_NK
    assert len(images) == len(params)
    channel = 1 if images.is_floating_point() else 3
    height, width = images.shape[2:] if channel == 1 else images.shape[1:3]
    weight_NHW, area_N = partner_weights(params, height, width)
    weight = torch.from_numpy(weight_NHW).to(images.device, non_blocking=True).unsqueeze(channel)
    partner_N = torch.from_numpy(partner_index(len(images))).to(images.device, non_blocking=True)
    mixed = torch.lerp(images.float(), images.float()[partner_N], weight)
    if not images.is_floating_point():
        mixed = mixed.round_().to(images.dtype)
    area_N1 = torch.from_numpy(area_N).to(images.device, non_blocking=True)[:, None]
    soft_NK = torch.lerp(targets_NK, targets_NK[partner_N], area_N1)
    if params.union:
        # A box smaller than a pixel, or one that covers everything, leaves only one of the two images.
        both_N = (params.cutmix_N > 0) & (area_N > 0) & (area_N < 1)
        both_N1 = torch.from_numpy(both_N).to(images.device, non_blocking=True)[:, None]
        soft_NK = torch.where(both_N1, torch.maximum(targets_NK, targets_NK[partner_N]), soft_NK)
    return mixed, soft_NK


def partner_index(count: int) -> NDArray[np.int64]:
    """The index of each image's partner, shape (count,); a single last image is its own partner."""
    partner_N: NDArray[np.int64] = np.minimum(np.arange(count) ^ 1, count - 1)
    return partner_N


def partner_weights(
    params: MixParams, height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The partner's weight in each pixel and in the whole image.

    CutMix's box has the aspect ratio of the image and whole pixels, and is clipped at the border.

    Returns:
        Weights (N, H, W), or (N, 1, 1) if they are constant over each image; their mean over each image (N,).
    """
    if not params.cutmix_N.any():
        return params.mixup_N[:, None, None], params.mixup_N
    inside = []
    for axis, size in enumerate((height, width)):
        center_N1 = (params.center_N2[:, axis] * size).astype(np.int64)[:, None]
        half_N1 = (np.sqrt(params.cutmix_N) * size).astype(np.int64)[:, None] // 2
        position_S = np.arange(size)
        inside.append((position_S >= center_N1 - half_N1) & (position_S < center_N1 + half_N1))
    box_NHW = inside[0][:, :, None] & inside[1][:, None, :]
    area_N = box_NHW.mean(axis=(1, 2), dtype=np.float32)
    weight_NHW = np.where(box_NHW, np.float32(1), params.mixup_N[:, None, None])
    return weight_NHW, np.where(params.cutmix_N > 0, area_N, params.mixup_N)
