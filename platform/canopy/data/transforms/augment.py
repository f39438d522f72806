"""Batched augmentation with parameters per image; the same kernels on CPU and GPU.

:func:`draw_params` draws the parameters of a global batch from a numpy generator;
:func:`apply_augmentation` applies them. The two steps are separate so that rank r can take slice r of the
global parameters, and so that the Ray Data stream and the training device produce equal batches for one
seed.

Parameters are copied to a GPU without waiting (``non_blocking``): a blocking copy would wait for all work
that is queued on the GPU.

Images are uint8 of shape (N, H, W, 3), or uint8 or uint16 of shape (N, H, W, C) with C bands, before and
after; :func:`canopy.data.transforms.normalize.normalize` makes the input of a network.
Flips, quarter turns and crops move pixels and do not change their values.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from canopy.config import AugmentConfig
from canopy.data.transforms.color import adjust_hue, apply_color_matrix, color_matrix, to_grayscale
from canopy.data.transforms.geometric import apply_geometry
from canopy.data.transforms.noise import add_noise

CACHED_FLOATS = 2**18
"""Number of float32 values of the images that a CPU augments at once."""


@dataclass(frozen=True)
class AugmentParams:
    """Augmentation parameters of N images; an array is None if the config leaves the step out.

    ``params[a:b]`` are the parameters of images a to b - 1.
    """

    rows: int
    symmetry_N: NDArray[np.int64] | None
    """Element of the symmetry group D4, 0 to 7 (:func:`canopy.data.transforms.geometric.apply_geometry`)."""
    shift_N2: NDArray[np.int64] | None
    """Shift of the image, down and to the right, in pixels, within ± padding."""
    angle_N: NDArray[np.float32] | None
    """Counter-clockwise rotation in radians."""
    color_N33: NDArray[np.float32] | None
    """Matrix for RGB columns: brightness, contrast and saturation in one."""
    mean_luma_N: NDArray[np.float32] | None
    """Share of the image's mean luma that is added to every channel: the second part of contrast."""
    hue_N: NDArray[np.float32] | None
    """Shift of the hue in turns, -1 to 1."""
    gray_N: NDArray[np.bool_] | None
    """Whether the image becomes grayscale."""
    blur_N: NDArray[np.float32] | None
    """Sigma of a 3x3 Gaussian blur in pixels; 0 for none."""
    band_factor_NC: NDArray[np.float32] | None = None
    """C bands: factor of each band: brightness and contrast; 0 for a band that is dropped."""
    band_mean_NC: NDArray[np.float32] | None = None
    """C bands: share of the band's mean over the image that is added."""
    noise_NC: NDArray[np.float32] | None = None
    """Standard deviation of the noise of each band, in those of the band over the image."""
    noise_seed_N: NDArray[np.int64] | None = None
    """Seed of the image's noise."""
    position_N2: NDArray[np.float64] | None = None
    """Position of the crop, down and to the right, in [0, 1): 0 is the first possible corner."""
    crop: int | None = None
    """Height and width of the crop in pixels, which is the first step; None for no crop."""
    colors: tuple[int, int, int] | None = None
    """C bands: positions of red, green and blue, which the color steps change; None for RGB."""

    def __len__(self) -> int:
        return self.rows

    @property
    def computes_pixels(self) -> bool:
        """Whether a step changes pixel values, not only positions."""
        steps = (self.angle_N, self.color_N33, self.hue_N, self.gray_N, self.blur_N, self.band_factor_NC)
        return any(step is not None for step in (*steps, self.noise_NC))

    def __getitem__(self, part: slice) -> AugmentParams:
        shared = {"rows", "crop", "colors"}
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in shared}
        rows = len(range(self.rows)[part])
        parts = {k: None if v is None else v[part] for k, v in arrays.items()}
        return AugmentParams(rows, **parts, crop=self.crop, colors=self.colors)


def draw_params(
    config: AugmentConfig,
    rows: int,
    rng: np.random.Generator,
    bands: int | None = None,
    colors: tuple[int, int, int] | None = None,
) -> AugmentParams:
    """Draw parameters for ``rows`` images, at least 0; every array of the result has that length.

    ``bands`` is the number of bands of the images, None for RGB, and ``colors`` are the positions of red,
    green and blue among them. With bands, brightness, contrast and dropout are drawn for each band, after all
    other numbers, and the color steps need ``colors``. Noise is drawn last, and only if a step uses it.

    Every random number is drawn even if no step uses it. So two configs with equal generators differ only
    in the steps that one of them leaves out.
    """
    symmetry_N = rng.integers(0, 8, rows)
    position_N2 = rng.uniform(size=(rows, 2))
    angle_N = rng.uniform(-1, 1, rows)
    brightness_N, contrast_N, saturation_N, hue_N = rng.uniform(-1, 1, (4, rows))
    gray_N, blurred_N = rng.uniform(size=(2, rows))
    sigma_N = rng.uniform(0.1, 2.0, rows)

    padding = config.crop_padding
    color_N33, mean_luma_N = None, None
    band_factor_NC, band_mean_NC = None, None
    if bands is not None:
        colored = any(getattr(config, name) for name in AugmentConfig.COLOR_STEPS)
        assert colors is not None or not colored, "needs red, green and blue"
        band_factor_NC, band_mean_NC = _draw_bands(config, rows, bands, rng)
        if config.saturation:
            ones_N = np.ones(rows)
            color_N33, _ = color_matrix(ones_N, ones_N, 1 + config.saturation * saturation_N)
    elif config.brightness or config.contrast or config.saturation:
        color_N33, mean_luma_N = color_matrix(
            1 + config.brightness * brightness_N,
            1 + config.contrast * contrast_N,
            1 + config.saturation * saturation_N,
        )
    noise_NC, noise_seed_N = _draw_noise(config, rows, bands or 3, rng)
    return AugmentParams(
        rows=rows,
        symmetry_N=symmetry_N if config.flips else None,
        shift_N2=np.floor(position_N2 * (2 * padding + 1)).astype(np.int64) - padding if padding else None,
        angle_N=np.radians(config.rotate_degrees * angle_N).astype(np.float32)
        if config.rotate_degrees
        else None,
        color_N33=color_N33,
        mean_luma_N=mean_luma_N if config.contrast and bands is None else None,
        hue_N=(config.hue * hue_N).astype(np.float32) if config.hue else None,
        gray_N=gray_N < config.grayscale if config.grayscale else None,
        blur_N=np.where(blurred_N < config.blur, sigma_N, 0).astype(np.float32) if config.blur else None,
        band_factor_NC=band_factor_NC,
        band_mean_NC=band_mean_NC,
        noise_NC=noise_NC,
        noise_seed_N=noise_seed_N,
        position_N2=position_N2 if config.crop else None,
        crop=config.crop,
        colors=colors if bands is not None else None,
    )


def _draw_noise(
    config: AugmentConfig, rows: int, bands: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None]:
    """Deviation of each band's noise, and a seed for each image; None without noise."""
    if not config.noise:
        return None, None
    noise_NC = rng.uniform(0, config.noise, (rows, bands)).astype(np.float32)
    return noise_NC, rng.integers(-(2**63), 2**63 - 1, rows)


def _draw_bands(
    config: AugmentConfig, rows: int, bands: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """Factor and share of the mean for each band of each image; None without a step that needs them."""
    brightness_NC, contrast_NC = rng.uniform(-1, 1, (2, rows, bands))
    dropped_NC = rng.uniform(size=(rows, bands)) < config.band_dropout
    if not (config.brightness or config.contrast or config.band_dropout):
        return None, None
    gain_NC = 1 + config.brightness * brightness_NC
    blend_NC = np.where(dropped_NC, 0, 1 + config.contrast * contrast_NC)
    gain_NC = np.where(dropped_NC, 1, gain_NC)
    return (gain_NC * blend_NC).astype(np.float32), (gain_NC * (1 - blend_NC)).astype(np.float32)


def computes_pixels(config: AugmentConfig) -> bool:
    """Whether ``config`` has a step that changes pixel values, which takes milliseconds per image."""
    steps = (config.rotate_degrees, config.brightness, config.contrast, config.saturation, config.hue)
    return any((*steps, config.grayscale, config.blur, config.band_dropout, config.noise))


def apply_augmentation(images_NHWC: Tensor, params: AugmentParams, out_NHWC: Tensor | None = None) -> Tensor:
    """Augmented images of the same type and device, of the same shape or that of the crop.

    Args:
        images_NHWC: uint8 (N, H, W, 3), or uint8 or uint16 (N, H, W, C) with parameters for C bands.
        params: parameters of the N images.
        out_NHWC: on a CPU, array for the result; None allocates one.
    """
    assert images_NHWC.dtype in (torch.uint8, torch.uint16)
    assert images_NHWC.ndim == 4
    assert images_NHWC.shape[0] == len(params)
    geometry = params.symmetry_N, params.shift_N2, params.position_N2, params.crop
    if not params.computes_pixels:
        return apply_geometry(images_NHWC, *geometry, out_NHWC)
    images_NHWC = apply_geometry(images_NHWC, *geometry)
    # The floats of a few images fit into the cache of a CPU; a GPU takes all images at once.
    step = (
        max(1, CACHED_FLOATS // images_NHWC[0].numel()) if images_NHWC.device.type == "cpu" else len(params)
    )
    parts = [slice(start, start + step) for start in range(0, len(params), step)]
    computed_nHWC = [_compute(images_NHWC[part], params[part]) for part in parts]
    return torch.cat(computed_nHWC, out=out_NHWC)


def _compute(images_NHWC: Tensor, params: AugmentParams) -> Tensor:
    """Apply the steps that change pixel values, in float32."""
    x_NCHW = images_NHWC.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    highest = torch.iinfo(images_NHWC.dtype).max
    if params.angle_N is not None:
        x_NCHW = rotate(x_NCHW, params.angle_N)
    if params.colors is None:
        x_NCHW = _change_colors(x_NCHW, params)
    elif any(step is not None for step in (params.color_N33, params.hue_N, params.gray_N)):
        colors = list(params.colors)
        x_NCHW[:, colors] = _change_colors(x_NCHW[:, colors], params)
    # After the colors: they would bring a band that is dropped back.
    if params.band_factor_NC is not None and params.band_mean_NC is not None:
        x_NCHW = _adjust_bands(x_NCHW, params.band_factor_NC, params.band_mean_NC)
    if params.blur_N is not None:
        x_NCHW = gaussian_blur(x_NCHW, params.blur_N)
    if params.noise_NC is not None and params.noise_seed_N is not None:
        x_NCHW = add_noise(x_NCHW, params.noise_NC, params.noise_seed_N)
    return x_NCHW.add_(0.5).clamp_(0, highest).to(images_NHWC.dtype).permute(0, 2, 3, 1)


def _change_colors(x_N3HW: Tensor, params: AugmentParams) -> Tensor:
    """The color steps of red, green and blue."""
    if params.color_N33 is not None:
        x_N3HW = apply_color_matrix(x_N3HW, params.color_N33, params.mean_luma_N)
    if params.hue_N is not None:
        x_N3HW = adjust_hue(x_N3HW, params.hue_N)
    if params.gray_N is not None:
        x_N3HW = to_grayscale(x_N3HW, params.gray_N)
    return x_N3HW


def _adjust_bands(x_NCHW: Tensor, factor_NC: NDArray[np.float32], mean_NC: NDArray[np.float32]) -> Tensor:
    """Multiply each band by its factor, and add its share of its mean over the image."""
    factor, share = (
        torch.from_numpy(v).to(x_NCHW.device, non_blocking=True)[:, :, None, None]
        for v in (factor_NC, mean_NC)
    )
    mean = x_NCHW.mean(dim=(2, 3), keepdim=True)
    return torch.addcmul(share * mean, factor, x_NCHW)


def rotate(x_NCHW: Tensor, angle_N: NDArray[np.float32]) -> Tensor:
    """Rotate each image about its center by ``angle_N`` radians: bilinear, reflected at the border."""
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
    """Blur each image with a 3x3 Gaussian of sigma pixels, reflected at the border; sigma 0 for no blur."""
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
