"""Mixup and CutMix: soft labels, and equal batches for any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from canopy.config import AugmentConfig
from canopy.data.loading.batch_sampler import rank_slice
from canopy.data.transforms.mixup import MixParams, apply_mix, draw_mix_params, widen_to_pairs

BOTH = AugmentConfig(mixup_alpha=0.4, cutmix_alpha=1.0)


def chips(count: int = 8, size: int = 10) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)


def targets(count: int = 8, labels: int = 5) -> Tensor:
    return (torch.rand(count, labels, generator=torch.Generator().manual_seed(1)) < 0.4).float()


def params(count: int, mixup: float = 0, cutmix: float = 0, union: bool = False) -> MixParams:
    """Parameters that are equal for all images, with central boxes."""
    center_N2 = np.full((count, 2), 0.5, np.float32)
    return MixParams(np.full(count, mixup, np.float32), np.full(count, cutmix, np.float32), center_N2, union)


def test_mixup_by_hand() -> None:
    images = torch.tensor([0.0, 100.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    y_NK = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    mixed, soft_NK = apply_mix(images, y_NK, params(2, mixup=0.3))
    torch.testing.assert_close(mixed[:, 0, 0, 0], torch.tensor([30.0, 70.0]))
    torch.testing.assert_close(soft_NK, torch.tensor([[0.7, 0, 1], [0.3, 0, 1]]))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_cutmix_labels_are_weighted_by_the_visible_area(layout: str) -> None:
    shape, dtype = ((2, 10, 10, 5), torch.uint16) if layout == "NHWC" else ((2, 5, 10, 10), torch.float32)
    images = torch.tensor([0, 1]).view(2, 1, 1, 1).expand(shape).to(dtype)
    y_NK = torch.tensor([[1.0, 0], [0, 1]])
    for share, center in ((0.25, (0.5, 0.5)), (0.6, (0.05, 0.95)), (1.0, (0.5, 0.5)), (0.0, (0.3, 0.3))):
        drawn = params(2, cutmix=share)
        drawn.center_N2[:] = center
        mixed, soft_NK = apply_mix(images, y_NK, drawn)
        pasted = float(mixed[0].float().mean())  # the share of ones in the image of zeros
        torch.testing.assert_close(soft_NK, torch.tensor([[1 - pasted, pasted], [pasted, 1 - pasted]]))
        if center == (0.5, 0.5):
            assert pasted == pytest.approx(share, abs=0.1)
        elif share:
            assert 0 < pasted < share, "cut off at the border"
    assert images[0].float().max() == 0, "the input is left alone"


def test_cutmix_union_keeps_both_labels_and_mixup_does_not() -> None:
    y_NK = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    images = chips(2)
    _, union_NK = apply_mix(images, y_NK, params(2, cutmix=0.5, union=True))
    torch.testing.assert_close(union_NK, torch.tensor([[1.0, 1, 0], [1, 1, 0]]))
    nothing_pasted, own_NK = apply_mix(images, y_NK, params(2, cutmix=1e-4, union=True))
    assert torch.equal(nothing_pasted, images)
    torch.testing.assert_close(own_NK, y_NK)
    exchanged, others_NK = apply_mix(images, y_NK, params(2, cutmix=1.0, union=True))
    assert torch.equal(exchanged, images.flip(0)), "the box covers all"
    torch.testing.assert_close(others_NK, y_NK.flip(0))
    _, soft_NK = apply_mix(images, y_NK, params(2, mixup=0.5, union=True))
    torch.testing.assert_close(soft_NK, torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0]]))


@pytest.mark.parametrize("alphas", [(0.2, 0), (0, 1.0), (0.2, 1.0)], ids=str)
def test_mixing_keeps_label_frequencies_and_is_reproducible(alphas: tuple[float, float]) -> None:
    config = AugmentConfig(mixup_alpha=alphas[0], cutmix_alpha=alphas[1])
    images, y_NK = chips(9), targets(9)
    mixed, soft_NK = apply_mix(images, y_NK, draw_mix_params(config, 9, seed=2, step=7))
    again, soft_again_NK = apply_mix(images, y_NK, draw_mix_params(config, 9, seed=2, step=7))
    assert torch.equal(mixed, again)
    assert torch.equal(soft_NK, soft_again_NK)
    assert mixed.dtype == torch.uint8
    assert ((soft_NK >= 0) & (soft_NK <= 1)).all()
    # each image gives what it takes, so every label's total stays
    torch.testing.assert_close(soft_NK.sum(0), y_NK.sum(0))
    assert torch.equal(mixed[8], images[8]), "the last of nine has no partner"
    for seed, step in ((3, 7), (2, 8)):
        other, _ = apply_mix(images, y_NK, draw_mix_params(config, 9, seed, step))
        assert not torch.equal(mixed, other)


def test_shares_differ_between_pairs_and_follow_their_distribution() -> None:
    drawn = draw_mix_params(AugmentConfig(mixup_alpha=0.4), 40_000, seed=0, step=0)
    assert drawn is not None
    pairs_P2 = drawn.mixup_N.reshape(-1, 2)
    assert (pairs_P2[:, 0] == pairs_P2[:, 1]).all()
    assert len(np.unique(pairs_P2[:, 0])) > 10_000
    assert pairs_P2.mean() == pytest.approx(0.5, abs=0.01)
    assert pairs_P2.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.03)  # of Beta(0.4, 0.4)


def test_mixup_and_cutmix_are_equally_likely() -> None:
    drawn = draw_mix_params(BOTH, 20_000, seed=0, step=0)
    assert drawn is not None
    cut_N, blended_N = drawn.cutmix_N > 0, drawn.mixup_N > 0
    assert not (cut_N & blended_N).any()
    assert cut_N.mean() == pytest.approx(0.5, abs=0.02)
    images = torch.tensor([0, 250] * 10).view(20, 1, 1, 1).expand(20, 8, 8, 3).to(torch.uint8)
    mixed, _ = apply_mix(images, targets(20), drawn[0:20])
    for n in range(20):
        if cut_N[n]:
            assert set(mixed[n].flatten().tolist()) <= {0, 250}, "pasted, not blended"


def test_no_mixing_changes_nothing() -> None:
    images, y_NK = chips(), targets()
    assert draw_mix_params(AugmentConfig(), 8, 0, 0) is None
    mixed, soft_NK = apply_mix(images, y_NK, None)
    assert mixed is images
    assert torch.equal(soft_NK, y_NK)


@pytest.mark.parametrize("rows", [8, 12, 13])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_mix_the_same_images_as_one_process(rows: int, world: int) -> None:
    """The images and targets of all ranks equal those of the global batch, bit by bit."""
    images, y_NK = chips(rows).float().permute(0, 3, 1, 2), targets(rows)
    drawn = draw_mix_params(BOTH, rows, seed=1, step=3)
    assert drawn is not None
    whole, whole_NK = apply_mix(images, y_NK, drawn)
    parts: list[NDArray[np.float32]] = []
    parts_NK: list[NDArray[np.float32]] = []
    borrowed = 0
    for rank in range(world):
        share = rank_slice(rows, rank, world)
        part = widen_to_pairs(share, rows)
        borrowed += (part.stop - part.start) - (share.stop - share.start)
        mine, mine_NK = apply_mix(images[part], y_NK[part], drawn[part])
        own = slice(share.start - part.start, share.stop - part.start)
        parts.append(mine[own].numpy())
        parts_NK.append(mine_NK[own].numpy())
    np.testing.assert_array_equal(np.concatenate(parts), whole.numpy())
    np.testing.assert_array_equal(np.concatenate(parts_NK), whole_NK.numpy())
    assert borrowed <= 2 * (world - 1)
    assert borrowed == 0 or (rows / world) % 2, "even shares borrow nothing"
