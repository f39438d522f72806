"""Contact sheets of what a model sees: chips as they are, and as training draws them, step after step.

The pictures are made by the very functions that training calls, with the seed of the first variant that has
the augmentation. They stand in ``prepare/`` of the run directory, one for each distinct augmentation.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from canopy.config import AugmentConfig, DataConfig, Experiment, VariantConfig, fingerprint
from canopy.data.catalogue import Catalogue
from canopy.data.loading.batch_sampler import BatchSampler
from canopy.data.raster.decode import UnreadableImage, decode_image
from canopy.data.transforms.augment import apply_augmentation, draw_params
from canopy.data.transforms.mixup import apply_mix, draw_mix_params, uses_mix
from canopy.storage import files
from canopy.storage.run_dir import RunDir

CHIPS, DRAWS = 6, 8
TILE = 128
"""Side in pixels at which a chip is shown, about."""
GAP, TEXT, LINE = 8, 11, 14
LETTERS, LINES = 20, 6
"""Of a caption."""
GROUND, INK, FAINT = "#161d19", "#dfe8e1", "#8fa398"
CANDIDATES = 400


@dataclass(frozen=True)
class Sheet:
    """One augmentation as a picture: which variants have it, what it does in words, where the PNG lies."""

    variants: tuple[str, ...]
    words: str
    path: str


def write_sheets(config: Experiment, run: RunDir, catalogue: Catalogue) -> list[Sheet]:
    """A sheet for each distinct augmentation of the variants, in their order; none is made twice."""
    by_key: dict[str, list[VariantConfig]] = {}
    for variant in config.variants:
        by_key.setdefault(fingerprint(variant.augment, config.data.image_size), []).append(variant)
    sheets, examples = [], None
    shown = catalogue.digest(), config.data.sensor
    for key, variants in by_key.items():
        first = variants[0]
        name = f"sees-{first.name}-{fingerprint(*shown, key, first.seed)[:8]}.png"
        sheet = Sheet(tuple(v.name for v in variants), words(first.augment), run.path("prepare", name))
        sheets.append(sheet)
        if files.exists(sheet.path):
            continue
        examples = examples or example_chips(run, catalogue, config.data)
        if not len(examples[0]):
            return []
        files.write_bytes(sheet.path, draw_sheet(*examples, catalogue.labels.names, first))
    return sheets


def words(augment: AugmentConfig) -> str:
    """What an augmentation does, as a phrase."""
    jitter = ("brightness", "contrast", "saturation", "hue")
    factors = [f"{name} ±{getattr(augment, name):g}" for name in jitter if getattr(augment, name)]
    parts = [
        f"crops of {augment.crop} px" if augment.crop else "",
        "flips and quarter turns" if augment.flips else "",
        f"shifts of up to {augment.crop_padding} px" if augment.crop_padding else "",
        f"rotation ±{augment.rotate_degrees:g}°" if augment.rotate_degrees else "",
        *factors,
        f"greyscale {augment.grayscale:.0%}" if augment.grayscale else "",
        f"blur {augment.blur:.0%}" if augment.blur else "",
        f"Mixup α {augment.mixup_alpha:g}" if augment.mixup_alpha else "",
        f"CutMix α {augment.cutmix_alpha:g}" if augment.cutmix_alpha else "",
    ]
    return ", ".join(part for part in parts if part) or "no augmentation"


def example_chips(
    run: RunDir, catalogue: Catalogue, config: DataConfig
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A few training chips that show many labels between them, (n, H, W, 3), and their targets (n, K)."""
    return first_chips(run, catalogue, config, example_rows(catalogue), CHIPS)


def first_chips(
    run: RunDir, catalogue: Catalogue, config: DataConfig, rows: Iterable[int], count: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The first ``count`` chips of ``rows`` that can be read, as the networks get them.

    Args:
        run: whose decoded chips serve, where they were kept on this machine; else the images are read.
        catalogue: whose rows are meant.
        config: size and sensor to decode with.
        rows: of the catalogue, the most wanted first.
        count: at most so many.

    Returns:
        Chips (n, H, W, 3) uint8 and their targets (n, K), n from 0 to ``count``.
    """
    cache = run.path("prepare", "chips.npy")
    kept = None
    if not files.is_uri(cache) and files.exists(cache):
        kept = np.load(cache, mmap_mode="r", allow_pickle=False)
    chips: list[NDArray[np.uint8]] = []
    read: list[int] = []
    for row in rows:
        if len(read) == count:
            break
        if kept is not None:
            chip = np.asarray(kept[row])
        else:
            try:
                chip = decode_image(files.read_image(catalogue.uris[row]), config.image_size, config.sensor)
            except (UnreadableImage, OSError):
                continue
        chips.append(chip)
        read.append(row)
    shape = (0, config.image_size, config.image_size, 3)
    return np.array(chips, np.uint8) if chips else np.zeros(shape, np.uint8), catalogue.targets_NK[read]


def example_rows(catalogue: Catalogue) -> Iterable[int]:
    """Training rows; each of the first few brings as many labels as possible that none before it has."""
    train = catalogue.rows("train")
    left = np.random.default_rng(0).permutation(train)[:CANDIDATES]
    shown_K = np.zeros(len(catalogue.labels), bool)
    while len(left):
        targets_NK = catalogue.targets_NK[left].astype(bool)
        new_N, all_N = (targets_NK & ~shown_K).sum(1), targets_NK.sum(1)
        best = int(np.lexsort((all_N, -new_N))[0])
        shown_K |= targets_NK[best]
        if not new_N[best]:
            shown_K[:] = False  # all have been shown: begin anew
        yield int(left[best])
        left = np.delete(left, best)


def training_draws(
    chips_NHWC: NDArray[np.uint8], targets_NK: NDArray[np.uint8], variant: VariantConfig, draws: int
) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """What training on these chips alone, all in one batch, sees in its first steps.

    Returns:
        For each step images (N, H, W, 3), uint8, and targets (N, K), in the order of the chips.
    """
    augment, count = variant.augment, len(chips_NHWC)
    plan = BatchSampler(np.arange(count), count, variant.seed)
    out = []
    for step, order_N in enumerate(plan.batches(0, draws)):  # in which neighbours are mixed, anew each epoch
        images = apply_augmentation(
            torch.from_numpy(chips_NHWC[order_N]), draw_params(augment, count, plan.step_rng(step))
        )
        params = draw_mix_params(augment, count, variant.seed, step)
        mixed, soft_NK = apply_mix(images, torch.from_numpy(targets_NK[order_N]), params)
        back_N = np.argsort(order_N)
        out.append((mixed.numpy()[back_N], soft_NK.numpy()[back_N]))
    return out


def draw_sheet(
    chips_NHWC: NDArray[np.uint8],
    targets_NK: NDArray[np.uint8],
    names: Sequence[str],
    variant: VariantConfig,
) -> bytes:
    """A PNG with a row per chip: on the left as it is, with its labels, then as training draws it.

    Where images are mixed, every draw has its labels and their shares under it.

    Args:
        chips_NHWC: uint8, at least one.
        targets_NK: multi-hot.
        names: of the K labels.
        variant: whose augmentation and seed to use.
    """
    drawn = training_draws(chips_NHWC, targets_NK, variant, DRAWS)
    columns = [(chips_NHWC, targets_NK.astype(np.float32)), *drawn]
    captions = [[caption(row_K, names) for row_K in soft_NK] for _, soft_NK in columns]
    if not uses_mix(variant.augment):
        captions[1:] = [[[] for _ in chips_NHWC] for _ in drawn]
    side = tile_side(chips_NHWC.shape[1])
    heights = [side + GAP + LINE * max(len(c[n]) for c in captions) for n in range(len(chips_NHWC))]
    step, left, top = side + GAP, 2 * GAP, 2 * GAP + LINE
    width = left + len(columns) * step + 2 * GAP
    sheet = Image.new("RGB", (width, top + GAP + sum(heights) + GAP * len(heights)), GROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    pen.text((left, GAP), "as  it  is", fill=FAINT, font=font)
    pen.text((left + step + GAP, GAP), "as  training  draws  it", fill=FAINT, font=font)
    for n, height in enumerate(heights):
        for column, (images_NHWC, _) in enumerate(columns):
            x = left + column * step + (GAP if column else 0)  # the originals stand apart
            tile = shown(images_NHWC[n], side / chips_NHWC.shape[1])
            sheet.paste(tile, (x + (side - tile.width) // 2, top + (side - tile.height) // 2))
            for number, line in enumerate(captions[column][n]):
                place = (x, top + side + 3 + number * LINE)
                pen.text(place, line, fill=INK if column == 0 else FAINT, font=font)
        top += height + GAP
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def caption(soft_K: NDArray[np.float32], names: Sequence[str]) -> list[str]:
    """The labels of an image, those of one share together, the surest first; at most ``LINES`` of a tile."""
    by_share: dict[int, list[str]] = {}
    for k in np.argsort(-soft_K, kind="stable"):
        by_share.setdefault(round(100 * float(soft_K[k])), []).append(names[k])
    by_share.pop(0, None)
    lines: list[str] = []
    for percent, labels in by_share.items():
        text = ("" if percent == 100 else f"{percent} % ") + ", ".join(labels)
        lines += textwrap.wrap(text, LETTERS, break_long_words=False, break_on_hyphens=False)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"{lines[LINES - 1].rstrip(', ')} …"]
    return [line.replace(" ", "  ") for line in lines or ["no label"]]  # the font's space is a thin one


def tile_side(size: int) -> int:
    """Pixels at which a chip of ``size`` is shown: a whole multiple of it where it is small."""
    return size * max(1, round(TILE / size)) if size <= TILE else TILE


def shown(image_HWC: NDArray[np.uint8], scale: float) -> Image.Image:
    """An image enlarged with sharp pixels, or shrunk without aliasing."""
    way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    height, width = (max(1, round(side * scale)) for side in image_HWC.shape[:2])
    return Image.fromarray(image_HWC).resize((width, height), way)
