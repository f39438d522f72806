"""A chip while it is drawn: its canvas, its random streams, and the visible evidence of each label."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from canopy.data.synthetic.textures import Field, Place, Points

Color = tuple[float, float, float]
"""Red, green, blue in [0, 1]."""
AnyColor = Color | NDArray[np.float32]
"""A color as a tuple or an array; :meth:`Scene.paint` also takes one color per pixel, shape (H, W, 3)."""


@dataclass
class Scene:
    """The canvas and the state that the drawing functions share.

    Geometry is drawn from ``shape`` and pixel texture from ``grain``, two streams, so that a scene has
    the same objects at any ``size``.
    """

    size: int
    shape: np.random.Generator
    grain: np.random.Generator
    color_HWC: NDArray[np.float32] = field(init=False)
    """Reflectance of what has been painted, in [0, 1]."""
    evidence: dict[str, Field] = field(default_factory=dict)
    """Per label, how much of each pixel shows it, in [0, 1]; painting over something lowers it."""
    sun: float = field(init=False)
    """Direction that light travels in, in radians."""
    axis: float = field(init=False)
    """Direction of the fields' and roads' grid, in radians."""
    paths: dict[str, Points] = field(default_factory=dict)
    """Center lines of the river and the roads, shape (M, 2), along which other objects are placed."""

    def __post_init__(self) -> None:
        self.color_HWC = np.zeros((self.size, self.size, 3), np.float32)
        self.sun, self.axis = self.shape.uniform(0, 2 * np.pi, 2)

    def paint(self, mask_HW: Field, color: AnyColor, label: str | None = None) -> None:
        """Cover the canvas with ``color`` (one, or one per pixel) where the mask says so."""
        mask_HW1 = mask_HW[:, :, None]
        self.color_HWC += mask_HW1 * (np.asarray(color, np.float32) - self.color_HWC)
        self._cover(mask_HW, label)

    def apply(
        self,
        sketch: Sketch,
        label: str | None = None,
        *,
        texture: Field | float = 1.0,
        strength: Field | float = 1.0,
    ) -> None:
        """Put a sketch on the canvas: its colors times ``texture``, as opaque as ``strength`` in [0, 1]."""
        mask_HW, premultiplied_HWC = sketch.finish()
        factor_HW = np.broadcast_to(np.asarray(texture * strength, np.float32), mask_HW.shape)
        mask_HW *= np.asarray(strength, np.float32)
        self.color_HWC *= 1 - mask_HW[:, :, None]
        self.color_HWC += premultiplied_HWC * factor_HW[:, :, None]
        self._cover(mask_HW, label)

    def shade(self, factor_HW: Field) -> None:
        """Multiply the canvas: shadow below 1, light above."""
        self.color_HWC *= factor_HW[:, :, None]

    def _cover(self, mask_HW: Field, label: str | None) -> None:
        for name in self.evidence.keys() - {label}:
            self.evidence[name] *= 1 - mask_HW
        if label is not None:
            before_HW = self.evidence.get(label)
            self.evidence[label] = mask_HW.copy() if before_HW is None else np.maximum(before_HW, mask_HW)

    def tone(self, color: Color, spread: float = 0.06) -> Color:
        """A relative of ``color``: brighter or darker by a factor, and of slightly different hue."""
        factor = np.exp(self.shape.normal(0, spread) + self.shape.normal(0, spread / 3, 3))
        r, g, b = np.clip(np.asarray(color) * factor, 0, 1)
        return float(r), float(g), float(b)

    def pick(self, palette: tuple[Color, ...], spread: float = 0.06) -> Color:
        """A relative of one of the palette's colors."""
        return self.tone(palette[self.shape.integers(len(palette))], spread)

    def picks(self, palette: tuple[Color, ...], count: int, spread: float = 0.06) -> NDArray[np.float32]:
        """``count`` relatives of the palette's colors at once, shape (count, 3)."""
        chosen_NC = np.asarray(palette)[self.shape.integers(len(palette), size=count)]
        normal_NC = self.shape.normal(0, spread, (count, 1)) + self.shape.normal(0, spread / 3, (count, 3))
        return np.asarray(np.clip(chosen_NC * np.exp(normal_NC), 0, 1), np.float32)

    def spot(self, radius: float, on: str | None = None) -> Points:
        """A center for an object of this radius that hides little else.

        Of eight random places the one whose surroundings show most of the label ``on`` (if given) and
        least of any other label but forest.
        """
        margin = min(radius * 0.8 + 0.04, 0.45)
        places = self.shape.uniform(margin, 1 - margin, (8, 2))
        reach = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]) * radius
        at = np.clip(((places[:, None] + reach) * self.size).astype(int), 0, self.size - 1)
        column_PR, row_PR = at[:, :, 0], at[:, :, 1]
        score = np.zeros(len(places))
        for name, seen_HW in self.evidence.items():
            seen = seen_HW[row_PR, column_PR].mean(axis=1)
            score += seen if name == on else 0 if name == "primary" else -seen
        return np.asarray(places[score.argmax()])

    def along(self, path: str, count: int) -> Points:
        """``count`` places of the named path that lie inside the chip, shape (count, 2)."""
        points = self.paths[path]
        inside = points[((points > 0.08) & (points < 0.92)).all(axis=1)]
        if len(inside) == 0:
            inside = points[len(points) // 2, None]
        return np.asarray(inside[self.shape.integers(len(inside), size=count)])


class Sketch:
    """Flat polygons, lines and dots with smooth edges, drawn enlarged and then shrunk."""

    def __init__(self, size: int) -> None:
        self._factor = 4 if size <= 128 else 2
        self._scale = size * self._factor
        self._mask = Image.new("L", (self._scale, self._scale))
        self._color = Image.new("RGB", (self._scale, self._scale))
        self._pens = ImageDraw.Draw(self._mask), ImageDraw.Draw(self._color)

    def polygon(self, points: Points, color: AnyColor) -> None:
        """Fill the polygon with corners ``points``, shape (M, 2)."""
        flat = (points * self._scale).ravel().tolist()
        self._pens[0].polygon(flat, fill=255)
        self._pens[1].polygon(flat, fill=_bytes(color))

    def line(
        self, points: Points, width: float | NDArray[np.float64], color: Color | NDArray[np.float32]
    ) -> None:
        """A line through ``points``, shape (M, 2); its width (in chip sides) is one or one per point.

        Drawn as one polygon, so no bend may be tighter than half the width.
        """
        near = np.flatnonzero(((points > -0.2) & (points < 1.2)).all(axis=1))
        if len(near) < 2:
            return
        part = slice(near[0], near[-1] + 1)
        along = np.gradient(points[part], axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.hypot(*along.T)[:, None]
        half = across * np.broadcast_to(width, len(points))[part, None] / 2
        self.polygon(np.concatenate([points[part] + half, (points[part] - half)[::-1]]), color)

    def dot(self, center: Place, radius: float, color: AnyColor) -> None:
        """A disc."""
        x, y, r = (value * self._scale for value in (*center, max(radius, 0.6 / self._scale)))
        self._pens[0].ellipse((x - r, y - r, x + r, y + r), fill=255)
        self._pens[1].ellipse((x - r, y - r, x + r, y + r), fill=_bytes(color))

    def finish(self) -> tuple[Field, NDArray[np.float32]]:
        """Mask of shape (H, W) and color times mask of shape (H, W, 3), both in [0, 1]."""
        mask_HW = np.asarray(self._mask.reduce(self._factor), np.float32) / np.float32(255)
        color_HWC = np.asarray(self._color.reduce(self._factor), np.float32) / np.float32(255)
        return mask_HW, color_HWC


def _bytes(color: AnyColor) -> tuple[int, int, int]:
    r, g, b = color
    return int(r * 255), int(g * 255), int(b * 255)
