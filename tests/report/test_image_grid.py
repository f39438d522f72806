"""Galleries hold every image at its place."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from canopy.report.image_grid import image_grid


def test_a_contact_sheet_holds_every_chip_where_it_belongs() -> None:
    chips = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (10, 120, 250)])
    png = image_grid(chips, ["clear", "a caption of many words that has to be cut somewhere", ""], 2, 3)
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    assert sheet.shape[1] == 8 + 2 * (48 + 8)
    assert (sheet[8:56, 8:56] == 10).all()
    assert (sheet[8:56, 64:112] == 120).all()
    second_row = (sheet.shape[0] - 8) // 2 + 8
    assert (sheet[second_row : second_row + 48, 8:56] == 250).all()
