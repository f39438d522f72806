"""The built-in data set: Amazon-like chips in Kaggle's layout, with the best reachable score.

::

    ROOT/train-jpg/train_<row>.jpg   the chips; some are 4-component CMYK, as in real exports
    ROOT/train_v2.csv                image_name,tags: the written (noisy) labels; it is written last
    ROOT/oracle.parquet              id, probs: P(written = 1 | the scene), label names in the metadata
    ROOT/generator.json              the config of the generator

With ``near_infrared`` the chips are ``ROOT/train-tif/train_<row>.tif`` with four bands.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from canopy.config import GenerateConfig, fingerprint_content
from canopy.config.data import GENERATED_LAYOUTS
from canopy.data.synthetic.label_model import LABELS, SyntheticLabels, ceiling_decisions, draw_labels
from canopy.data.synthetic.near_infrared import BANDS, draw_all_labels, labels_of, render_four_bands
from canopy.data.synthetic.render import render_chip
from canopy.errors import DataError
from canopy.labels import LabelSet
from canopy.storage import files

__all__ = [
    "LABELS",
    "block_of_rows",
    "ceiling_decisions",
    "contact_sheet",
    "draw_labels",
    "generate",
    "read_oracle",
]

CSV, ORACLE, MANIFEST = "train_v2.csv", "oracle.parquet", "generator.json"
VERSION = 1
"""Version of the generator; higher whenever the same config would give other pixels or labels."""
JPEG_QUALITY = 90

BlockMap = Callable[[Callable[[range], int], list[range]], Iterable[int]]
"""``run(work, blocks)``: call ``work`` on every block, in any order and place; the results, as they come."""


def generate(config: GenerateConfig, root: Path, run: BlockMap = map, block_rows: int = 256) -> None:
    """Write the data set under ``root``, unless it is complete there already.

    Every chip is a pure function of the config and its row, so neither ``run`` nor ``block_rows``
    changes a byte. A killed call leaves no ``train_v2.csv``; the next one starts over.

    Args:
        config: what to generate.
        root: directory, made when missing; all processes that ``run`` uses must see it.
        run: calls ``work`` on each block of rows. The builtin ``map`` is serial; another function of this
            form may use several processes (``work`` can be pickled and returns the block's length).
        block_rows: rows per block.

    Raises:
        DataError: when ``root`` holds a data set of another config, or files of another origin.
    """
    manifest = {"version": VERSION, "config": fingerprint_content(config)}
    if _is_finished(root, manifest):
        return
    files.write_json(str(root / MANIFEST), manifest)  # first: from here on the directory is ours
    (root / config.layout[0]).mkdir(exist_ok=True)
    blocks = [range(at, min(at + block_rows, config.rows)) for at in range(0, config.rows, block_rows)]
    done = sum(run(partial(block_of_rows, config, root), blocks))
    assert done == config.rows, f"run() went through {done} of {config.rows} rows"
    table, labels = draw_all_labels(config), labels_of(config)
    files.write_table(str(root / ORACLE), _oracle(table, labels))
    files.write_bytes(str(root / CSV), _csv(table, labels))


def block_of_rows(config: GenerateConfig, root: Path, rows: range) -> int:
    """Render and write the chips of ``rows``; returns their number."""
    true_NK = draw_all_labels(config).true_NK[rows.start : rows.stop]
    folder, extension = config.layout
    for row, labels in zip(rows, labels_of(config).decode(true_NK), strict=True):
        if config.near_infrared:
            data = encode_tiff(render_four_bands(labels, config.size, config.seed, row))
        else:
            chip_HWC = render_chip(labels, config.size, config.seed, row)
            cmyk = np.random.default_rng([config.seed, 3, row]).random() < config.cmyk_fraction
            data = encode_jpeg(chip_HWC, cmyk)
        _write_chip(root / folder / f"{chip_id(row)}{extension}", data)
    return len(rows)


def chip_id(row: int) -> str:
    """Name of the chip in this row, without extension."""
    return f"train_{row}"


def encode_jpeg(chip_HWC: NDArray[np.uint8], cmyk: bool) -> bytes:
    """A JPEG file, shape (H, W, 3) in.

    With ``cmyk``: four components and an Adobe marker, the inks stored inverted, as in the exports of
    the real chips. PIL's ``convert("RGB")`` undoes both; a decoder that ignores the marker does not.
    """
    image = Image.fromarray(chip_HWC)
    out = io.BytesIO()
    (image.convert("CMYK") if cmyk else image).save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return out.getvalue()


def encode_tiff(chip_HWC: NDArray[np.uint8]) -> bytes:
    """A TIFF of the bands of :data:`~canopy.data.synthetic.near_infrared.BANDS`, shape (H, W, 4) in."""
    height, width, count = chip_HWC.shape
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": "uint8",
        "compress": "deflate",
        "interleave": "pixel",
    }
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning), MemoryFile() as memory:
        with memory.open(height=height, width=width, count=count, **profile) as file:
            file.write(np.moveaxis(chip_HWC, -1, 0))
            for number, name in enumerate(BANDS, 1):
                file.set_band_description(number, name)
        return bytes(memory.getbuffer())


def read_oracle(root: Path, labels: LabelSet = LABELS) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and P(written = 1 | the scene), shape (N, K), columns as in ``labels``.

    Raises:
        DataError: when there is no oracle or its labels differ.
    """
    path = root / ORACLE
    if not path.is_file():
        raise DataError(str(path), "must exist", "no such file", "Only generated data sets have one.")
    table = files.read_table(str(path))
    names = json.loads(files.metadata(table).get("labels", "[]"))
    if tuple(names) != labels.names:
        need = f"must hold the generator's {len(labels)} labels"
        raise DataError(str(path), need, names, "Generate the data set again.")
    probs = table["probs"].combine_chunks().flatten().to_numpy()
    return table["id"].to_pylist(), probs.reshape(-1, len(labels))


def contact_sheet(config: GenerateConfig, per_label: int = 10, zoom: int = 2) -> Image.Image:
    """Image with one row of enlarged chips per label, from the first chips that have it.

    Chips in clear weather are taken where there are some, so that each label shows.
    """
    true_NK = draw_labels(config).true_NK
    side, gap, margin = config.size * zoom, 4, 130
    sheet = Image.new("RGB", (margin + per_label * (side + gap), len(LABELS) * (side + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    is_clear = true_NK[:, LABELS.index("clear")] == 1
    for k, name in enumerate(LABELS.names):
        top = k * (side + gap)
        pen.text((6, top + side // 2 - 6), name, fill="black")
        has_label = true_NK[:, k] == 1
        rows = (
            np.flatnonzero(has_label & is_clear)
            if (has_label & is_clear).any()
            else np.flatnonzero(has_label)
        )
        for column, row in enumerate(rows[:per_label]):
            labels = LABELS.decode(true_NK[row : row + 1])[0]
            chip = Image.fromarray(render_chip(labels, config.size, config.seed, int(row)))
            at = (margin + column * (side + gap), top)
            sheet.paste(chip.resize((side, side), Image.Resampling.BICUBIC), at)
    return sheet


def _is_finished(root: Path, manifest: dict[str, Any]) -> bool:
    """Whether this data set is complete in ``root``; an error when ``root`` holds anything else."""
    path = root / MANIFEST
    if root.exists() and not root.is_dir():
        raise DataError(str(root), "must be a directory", "a file", "Choose a directory.")
    if not path.is_file():
        for name in (CSV, *(folder for folder, _ in GENERATED_LAYOUTS.values())):
            if (root / name).exists():
                problem = "must be empty or hold generated chips (it has no generator.json)"
                raise DataError(str(root), problem, name, "Choose another directory for the generated chips.")
        return False
    found = files.read_json(str(path))
    if found != manifest:
        changed = _differences(found, manifest)
        remedy = "Choose another directory, or delete this one to generate it again."
        raise DataError(str(root), "must hold generated chips of the same config", changed, remedy)
    return (root / CSV).is_file() and (root / ORACLE).is_file()


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    old = {"version": found.get("version"), **found.get("config", {})}
    new = {"version": wanted["version"], **wanted["config"]}
    return ", ".join(
        f"{key} {old.get(key)!r} instead of {new.get(key)!r}"
        for key in {**new, **old}
        if old.get(key) != new.get(key)
    )


def _csv(table: SyntheticLabels, names: LabelSet) -> bytes:
    rows = names.decode(table.written_NK)
    lines = ["image_name,tags", *(f"{chip_id(n)},{' '.join(labels)}" for n, labels in enumerate(rows))]
    return ("\n".join(lines) + "\n").encode()


def _oracle(table: SyntheticLabels, labels: LabelSet) -> pa.Table:
    probs = pa.FixedSizeListArray.from_arrays(pa.array(table.oracle_NK.ravel(), pa.float32()), len(labels))
    ids = pa.array([chip_id(n) for n in range(len(probs))], pa.string())
    metadata = {"labels": json.dumps(labels.names)}
    return pa.table([ids, probs], pa.schema([("id", pa.string()), ("probs", probs.type)], metadata))


def _write_chip(path: Path, data: bytes) -> None:
    """Write under another name and rename; without fsync, since the CSV, written last, marks completion."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_bytes(data)
    temporary.replace(path)
