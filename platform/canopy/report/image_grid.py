"""Grids of captioned images as PNG."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GAP = 8
"""Pixels between tiles."""
FONT_SIZE = 11
LINE_HEIGHT = FONT_SIZE + 3
BACKGROUND, TEXT_COLOR = "#161d19", "#dfe8e1"


def image_grid(
    images_NHWC: NDArray[np.uint8], captions: Sequence[str], columns: int = 6, scale: int = 1, lines: int = 3
) -> bytes:
    """A grid of images with a caption under each, as PNG bytes.

    Args:
        images_NHWC: uint8 RGB, shape (N, H, W, 3), N >= 1.
        captions: N texts; each is wrapped to the width of its tile and cut after ``lines`` lines.
        columns: tiles per row.
        scale: whole-number enlargement, without smoothing.
        lines: maximum number of lines of a caption.
    """
    assert images_NHWC.dtype == np.uint8
    assert images_NHWC.ndim == 4
    assert images_NHWC.shape[3] == 3
    assert len(images_NHWC) == len(captions) > 0
    assert columns > 0
    assert scale > 0
    count, height, width = len(captions), images_NHWC.shape[1] * scale, images_NHWC.shape[2] * scale
    font = ImageFont.load_default(FONT_SIZE)
    letters = max(4, int(width / (0.52 * FONT_SIZE)))
    texts = [textwrap.wrap(c, letters, max_lines=lines, placeholder=" …") for c in captions]
    caption_height = 6 + LINE_HEIGHT * max(len(text) for text in texts)
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    sheet = Image.new(
        "RGB", (GAP + columns * (width + GAP), GAP + rows * (height + caption_height + GAP)), BACKGROUND
    )
    draw = ImageDraw.Draw(sheet)
    for n, (pixels, text) in enumerate(zip(images_NHWC, texts, strict=True)):
        left, top = GAP + n % columns * (width + GAP), GAP + n // columns * (height + caption_height + GAP)
        tile = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(tile, (left, top))
        for row, line in enumerate(text):
            draw.text((left, top + height + 4 + row * LINE_HEIGHT), line, fill=TEXT_COLOR, font=font)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()
