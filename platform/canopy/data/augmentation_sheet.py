"""Contact sheets of training images: a few chips, unchanged and as the training steps augment them.

The images come from the functions that training calls, with the seed of the first variant that has the
augmentation. ``prepare/`` of the run directory holds one sheet for each distinct augmentation.
"""

from __future__ import annotations

import io
import logging
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from canopy.bands import BandLayout, BandStatistics, channels_of, dtype_of
from canopy.config import AugmentConfig, DataConfig, Experiment, VariantConfig, fingerprint
from canopy.data.catalogue import Catalogue
from canopy.data.loading.band_sums import read_band_statistics
from canopy.data.loading.batch_sampler import BatchSampler
from canopy.data.loading.chip_cache import ChipCache
from canopy.data.raster.band_chips import read_band_chip
from canopy.data.raster.decode import UnreadableImageError, decode_image
from canopy.data.raster.limits import max_image_bytes
from canopy.data.transforms.augment import apply_augmentation, draw_params
from canopy.data.transforms.mixup import apply_mix, draw_mix_params, uses_mix
from canopy.errors import StorageError
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir

logger = logging.getLogger(__name__)

CHIPS, DRAWS = 6, 8
"""Number of chips on a sheet; number of augmented versions of each."""
TILE = 128
"""Approximate height and width of a displayed chip in pixels."""
GAP, FONT_SIZE, LINE_HEIGHT = 8, 11, 14
"""Sizes in pixels."""
CAPTION_CHARACTERS, CAPTION_LINES = 20, 6
"""Characters in a line of a caption; maximum number of lines."""
BACKGROUND, TEXT_COLOR, FAINT_COLOR = "#161d19", "#dfe8e1", "#8fa398"
CANDIDATES = 400
"""Number of random training rows from which the example chips are chosen."""


@dataclass(frozen=True)
class ContactSheet:
    """The sheet of one augmentation.

    Attributes:
        variants: names of the variants with this augmentation.
        description: the augmentation as a phrase.
        path: path of the PNG file.
    """

    variants: tuple[str, ...]
    description: str
    path: str


def write_contact_sheets(config: Experiment, run_dir: RunDir, catalogue: Catalogue) -> list[ContactSheet]:
    """Write a sheet for each distinct augmentation of the variants, in their order, unless it exists."""
    by_key: dict[str, list[VariantConfig]] = {}
    for variant in config.variants:
        by_key.setdefault(fingerprint(variant.augment, config.data.image_size), []).append(variant)
    sheets, examples = [], None
    layout = BandLayout.of(config.data)
    bands = None if layout is None else read_band_statistics(run_dir)
    content = catalogue.digest(), config.data.sensor, *(() if layout is None else (layout.to_json(),))
    for key, variants in by_key.items():
        first = variants[0]
        name = f"sees-{first.name}-{fingerprint(*content, key, first.seed)[:8]}.png"
        names = tuple(v.name for v in variants)
        sheet = ContactSheet(names, describe_augmentation(first.augment), run_dir.path(Stage.PREPARE, name))
        sheets.append(sheet)
        if files.exists(sheet.path):
            continue
        examples = examples or example_chips(run_dir, catalogue, config.data)
        if not len(examples[0]):
            return []
        files.write_bytes(sheet.path, draw_contact_sheet(*examples, catalogue.labels.names, first, bands))
    return sheets


def describe_augmentation(augment: AugmentConfig) -> str:
    """An augmentation as a phrase."""
    jitter = ("brightness", "contrast", "saturation", "hue")
    factors = [f"{name} ±{getattr(augment, name):g}" for name in jitter if getattr(augment, name)]
    parts = [
        f"crops of {augment.crop} px" if augment.crop else "",
        "flips and quarter turns" if augment.flips else "",
        f"shifts of up to {augment.crop_padding} px" if augment.crop_padding else "",
        f"rotation ±{augment.rotate_degrees:g}°" if augment.rotate_degrees else "",
        *factors,
        f"grayscale {augment.grayscale:.0%}" if augment.grayscale else "",
        f"blur {augment.blur:.0%}" if augment.blur else "",
        f"noise of up to {augment.noise:g} deviations" if augment.noise else "",
        f"band dropout {augment.band_dropout:.0%}" if augment.band_dropout else "",
        f"Mixup α {augment.mixup_alpha:g}" if augment.mixup_alpha else "",
        f"CutMix α {augment.cutmix_alpha:g}" if augment.cutmix_alpha else "",
    ]
    return ", ".join(part for part in parts if part) or "no augmentation"


def example_chips(
    run_dir: RunDir, catalogue: Catalogue, config: DataConfig
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """A few training chips with many labels, (n, H, W, C), and their targets (n, K)."""
    return load_chips(run_dir, catalogue, config, example_rows(catalogue), CHIPS)


def load_chips(
    run_dir: RunDir, catalogue: Catalogue, config: DataConfig, rows: Iterable[int], count: int
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Load the first ``count`` chips of ``rows`` that can be read.

    Chips come from the run's file of decoded chips if it is local; else the images are read.

    Args:
        run_dir: run directory.
        catalogue: catalogue of the run.
        config: image size and sensor for decoding.
        rows: row numbers in the catalogue, in order of preference.
        count: maximum number of chips.

    Returns:
        Chips (n, H, W, C) and their targets (n, K), n from 0 to ``count``.

    Raises:
        RunDirError: when the file of decoded chips is damaged.
        StorageError: when the store of the images fails.
    """
    kept = ChipCache.of_run(run_dir).open_local()
    chips: list[NDArray[Any]] = []
    read: list[int] = []
    for row in rows:
        if len(read) == count:
            break
        if kept is not None:
            chip = np.asarray(kept[row])
        else:
            try:
                chip = decode_chip(catalogue.uris[row], config)
            except StorageError:
                raise  # the store fails, not the image
            except (UnreadableImageError, OSError) as error:
                logger.warning("image left out of a sheet: %s: %s", catalogue.ids[row], error)
                continue
        chips.append(chip)
        read.append(row)
    layout = BandLayout.of(config)
    shape = (0, config.image_size, config.image_size, channels_of(layout))
    found = np.array(chips) if chips else np.zeros(shape)
    return found.astype(dtype_of(layout), copy=False), catalogue.targets_NK[read]


def decode_chip(address: str, config: DataConfig) -> NDArray[Any]:
    """One chip, read from its files: (S, S, 3) uint8, or (S, S, C) of ``data.dtype``.

    Raises:
        UnreadableImageError: when it is damaged, too large or of an unsupported kind.
        OSError: when a file is missing or may not be read.
        StorageError: when the object store refuses.
    """
    layout, max_bytes = BandLayout.of(config), max_image_bytes(config)
    if layout is not None:
        return read_band_chip(address, config.image_size, layout, max_bytes).levels
    data = files.read_image(address, max_bytes)
    return decode_image(data, config.image_size, config.sensor, max_bytes=max_bytes)


def example_rows(catalogue: Catalogue) -> Iterable[int]:
    """Yield training rows; each of the first rows adds as many new labels as possible."""
    train = catalogue.rows("train")
    left = np.random.default_rng(0).permutation(train)[:CANDIDATES]
    shown_K = np.zeros(len(catalogue.labels), bool)
    while len(left):
        targets_NK = catalogue.targets_NK[left].astype(bool)
        new_N, all_N = (targets_NK & ~shown_K).sum(1), targets_NK.sum(1)
        best = int(np.lexsort((all_N, -new_N))[0])
        shown_K |= targets_NK[best]
        if not new_N[best]:
            shown_K[:] = False  # all labels have been shown: start again
        yield int(left[best])
        left = np.delete(left, best)


def training_draws(
    chips_NHWC: NDArray[Any],
    targets_NK: NDArray[np.uint8],
    variant: VariantConfig,
    draws: int,
    bands: BandStatistics | None = None,
) -> list[tuple[NDArray[Any], NDArray[np.float32]]]:
    """What a training sees in its first ``draws`` steps if these chips are its only batch.

    Returns:
        For each step, images (N, H, W, C) and targets (N, K), in the order of the chips.
    """
    augment, count = variant.augment, len(chips_NHWC)
    sampler = BatchSampler(np.arange(count), count, variant.seed)
    channels, colors = (None, None) if bands is None else (len(bands.names), bands.colors)
    out = []
    for step, order_N in enumerate(sampler.batches(0, draws)):  # the order decides which chips are mixed
        drawn = draw_params(augment, count, sampler.step_rng(step), channels, colors)
        images = apply_augmentation(torch.from_numpy(chips_NHWC[order_N]), drawn)
        params = draw_mix_params(augment, count, variant.seed, step)
        mixed, soft_NK = apply_mix(images, torch.from_numpy(targets_NK[order_N]), params)
        back_N = np.argsort(order_N)
        out.append((mixed.numpy()[back_N], soft_NK.numpy()[back_N]))
    return out


def draw_contact_sheet(
    chips_NHWC: NDArray[Any],
    targets_NK: NDArray[np.uint8],
    names: Sequence[str],
    variant: VariantConfig,
    bands: BandStatistics | None = None,
) -> bytes:
    """A PNG with a row per chip: the chip with its labels, then augmented versions.

    With Mixup or CutMix, each augmented version has its labels and their shares below it.

    Args:
        chips_NHWC: uint8 (N, H, W, 3), or C bands, N at least 1.
        targets_NK: multi-hot labels.
        names: names of the K labels.
        variant: variant with the augmentation and the seed.
        bands: how to show C bands; None for RGB.
    """
    drawn = training_draws(chips_NHWC, targets_NK, variant, DRAWS, bands)
    if bands is not None:
        drawn = [(bands.shown(images_NHWC), soft_NK) for images_NHWC, soft_NK in drawn]
        chips_NHWC = bands.shown(chips_NHWC)
    columns = [(chips_NHWC, targets_NK.astype(np.float32)), *drawn]
    captions = [[caption(row_K, names) for row_K in soft_NK] for _, soft_NK in columns]
    if not uses_mix(variant.augment):
        captions[1:] = [[[] for _ in chips_NHWC] for _ in drawn]
    side = tile_side(chips_NHWC.shape[1])
    heights = [side + GAP + LINE_HEIGHT * max(len(c[n]) for c in captions) for n in range(len(chips_NHWC))]
    step, left, top = side + GAP, 2 * GAP, 2 * GAP + LINE_HEIGHT
    width = left + len(columns) * step + 2 * GAP
    sheet = Image.new("RGB", (width, top + GAP + sum(heights) + GAP * len(heights)), BACKGROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    pen.text((left, GAP), "as  it  is", fill=FAINT_COLOR, font=font)
    pen.text((left + step + GAP, GAP), "as  training  draws  it", fill=FAINT_COLOR, font=font)
    for n, height in enumerate(heights):
        for column, (images_NHWC, _) in enumerate(columns):
            x = left + column * step + (GAP if column else 0)  # a wider gap after the first column
            tile = resize_for_display(images_NHWC[n], side / chips_NHWC.shape[1])
            sheet.paste(tile, (x + (side - tile.width) // 2, top + (side - tile.height) // 2))
            for number, line in enumerate(captions[column][n]):
                place = (x, top + side + 3 + number * LINE_HEIGHT)
                pen.text(place, line, fill=TEXT_COLOR if column == 0 else FAINT_COLOR, font=font)
        top += height + GAP
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def caption(soft_K: NDArray[np.float32], names: Sequence[str]) -> list[str]:
    """The lines of a caption: labels grouped by share, in descending order."""
    by_share: dict[int, list[str]] = {}
    for k in np.argsort(-soft_K, kind="stable"):
        by_share.setdefault(round(100 * float(soft_K[k])), []).append(names[k])
    by_share.pop(0, None)
    lines: list[str] = []
    for percent, labels in by_share.items():
        text = ("" if percent == 100 else f"{percent} % ") + ", ".join(labels)
        lines += textwrap.wrap(text, CAPTION_CHARACTERS, break_long_words=False, break_on_hyphens=False)
    if len(lines) > CAPTION_LINES:
        lines = [*lines[: CAPTION_LINES - 1], f"{lines[CAPTION_LINES - 1].rstrip(', ')} …"]
    return [line.replace(" ", "  ") for line in lines or ["no label"]]  # the font has narrow spaces


def tile_side(size: int) -> int:
    """The displayed size of a chip of ``size`` pixels: an integer multiple if the chip is small."""
    return size * max(1, round(TILE / size)) if size <= TILE else TILE


def resize_for_display(image_HWC: NDArray[np.uint8], scale: float) -> Image.Image:
    """Enlarge an image with sharp pixels, or reduce it with antialiasing."""
    resampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    height, width = (max(1, round(side * scale)) for side in image_HWC.shape[:2])
    return Image.fromarray(image_HWC).resize((width, height), resampling)
