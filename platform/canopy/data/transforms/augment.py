"""Batched augmentation, parameters drawn per image; the same kernels on CPU and GPU.

:func:`draw_params` makes the parameters of a whole (global) batch from a numpy generator, :func:`apply_augmentation` carries
them out. Drawing is apart from doing, so that rank r can take slice r of a batch drawn globally, and so
that the Ray Data stream and the training device give equal batches for one seed.

Parameters are copied to a GPU without waiting (``non_blocking``): a copy that waits would wait for all work
that the GPU has been given.

Images are uint8 of shape (N, H, W, 3), as decoded, before and after; :func:`normalise` turns them into
what a network takes. Where only flips, turns and crops are asked for, pixels are moved and never
computed with.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from canopy.config import AugmentConfig
from canopy.data.transforms.color import adjust_hue, apply_color_matrix, color_matrix, to_grayscale
from canopy.data.transforms.geometric import apply_geometry

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CACHED_FLOATS = 2**18


@dataclass(frozen=True)
class AugmentParams:
    """One value per image; an array is None where the config does not ask for that step.

    ``params[a:b]`` are those of images a to b.
    """

    rows: int
    symmetry_N: NDArray[np.int64] | None
    """Element of D4, as :func:`canopy.data.transforms.geometric.apply_geometry` has it."""
    shift_N2: NDArray[np.int64] | None
    """Where the crop begins, down and to the right, in pixels, within ± padding."""
    angle_N: NDArray[np.float32] | None
    """Counter-clockwise rotation in radians."""
    color_N33: NDArray[np.float32] | None
    """Matrix for RGB columns: brightness, contrast and saturation in one."""
    mean_luma_N: NDArray[np.float32] | None
    """How much of the image's own mean luma is added to every channel (the rest of contrast)."""
    hue_N: NDArray[np.float32] | None
    """By what part of the circle the hue is turned."""
    gray_N: NDArray[np.bool_] | None
    """Whether the colour is lost."""
    blur_N: NDArray[np.float32] | None
    """Sigma of a 3x3 gaussian in pixels; 0 leaves the image sharp."""
    place_N2: NDArray[np.float64] | None = None
    """Where the square of ``crop`` pixels is cut out, down and to the right, in [0, 1) of the room it has."""
    crop: int | None = None
    """Height and width that are cut out, first of all."""

    def __len__(self) -> int:
        return self.rows

    @property
    def compute(self) -> bool:
        """Whether pixels are computed with, not only moved."""
        steps = (self.angle_N, self.color_N33, self.hue_N, self.gray_N, self.blur_N)
        return any(step is not None for step in steps)

    def __getitem__(self, part: slice) -> AugmentParams:
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in {"rows", "crop"}}
        rows = len(range(self.rows)[part])
        parts = {k: None if v is None else v[part] for k, v in arrays.items()}
        return AugmentParams(rows, **parts, crop=self.crop)


def draw_params(config: AugmentConfig, rows: int, rng: np.random.Generator) -> AugmentParams:
    """Parameters for ``rows`` images.

    Every random number is drawn whether used or not, so that two configs given equal generators differ
    only in the steps that one of them leaves out.
    """
    symmetry_N = rng.integers(0, 8, rows)
    place_N2 = rng.uniform(size=(rows, 2))
    angle_N = rng.uniform(-1, 1, rows)
    brightness_N, contrast_N, saturation_N, hue_N = rng.uniform(-1, 1, (4, rows))
    gray_N, blurred_N = rng.uniform(size=(2, rows))
    sigma_N = rng.uniform(0.1, 2.0, rows)

    padding = config.crop_padding
    color_N33, mean_luma_N = None, None
    if config.brightness or config.contrast or config.saturation:
        color_N33, mean_luma_N = color_matrix(
            1 + config.brightness * brightness_N,
            1 + config.contrast * contrast_N,
            1 + config.saturation * saturation_N,
        )
    return AugmentParams(
        rows=rows,
        symmetry_N=symmetry_N if config.flips else None,
        shift_N2=np.floor(place_N2 * (2 * padding + 1)).astype(np.int64) - padding if padding else None,
        angle_N=np.radians(config.rotate_degrees * angle_N).astype(np.float32)
        if config.rotate_degrees
        else None,
        color_N33=color_N33,
        mean_luma_N=mean_luma_N if config.contrast else None,
        hue_N=(config.hue * hue_N).astype(np.float32) if config.hue else None,
        gray_N=gray_N < config.grayscale if config.grayscale else None,
        blur_N=np.where(blurred_N < config.blur, sigma_N, 0).astype(np.float32) if config.blur else None,
        place_N2=place_N2 if config.crop else None,
        crop=config.crop,
    )


def computes_pixels(config: AugmentConfig) -> bool:
    """Whether it computes with pixels, which takes milliseconds per image, not only moves them."""
    steps = (config.rotate_degrees, config.brightness, config.contrast, config.saturation, config.hue)
    return any((*steps, config.grayscale, config.blur))


def apply_augmentation(images_NHWC: Tensor, params: AugmentParams, out_NHWC: Tensor | None = None) -> Tensor:
    """Augmented images, uint8 of the same shape (cut to ``crop`` where there is one) and device.

    Args:
        images_NHWC: uint8 (N, H, W, 3).
        params: of N images.
        out_NHWC: on a processor, where the result goes; None makes room for it.

    Raises:
        AssertionError: when the images are not uint8 (N, H, W, 3), or not one per parameter.
    """
    assert images_NHWC.dtype == torch.uint8
    assert images_NHWC.ndim == 4
    assert images_NHWC.shape[0] == len(params)
    moves = params.symmetry_N, params.shift_N2, params.place_N2, params.crop
    if not params.compute:
        return apply_geometry(images_NHWC, *moves, out_NHWC)
    images_NHWC = apply_geometry(images_NHWC, *moves)
    # a processor's cache holds the floats of a few images, and a GPU wants them all at once
    step = (
        max(1, CACHED_FLOATS // images_NHWC[0].numel()) if images_NHWC.device.type == "cpu" else len(params)
    )
    parts = [slice(start, start + step) for start in range(0, len(params), step)]
    computed_nHWC = [_compute(images_NHWC[part], params[part]) for part in parts]
    return torch.cat(computed_nHWC, out=out_NHWC)


def _compute(images_NHWC: Tensor, params: AugmentParams) -> Tensor:
    """The steps that compute with pixels, in float32 between uint8 and uint8."""
    x_NCHW = images_NHWC.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    if params.angle_N is not None:
        x_NCHW = rotate(x_NCHW, params.angle_N)
    if params.color_N33 is not None:
        x_NCHW = apply_color_matrix(x_NCHW, params.color_N33, params.mean_luma_N)
    if params.hue_N is not None:
        x_NCHW = adjust_hue(x_NCHW, params.hue_N)
    if params.gray_N is not None:
        x_NCHW = to_grayscale(x_NCHW, params.gray_N)
    if params.blur_N is not None:
        x_NCHW = gaussian_blur(x_NCHW, params.blur_N)
    return x_NCHW.add_(0.5).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def normalize(images_NHWC: Tensor) -> Tensor:
    """float32 (N, 3, H, W) by ImageNet's mean and deviation, from uint8 (N, H, W, 3), on the same device.

    The result is in channels-last memory order, which costs no copy.
    """
    count, height, width, channels = images_NHWC.shape
    scale, offset = scale_and_offset(width, images_NHWC.device)
    x = images_NHWC.reshape(count, height, width * channels).float().mul_(scale).sub_(offset)
    return x.view(count, height, width, channels).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def scale_and_offset(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """ImageNet's normalisation of rows of ``width`` pixels, (3 width,) each: loops over channels are slow.

    Kept, since a constant that is made on a GPU makes the processor wait for all that it has asked for.
    """
    mean_C, std_C = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    scale, offset = (1 / (255 * std_C)).repeat(width), (mean_C / std_C).repeat(width)
    return scale.to(device), offset.to(device)


def rotate(x_NCHW: Tensor, angle_N: NDArray[np.float32]) -> Tensor:
    """Each image turned about its centre, bilinear, reflected at the border."""
    _, _, height, width = x_NCHW.shape
    angle_N11 = torch.from_numpy(angle_N).to(x_NCHW.device, non_blocking=True)[:, None, None]
    cos_N11, sin_N11 = torch.cos(angle_N11), torch.sin(angle_N11)
    y_H1 = (torch.arange(height, device=x_NCHW.device) - (height - 1) / 2)[:, None]
    x_1W = (torch.arange(width, device=x_NCHW.device) - (width - 1) / 2)[None, :]
    from_x_NHW = (cos_N11 * x_1W - sin_N11 * y_H1) * (2 / width)
    from_y_NHW = (sin_N11 * x_1W + cos_N11 * y_H1) * (2 / height)
    grid_NHW2 = torch.stack((from_x_NHW, from_y_NHW), dim=3)
    return torch.nn.functional.grid_sample(
        x_NCHW, grid_NHW2, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def gaussian_blur(x_NCHW: Tensor, sigma_N: NDArray[np.float32]) -> Tensor:
    """A 3x3 gaussian of its own sigma over each image, reflected at the border; sigma 0 is left alone."""
    chosen = np.flatnonzero(sigma_N)
    if len(chosen) == 0:
        return x_NCHW
    index = torch.from_numpy(chosen).to(x_NCHW.device, non_blocking=True)
    side_N = np.exp(-0.5 / sigma_N[chosen].astype(np.float64) ** 2)
    edge = torch.from_numpy((side_N / (1 + 2 * side_N)).astype(np.float32))
    edge = edge.to(x_NCHW.device, non_blocking=True)[:, None, None, None]
    part = torch.nn.functional.pad(x_NCHW[index], (1, 1, 1, 1), mode="reflect")
    part = edge * (part[:, :, :, :-2] + part[:, :, :, 2:]) + (1 - 2 * edge) * part[:, :, :, 1:-1]
    part = edge * (part[:, :, :-2] + part[:, :, 2:]) + (1 - 2 * edge) * part[:, :, 1:-1]
    return x_NCHW.index_copy(0, index, part)
