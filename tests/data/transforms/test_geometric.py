"""Crops, shifts, flips and turns against torch, in the implementations for CPU and GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from canopy.config import AUGMENT_PRESETS, AugmentConfig
from canopy.data.loading.augment_chunks import gather_and_augment
from canopy.data.transforms.augment import apply_augmentation, draw_params
from canopy.data.transforms.crop import crop_at
from canopy.data.transforms.geometric import apply_geometry, apply_geometry_cpu, apply_geometry_gpu


def chips(count: int, size: int = 24) -> torch.Tensor:
    """Noise, uint8 (N, H, W, 3)."""
    return torch.randint(0, 256, (count, size, size, 3), generator=torch.manual_seed(0)).to(torch.uint8)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_eight_symmetries_differ_and_only_move_pixels() -> None:
    image = chips(1)
    turned = apply_geometry(image.repeat(8, 1, 1, 1), np.arange(8))
    expected = [torch.rot90(flipped, k, (0, 1)) for k in range(4) for flipped in (image[0], image[0].flip(1))]
    assert {t.numpy().tobytes() for t in turned} == {t.contiguous().numpy().tobytes() for t in expected}
    assert torch.equal(turned[1], image[0].flip(1))
    assert torch.equal(turned[2], image[0].flip(0))
    assert torch.equal(turned[4], image[0].transpose(0, 1))


def test_a_shift_is_reflect_padding_and_cropping() -> None:
    images, shift_N2 = chips(4), np.array([[0, 0], [-3, 2], [5, -5], [1, 4]])
    shifted = apply_geometry(images, None, shift_N2).permute(0, 3, 1, 2)
    padded = torch.nn.functional.pad(images.permute(0, 3, 1, 2).float(), (5, 5, 5, 5), mode="reflect")
    for n, (down, right) in enumerate((shift_N2 + 5).tolist()):
        assert torch.equal(shifted[n].float(), padded[n, :, down : down + 24, right : right + 24])


@pytest.mark.parametrize("size", [1, 2, 3, 16, 24, 31, 224])
@pytest.mark.parametrize("padding", [0, 1, 7, 40])
def test_cpu_and_gpu_kernels_are_equal(padding: int, size: int) -> None:
    images, generator = chips(40, size), rng()
    symmetry_N, shift_N2 = generator.integers(0, 8, 40), generator.integers(-padding, padding + 1, (40, 2))
    moved = apply_geometry(images, symmetry_N, shift_N2)
    assert torch.equal(moved, apply_geometry_gpu(images, symmetry_N, shift_N2))
    out = torch.zeros_like(images)
    assert apply_geometry(images, symmetry_N, shift_N2, out_NHWC=out) is out
    assert torch.equal(out, moved)


@pytest.mark.parametrize("crop", [1, 10, 23, 24])
def test_cpu_and_gpu_kernels_crop_equally(crop: int) -> None:
    images, symmetry_N, position_N2 = chips(40), rng().integers(0, 8, 40), rng().uniform(size=(40, 2))
    moved = apply_geometry(images, symmetry_N, None, position_N2, crop)
    assert torch.equal(moved, apply_geometry_gpu(crop_at(images, crop, position_N2), symmetry_N, None))
    assert torch.equal(
        apply_geometry(images, None, None, position_N2, crop).contiguous(), crop_at(images, crop, position_N2)
    )


def test_images_that_are_not_square_may_flip_but_not_transpose() -> None:
    images = chips(3)[:, :, :17]
    flipped = apply_geometry(images, np.array([0, 1, 2]))
    assert torch.equal(flipped[1], images[1].flip(1))
    with pytest.raises(AssertionError):
        apply_geometry(images, np.array([0, 1, 4]))


def test_a_target_of_the_wrong_size_is_an_error() -> None:
    images = chips(8).numpy()
    with pytest.raises(AssertionError):
        apply_geometry_cpu(images, np.arange(8), np.arange(8), None, None, np.zeros((8, 25, 25, 3), np.uint8))


@pytest.mark.parametrize(
    "config",
    [*AUGMENT_PRESETS.values(), AugmentConfig(crop_padding=3), AugmentConfig(crop=10)],
    ids=[*AUGMENT_PRESETS, "shifts", "crop"],
)
def test_gathering_with_augmentation_equals_gathering_first(tmp_path: Path, config: AugmentConfig) -> None:
    """Chips come from a read-only mapped file; rows have any order and repeat."""
    np.save(tmp_path / "chips.npy", chips(30).numpy())
    mapped = np.load(tmp_path / "chips.npy", mmap_mode="r").view(np.ndarray)
    rows_N = rng().integers(0, 30, 50)
    for params in (draw_params(config, 50, rng()), None):
        side = (config.crop or 24) if params is not None else 24
        out = np.zeros((50, side, side, 3), np.uint8)
        gather_and_augment(out, mapped, rows_N, params)
        gathered = torch.from_numpy(mapped[rows_N])
        expected = gathered if params is None else apply_augmentation(gathered, params)
        np.testing.assert_array_equal(out, expected.numpy())
    np.testing.assert_array_equal(mapped, chips(30).numpy())


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 12, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_chips_of_any_number_of_bands_turn_alike(channels: int, dtype: type) -> None:
    samples = rng().integers(0, np.iinfo(dtype).max, (16, 12, 12, channels), endpoint=True)
    images = torch.from_numpy(samples.astype(dtype))
    symmetry_N, shift_N2 = np.arange(16) % 8, rng().integers(-3, 4, (16, 2))
    moved = apply_geometry(images, symmetry_N, shift_N2)
    assert moved.dtype == images.dtype
    np.testing.assert_array_equal(moved, apply_geometry_gpu(images, symmetry_N, shift_N2))
    for band in range(channels):  # each band moves as a chip of one band
        alone = apply_geometry(images[..., band : band + 1].contiguous(), symmetry_N, shift_N2)
        np.testing.assert_array_equal(moved[..., band : band + 1], alone)
