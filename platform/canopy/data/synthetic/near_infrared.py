"""The near infrared of a generated chip, and labels that it alone shows.

Healthy leaves reflect half of the near infrared, water almost nothing. A canopy under drought stress
reflects less of it before it changes color, and a young secondary forest reflects more than an old one. Both
labels are drawn on forest of unchanged color, so that red, green and blue say no more of them than that there
is forest.

Source of the reflectances: Jensen, "Remote Sensing of the Environment", 2nd edition, 2007, chapter 11.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from canopy.config import GenerateConfig
from canopy.data.synthetic import sky
from canopy.data.synthetic.label_model import (
    CLOUDY,
    LABELS,
    WEATHER_COLUMNS,
    SyntheticLabels,
    cloud_noise,
    draw_labels,
)
from canopy.data.synthetic.render import paint_scene
from canopy.data.synthetic.scene import Scene, Sketch
from canopy.data.synthetic.textures import Field, Place, blob, cover, fractal
from canopy.labels import LabelSet

REGROWTH, STRESSED = "regrowth", "stressed_canopy"
INFRARED_LABELS = (REGROWTH, STRESSED)
"""Labels that only the near infrared shows."""
INFRARED_RATE = 0.2
"""Share of the chips with forest that have such a label, each independently."""
BANDS = ("blue", "green", "red", "nir")
"""Bands of a file, in Planet's order."""
LABELS_WITH_INFRARED = LabelSet(tuple(sorted((*LABELS.names, *INFRARED_LABELS))))

OPEN_LAND, CLOUD, HAZE = 0.34, 0.82, 0.5
REFLECTANCES = {
    "primary": 0.44,
    "blooming": 0.45,
    "blow_down": 0.36,
    "selective_logging": 0.33,
    "agriculture": 0.40,
    "cultivation": 0.39,
    "slash_burn": 0.12,
    "bare_ground": 0.36,
    "conventional_mine": 0.34,
    "artisinal_mine": 0.32,
    "habitation": 0.28,
    "road": 0.25,
    "water": 0.04,
    "partly_cloudy": CLOUD,
}
"""Reflectance of what shows a label, in [0, 1]; what is painted last comes last."""


def labels_of(config: GenerateConfig) -> LabelSet:
    """The labels of a generated data set."""
    return LABELS_WITH_INFRARED if config.near_infrared else LABELS


def draw_all_labels(config: GenerateConfig) -> SyntheticLabels:
    """:func:`~canopy.data.synthetic.label_model.draw_labels`, with those of the near infrared on request.

    The 17 labels are the same with and without. Columns are those of :func:`labels_of`.
    """
    table = draw_labels(config)
    if not config.near_infrared:
        return table
    forest_N = table.true_NK[:, LABELS.index("primary")] == 1
    streams = [np.random.default_rng([config.seed, 5, part]) for part in range(2)]
    shape = (config.rows, len(INFRARED_LABELS))
    true_NL = (streams[0].random(shape) < INFRARED_RATE) & forest_N[:, None]
    to_cloudy = cloud_noise(config)
    says_yes_NL = streams[1].random(shape) < np.where(
        true_NL, (1 - config.miss_rate) / (1 - to_cloudy), config.spurious_rate / (1 - to_cloudy)
    )
    cloudy_column = WEATHER_COLUMNS[CLOUDY]
    cloudy_N1 = table.true_NK[:, [cloudy_column]] == 1
    written_NL = says_yes_NL & ~cloudy_N1 & (table.written_NK[:, [cloudy_column]] == 0)
    oracle_NL = np.where(true_NL, 1 - config.miss_rate, config.spurious_rate) * ~cloudy_N1
    order = [(*LABELS.names, *INFRARED_LABELS).index(name) for name in LABELS_WITH_INFRARED.names]
    return SyntheticLabels(
        np.hstack([table.true_NK, true_NL.astype(np.uint8)])[:, order],
        np.hstack([table.written_NK, written_NL.astype(np.uint8)])[:, order],
        np.hstack([table.oracle_NK, oracle_NL.astype(np.float32)])[:, order],
    )


def render_four_bands(labels: Collection[str], size: int, seed: int, row: int) -> NDArray[np.uint8]:
    """The chip's pixels, shape (size, size, 4), in the order of :data:`BANDS`: a pure function.

    Blue, green and red are those of :func:`~canopy.data.synthetic.render.render_chip`.
    """
    scene = paint_scene(labels, size, seed, row)
    rgb_HWC = sky.expose(scene)
    infrared_HW = near_infrared(scene, labels, np.random.default_rng([seed, 4, row]))
    return np.concatenate([rgb_HWC[:, :, ::-1], infrared_HW[:, :, None]], axis=2)


def near_infrared(scene: Scene, labels: Collection[str], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The near-infrared band of a painted scene, shape (H, W), light and sensor varying from chip to chip."""
    size = scene.size
    base_HW = np.full((size, size), CLOUD if "cloudy" in labels else OPEN_LAND, np.float32)
    forest_HW = scene.evidence.get("primary", np.zeros((size, size), np.float32))
    for name, value in REFLECTANCES.items():
        if name in scene.evidence:
            base_HW += scene.evidence[name] * (np.float32(value) - base_HW)
    # Natural forest varies too, slowly and in both directions.
    base_HW *= 1 + np.float32(rng.uniform(0.01, 0.05)) * fractal(rng, size, 2, 2) * forest_HW
    if REGROWTH in labels:
        base_HW *= 1 + np.float32(rng.uniform(0.35, 0.6)) * _lots(rng, forest_HW)
    if STRESSED in labels:
        base_HW *= 1 - np.float32(rng.uniform(0.35, 0.55)) * _patches(rng, forest_HW)
    if "haze" in labels:  # long waves pass through haze better than short ones
        base_HW += np.float32(rng.uniform(0.1, 0.25)) * (np.float32(HAZE) - base_HW)
    light_HW = scene.color_HWC.mean(2)
    smooth_HW = gaussian_filter(light_HW, size / 12) + np.float32(0.02)
    base_HW *= np.clip((light_HW + np.float32(0.02)) / smooth_HW, 0.6, 1.4)
    base_HW *= np.float32(np.exp(rng.normal(0, 0.13)))
    base_HW = gaussian_filter(base_HW, rng.uniform(0.2, 0.55) * size / 64)
    base_HW += np.float32(rng.uniform(0.003, 0.012)) * rng.standard_normal((size, size), np.float32)
    return np.asarray(np.clip(base_HW, 0, 1) * 255 + 0.5, np.uint8)


def _patches(rng: np.random.Generator, forest_HW: Field) -> Field:
    """Soft patches over a quarter to a half of the forest."""
    size = len(forest_HW)
    field_HW = fractal(rng, size, 3, 3) + 6 * (forest_HW - 1)
    share = float(np.clip(rng.uniform(0.25, 0.5) * forest_HW.mean(), 0.02, 0.9))
    return cover(field_HW, share, 0.6) * forest_HW


def _lots(rng: np.random.Generator, forest_HW: Field) -> Field:
    """Two to four lots with edges, in the forest."""
    size = len(forest_HW)
    sketch = Sketch(size)
    chance_M = forest_HW.ravel().astype(np.float64) + 1e-6
    for at in rng.choice(size * size, rng.integers(2, 5), p=chance_M / chance_M.sum()).tolist():
        center: Place = ((at % size + 0.5) / size, (at // size + 0.5) / size)
        sketch.polygon(blob(rng, center, rng.uniform(0.12, 0.2), 5, 0.3), (1.0, 1.0, 1.0))
    mask_HW, _ = sketch.finish()
    return mask_HW * forest_HW
