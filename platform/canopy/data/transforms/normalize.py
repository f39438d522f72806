"""Input normalization of every network, in training and inference: by ImageNet's or the bands' statistics."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from canopy.bands import BandStatistics

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(images_NHWC: Tensor, bands: BandStatistics | None = None) -> Tensor:
    """Normalize chips to float32 (N, C, H, W): subtract each band's mean, divide by its standard deviation.

    For RGB (uint8, ``bands`` None) these are ImageNet's; for C bands those of the run's training rows. The
    result stays on the device and is in channels-last memory order, which costs no copy.
    """
    count, height, width, channels = images_NHWC.shape
    scale, offset = scale_and_offset(width, images_NHWC.device, bands)
    x = images_NHWC.reshape(count, height, width * channels).float().mul_(scale).sub_(offset)
    return x.view(count, height, width, channels).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def scale_and_offset(
    width: int, device: torch.device, bands: BandStatistics | None = None
) -> tuple[Tensor, Tensor]:
    """Scale and offset of :func:`normalize` for rows of ``width`` pixels, (C * width,) each.

    Whole rows are used because loops over three channels are slow. The result is cached because creating a
    constant on a GPU waits for all queued work.
    """
    if bands is not None:
        mean_C, std_C = torch.tensor(bands.mean), torch.tensor(bands.std)
        scale, offset = (1 / std_C).repeat(width), (mean_C / std_C).repeat(width)
        return scale.to(device), offset.to(device)
    mean_C, std_C = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    scale, offset = (1 / (255 * std_C)).repeat(width), (mean_C / std_C).repeat(width)
    return scale.to(device), offset.to(device)
