"""Mixup and CutMix for multi-hot targets: two images in one, with soft labels.

Partners are neighbours in the global batch: 0 with 1, 2 with 3, … (a last one without a partner stays as it
is). The order of an epoch is drawn anew, so every pair is as random as any other, and each image gives to
its partner what it takes from it: no label gains or loses by mixing. Since pairs and shares follow from the
seed, the step and the place in the *global* batch, any number of workers trains on the same images. A rank
whose share of the batch cuts a pair in two borrows the missing half from its neighbour's share (one or two
images, only where shares are odd; see :func:`widen_to_pairs`), and drops it after mixing.
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
    """How each of N images is mixed with its partner; the two of a pair alike.

    ``params[a:b]`` are those of images a to b, with a even.
    """

    mixup_N: NDArray[np.float32]
    """Mixup: the share of the partner, in [0, 1]; 0 where CutMix acts."""
    cutmix_N: NDArray[np.float32]
    """CutMix: the share of the partner in the area, before its box is cut off at the border; 0 for Mixup."""
    center_N2: NDArray[np.float32]
    """CutMix: the middle of the box, down and across, in [0, 1)."""
    union: bool
    """CutMix: whether both sets of labels count in full."""

    def __len__(self) -> int:
        return len(self.mixup_N)

    def __getitem__(self, part: slice) -> MixParams:
        assert part.start % 2 == 0, "a pair is cut in two"
        return MixParams(self.mixup_N[part], self.cutmix_N[part], self.center_N2[part], self.union)


def uses_mix(config: AugmentConfig) -> bool:
    """Whether ``config`` asks for Mixup or CutMix."""
    return config.mixup_alpha > 0 or config.cutmix_alpha > 0


def widen_to_pairs(share: slice, rows: int) -> slice:
    """``share`` of a global batch of ``rows``, widened to whole pairs."""
    return slice(share.start - share.start % 2, min(share.stop + share.stop % 2, rows))


def draw_mix_params(config: AugmentConfig, rows: int, seed: int, step: int) -> MixParams | None:
    """For the global batch of ``step``; None when ``config`` asks for neither.

    The share is drawn for each pair, as both papers' formulas have it, from Beta(alpha, alpha). With both
    alphas above 0 a coin decides for each pair.
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
    """Each image with a part of its partner, and the labels that go with it.

    Mixup (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018) blends two images and their
    labels. CutMix (Yun et al., "CutMix", ICCV 2019) pastes a box of the partner; labels are weighted by the
    areas that are really there. With ``union`` both sets of labels count in full, which marks objects that
    the box may have hidden.

    Args:
        images: (N, H, W, 3) or (N, 3, H, W); uint8 stays uint8, rounded.
        targets_NK: in [0, 1].
        params: None leaves all as it is.

    Returns:
        Images of the same shape and type, and float32 targets (N, K) in [0, 1].
    """
    targets_NK = targets_NK.float()
    if params is None:
        return images, targets_NK
    assert len(images) == len(params)
    color = 3 if images.shape[-1] == 3 else 1
    height, width = (images.shape[1:3]) if color == 3 else images.shape[2:]
    weight_NHW, area_N = partner_weights(params, height, width)
    weight = torch.from_numpy(weight_NHW).to(images.device, non_blocking=True).unsqueeze(color)
    partner_N = torch.from_numpy(partner_index(len(images))).to(images.device, non_blocking=True)
    mixed = torch.lerp(images.float(), images[partner_N].float(), weight)
    if images.dtype == torch.uint8:
        mixed = mixed.round_().to(torch.uint8)
    area_N1 = torch.from_numpy(area_N).to(images.device, non_blocking=True)[:, None]
    soft_NK = torch.lerp(targets_NK, targets_NK[partner_N], area_N1)
    if params.union:
        # a box can be smaller than a pixel or cover all: then only one of the two is there
        both_N = (params.cutmix_N > 0) & (area_N > 0) & (area_N < 1)
        both_N1 = torch.from_numpy(both_N).to(images.device, non_blocking=True)[:, None]
        soft_NK = torch.where(both_N1, torch.maximum(targets_NK, targets_NK[partner_N]), soft_NK)
    return mixed, soft_NK


def partner_index(count: int) -> NDArray[np.int64]:
    """Each image's partner, shape (count,); a last one without any is its own."""
    partner_N: NDArray[np.int64] = np.minimum(np.arange(count) ^ 1, count - 1)
    return partner_N


def partner_weights(
    params: MixParams, height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The partner's part in each pixel, (N, H, W) or (N, 1, 1) where it is everywhere the same; in all, (N,).

    CutMix's box has the proportions of the image, whole pixels, and ends at the border.
    """
    if not params.cutmix_N.any():
        return params.mixup_N[:, None, None], params.mixup_N
    inside = []
    for axis, size in enumerate((height, width)):
        middle_N1 = (params.center_N2[:, axis] * size).astype(np.int64)[:, None]
        half_N1 = (np.sqrt(params.cutmix_N) * size).astype(np.int64)[:, None] // 2
        place_S = np.arange(size)
        inside.append((place_S >= middle_N1 - half_N1) & (place_S < middle_N1 + half_N1))
    box_NHW = inside[0][:, :, None] & inside[1][:, None, :]
    area_N = box_NHW.mean(axis=(1, 2), dtype=np.float32)
    weight_NHW = np.where(box_NHW, np.float32(1), params.mixup_N[:, None, None])
    return weight_NHW, np.where(params.cutmix_N > 0, area_N, params.mixup_N)
