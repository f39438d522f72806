"""Draws clouds and haze; :func:`expose` models light and sensor and gives the pixels of the file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from canopy.data.synthetic.scene import Scene
from canopy.data.synthetic.textures import Field, distance, fractal, noise, ramp, shifted, slope, turned

LEAST_VISIBLE = 0.5
"""Share of each label's pixels that broken clouds leave visible, at least."""


def partly_cloudy(scene: Scene) -> None:
    """Scattered cumulus with its shadows; drawn again with fewer clouds while it hides a label."""
    softness = scene.shape.uniform(0.3, 0.9)
    for attempt in range(4):
        thick_HW = _cumulus(scene, shrink=0.8**attempt)
        alpha_HW = ramp(thick_HW, softness)
        if all(_visible(seen_HW, alpha_HW) >= LEAST_VISIBLE for seen_HW in scene.evidence.values()):
            break
    away = scene.shape.uniform(0.06, 0.15)
    shadow_HW = shifted(alpha_HW, np.cos(scene.sun) * away, np.sin(scene.sun) * away)
    scene.shade(1 - np.float32(scene.shape.uniform(0.35, 0.6)) * shadow_HW)
    white = np.asarray(scene.tone((0.90, 0.91, 0.92), 0.03), np.float32)
    lit_HW = 1 + 0.05 * slope(thick_HW, scene.sun) - 0.1 * ramp(0.4 - thick_HW, 0.8)
    scene.paint(alpha_HW * np.float32(0.96), white * lit_HW[:, :, None], "partly_cloudy")


def _cumulus(scene: Scene, shrink: float) -> Field:
    rng = scene.shape
    puffs_HW = np.full((scene.size, scene.size), -1, np.float32)
    for _ in range(rng.integers(2, 6)):
        x, y = rng.uniform(-0.02, 1.02, 2)
        radius = rng.uniform(0.06, 0.19) * shrink
        puffs_HW = np.maximum(puffs_HW, 1 - distance(scene.size, (x, y)) / np.float32(radius))
    return (
        puffs_HW * np.float32(0.8)
        + np.float32(0.33) * fractal(rng, scene.size, 7, 3, gain=0.65)
        - np.float32(0.25)
    )


def _visible(seen_HW: Field, alpha_HW: Field) -> float:
    return float(((1 - alpha_HW) * seen_HW).sum() / max(float(seen_HW.sum()), 1e-6))


def haze(scene: Scene) -> None:
    """A whitish-blue veil, uneven, that reduces the contrast."""
    rng = scene.shape
    veil = np.float32(np.exp(rng.normal(0, 0.08))) * np.array((0.56, 0.62, 0.65), np.float32)
    thick_HW = rng.uniform(0.38, 0.6) + rng.uniform(0.02, 0.08) * fractal(rng, scene.size, 2, 3)
    alpha_HW1 = np.clip(thick_HW, 0.25, 0.75)[:, :, None].astype(np.float32)
    scene.color_HWC += alpha_HW1 * (veil - scene.color_HWC)


def cloudy(scene: Scene) -> None:
    """Cloud from edge to edge: a flat deck, a torn one, or towers with dark gaps between them."""
    rng, size = scene.shape, scene.size
    gray = np.float32(0.76 * np.exp(rng.normal(0, 0.09))) * np.array((0.99, 1, 1), np.float32)
    kind = rng.random()
    if kind < 0.25:
        relief_HW = 1 + rng.uniform(0.02, 0.05) * fractal(rng, size, 2, 4, gain=0.6)
    elif kind < 0.7:
        relief_HW = 1 + rng.uniform(0.07, 0.16) * fractal(rng, size, 3, 4, gain=0.65)
    else:
        towers_HW = fractal(rng, size, 4, 4, gain=0.6)
        relief_HW = 1.08 + 0.1 * slope(towers_HW, scene.sun) - 0.6 * ramp(-towers_HW - 0.9, 1.2)
    scene.color_HWC[:] = gray * np.clip(relief_HW, 0.2, 1.4)[:, :, None]


def expose(scene: Scene) -> NDArray[np.uint8]:
    """The file's pixels, shape (H, W, 3): light, air, lens and sensor vary from chip to chip.

    These change the mean color more than most labels do, so that mean color is a weak predictor.
    """
    rng, size = scene.shape, scene.size
    along_HW, _ = turned(size, rng.uniform(0, 2 * np.pi))
    light_HW = 1 + rng.uniform(0, 0.1) * along_HW + 0.02 * noise(rng, size, 2)
    gain_C = np.exp(rng.normal(0, 0.13) + rng.normal(0, 0.032, 3))
    air_C = np.abs(rng.normal(0, 0.035)) * np.array([0.8, 1.0, 1.1]) + rng.normal(0, 0.008, 3)
    gamma = rng.uniform(0.85, 1.2)
    image_HWC = np.clip(scene.color_HWC, 0, 1) ** np.float32(gamma)
    gray_HW1 = image_HWC.mean(axis=2, keepdims=True)
    image_HWC = gray_HW1 + np.float32(rng.uniform(0.65, 1.0)) * (image_HWC - gray_HW1)
    image_HWC *= light_HW[:, :, None] * gain_C.astype(np.float32)
    image_HWC = image_HWC * np.float32(1 - max(float(air_C.mean()), 0)) + air_C.astype(np.float32)
    sigma = rng.uniform(0.2, 0.55) * size / 64
    if sigma > 0.3:
        image_HWC = gaussian_filter(image_HWC, (sigma, sigma, 0), truncate=2.5)
    grain = rng.uniform(0.003, 0.012)
    image_HWC += np.float32(grain) * scene.grain.standard_normal(image_HWC.shape, dtype=np.float32)
    # A soft shoulder above 0.7, as highlights roll off rather than burn out.
    if image_HWC.max() > 0.7:
        over_HWC = np.maximum(image_HWC - np.float32(0.7), 0)
        image_HWC += np.float32(0.29) * np.tanh(over_HWC / np.float32(0.29)) - over_HWC
    return np.asarray(np.clip(image_HWC, 0, 1) * 255 + 0.5, np.uint8)
