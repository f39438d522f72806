"""BigEarthNet as it is distributed, in both versions.

Version 1::

    ROOT/<data.images>/PATCH/PATCH_B01.tif … PATCH_labels_metadata.json   labels of the 43
    ROOT/<lists>/train.csv, val.csv, test.csv         patch, and the Sentinel-1 patch of the pair where given
    ROOT/<lists>/patches_with_seasonal_snow.csv, patches_with_cloud_and_shadow.csv

Version 2 (reBEN)::

    ROOT/<data.csv>                                   patch_id, labels (of the 19), split, s1_name,
                                                      contains_seasonal_snow, contains_cloud_or_shadow
    ROOT/<data.images>/TILE/PATCH/PATCH_B01.tif …     TILE is PATCH without its two numbers

Sources: Sumbul et al., "BigEarthNet: A Large-Scale Benchmark Archive for Remote Sensing Image Understanding",
IGARSS 2019; Clasen et al., "reBEN: Refined BigEarthNet Dataset for Remote Sensing Image Analysis", 2024.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from canopy.config import SENTINEL1, BigEarthNetConfig, DataConfig
from canopy.config.bigearthnet import Reason
from canopy.data.bigearthnet_labels import LABELS_43, nomenclature, summarized
from canopy.data.label_cells import cell_text, parse_labels
from canopy.data.label_table import SPLIT_NAMES, TRUTH, Entry
from canopy.data.listing import is_hidden
from canopy.data.table_files import Cells, read_rows
from canopy.errors import DataError, StorageError, nearest
from canopy.storage import files

SPLIT_LISTS = {"train": "train.csv", "val": "val.csv", "test": "test.csv"}
LEFT_OUT_LISTS: dict[Reason, str] = {
    "snow": "patches_with_seasonal_snow.csv",
    "clouds": "patches_with_cloud_and_shadow.csv",
}
LEFT_OUT_COLUMNS: dict[Reason, str] = {
    "snow": "contains_seasonal_snow",
    "clouds": "contains_cloud_or_shadow",
}
WORDS: dict[Reason, str] = {"snow": "with seasonal snow", "clouds": "with clouds or their shadows"}
METADATA = "_labels_metadata.json"
MAX_METADATA_BYTES = 1_000_000
METADATA_THREADS = 16
"""Files of metadata of version 1 that are read at a time; reading them is waiting for the disk."""
METADATA_BLOCK = 4096
"""Files that are asked for ahead, so that an error ends the reading."""


class Patches(NamedTuple):
    """The patches of an archive.

    Attributes:
        entries: the patches that are used, in order.
        names: their labels, in the order of the nomenclature.
        strays: reason by patch, for patches whose metadata cannot be read.
        notes: what was left out on purpose, one sentence each.
    """

    entries: list[Entry]
    names: tuple[str, ...]
    strays: dict[str, str]
    notes: tuple[str, ...]


def bigearthnet_patches(config: DataConfig, root: str, directory: str) -> Patches:
    """List the patches of BigEarthNet.

    Args:
        config: the data section.
        root: directory or URI of the archive.
        directory: the folder of the Sentinel-2 patches.

    Raises:
        DataError: when a list, the table or a column is missing, a label or a split is unknown, or no patch
            is left.
        StorageError: when an object store refuses.
    """
    own = config.bigearthnet
    strays: dict[str, str] = {}
    with_pairs = any(band.column is not None for band in config.bands)
    if own.version == 1:
        entries, left_out = _version_1(own, root, directory, strays, with_pairs)
    else:
        entries, left_out = _version_2(config, root, with_pairs)
    kept = [entry for entry in entries if entry.tags]
    notes = [
        f"{_patches(count)} {WORDS[reason]} {_are(count)} left out."
        for reason, count in left_out.items()
        if count
    ]
    if len(kept) < len(entries):
        count = len(entries) - len(kept)
        have = "has" if count == 1 else "have"
        notes.append(
            f"{_patches(count)} {have} none of the {own.nomenclature} labels and {_are(count)} left out."
        )
    if not kept:
        got = f"{len(entries)} patches, none with a label" if entries else "none"
        remedy = "Check data.root, data.images and data.bigearthnet."
        raise DataError(directory, "must hold a patch that can be used", got, remedy)
    occurring = {tag for entry in kept for tag in entry.tags}
    names = tuple(name for name in nomenclature(own.nomenclature) if name in occurring)
    return Patches(kept, names, strays, tuple(notes))


def _patches(count: int) -> str:
    return "1 patch" if count == 1 else f"{count:,} patches"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _version_1(
    own: BigEarthNetConfig, root: str, directory: str, strays: dict[str, str], with_pairs: bool
) -> tuple[list[Entry], dict[Reason, int]]:
    lists = files.join(root, own.lists) if own.lists else root
    dropped = {reason: _names(files.join(lists, LEFT_OUT_LISTS[reason])) for reason in own.leave_out}
    listed = _split_lists(lists, with_pairs) if own.official_splits else {}
    on_disk = [folder for folder in files.list_directories(directory) if not is_hidden(folder)]
    missing = sorted(set(listed) - set(on_disk))
    strays |= {patch: f"there is no folder {directory}/{patch}" for patch in missing}
    left_out = dict.fromkeys(own.leave_out, 0)
    wanted, entries = [], []
    for patch in on_disk:
        if own.official_splits and patch not in listed:
            continue
        reason = next((reason for reason, names in dropped.items() if patch in names), None)
        if reason is None:
            wanted.append(patch)
        else:
            left_out[reason] += 1
    for patch, labels in _read_metadata(directory, wanted):
        if isinstance(labels, str):
            strays[patch] = labels
            continue
        _require_known(files.join(directory, patch, patch + METADATA), labels, LABELS_43)
        tags = labels if own.nomenclature == 43 else summarized(labels)
        split, pair = listed.get(patch, ("", ""))
        pairs = _pair_files(own, root, pair) if with_pairs else ()
        entries.append(Entry(patch, tags, patch, split, "", patch, pairs))
    return entries, left_out


def _split_lists(lists: str, with_pairs: bool) -> dict[str, tuple[str, str]]:
    """Split and Sentinel-1 patch ("" for none) of each patch of version 1's lists."""
    listed: dict[str, tuple[str, str]] = {}
    for split, file in SPLIT_LISTS.items():
        for where, patch, pair in _lines(files.join(lists, file)):
            if with_pairs and not pair:
                need, remedy = (
                    "must name the Sentinel-1 patch in its second column",
                    "Take BigEarthNet-MM's lists.",
                )
                raise DataError(where, need, patch, remedy)
            before, _ = listed.setdefault(patch, (split, pair))
            if before != split:
                raise DataError(where, f"must not name a patch of {before}", patch, "Restore the lists.")
    return listed


def _read_metadata(directory: str, patches: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...] | str]]:
    """Each patch with its labels, or the reason why they cannot be read, in order.

    All are read, also with ``data.limit``: whether a patch has a label decides whether it can be drawn.

    Raises:
        StorageError: when an object store refuses.
    """

    def read(patch: str) -> tuple[str, ...] | str:
        path = files.join(directory, patch, patch + METADATA)
        try:
            return _labels_of(files.read_bytes(path, MAX_METADATA_BYTES))
        except StorageError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            return f"its {patch}{METADATA} cannot be read: {getattr(error, 'strerror', None) or error}"

    with ThreadPoolExecutor(METADATA_THREADS) as pool:
        for start in range(0, len(patches), METADATA_BLOCK):
            block = patches[start : start + METADATA_BLOCK]
            yield from zip(block, pool.map(read, block), strict=True)


def _labels_of(data: bytes) -> tuple[str, ...]:
    """The labels of a patch's metadata.

    Raises:
        ValueError: when it is not JSON, or has no list of labels.
    """
    content = json.loads(data)
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("it has no list of labels")
    return tuple(dict.fromkeys(labels))


def _version_2(config: DataConfig, root: str, with_pairs: bool) -> tuple[list[Entry], dict[Reason, int]]:
    own = config.bigearthnet
    columns = ["patch_id", "labels", *(LEFT_OUT_COLUMNS[reason] for reason in own.leave_out)]
    columns += [*(["split"] if own.official_splits else []), *(["s1_name"] if with_pairs else [])]
    left_out = dict.fromkeys(own.leave_out, 0)
    entries = []
    for table in (config.csv, *((own.more_metadata,) if own.more_metadata else ())):
        path = files.join(root, table)
        for place, cells in read_rows(path, columns, ","):
            where = f"{path}, {place}"
            reason = next((r for r in own.leave_out if _truth(where, cells, LEFT_OUT_COLUMNS[r])), None)
            if reason is not None:
                left_out[reason] += 1
                continue
            entries.append(_row(where, cells, own, root, with_pairs))
    return entries, left_out


def _row(where: str, cells: Cells, own: BigEarthNetConfig, root: str, with_pairs: bool) -> Entry:
    patch = cell_text(cells["patch_id"])
    tile = patch.rsplit("_", 2)[0]
    if patch.count("_") < 3 or "/" in patch:
        remedy = "Take the table of version 2, or set data.bigearthnet.version."
        raise DataError(where, "must name a patch, TILE_COLUMN_ROW", patch or "nothing", remedy)
    split = cell_text(cells["split"]).lower() if own.official_splits else ""
    if split not in SPLIT_NAMES or (own.official_splits and not split):
        raise DataError(where, "must have train, validation or test as its split", split, "Correct it.")
    tags = parse_labels(f"{where}, column labels", cells["labels"], ";")
    _require_known(where, tags, nomenclature(19))
    pairs = _pair_files(own, root, cell_text(cells["s1_name"])) if with_pairs else ()
    return Entry(patch, tags, f"{tile}/{patch}", SPLIT_NAMES[split], "", where, pairs)


def _truth(where: str, cells: Mapping[str, Any], column: str) -> bool:
    value = cell_text(cells[column]).lower()
    if value not in TRUTH or not value:
        raise DataError(f"{where}, column {column}", "must be true or false", value, "Correct it.")
    return TRUTH[value]


def _pair_files(own: BigEarthNetConfig, root: str, pair: str) -> tuple[tuple[str, str], ...]:
    """Column and address of each band of a Sentinel-1 patch; in version 2 it lies in its scene's folder."""
    folder = pair if own.version == 1 else f"{pair.rsplit('_', 3)[0]}/{pair}"
    base = files.join(root, own.sentinel1 or "", *folder.split("/"))
    return tuple((column, f"{base}/{pair}_{column}.tif") for column in SENTINEL1)


def _require_known(where: str, labels: Sequence[str], known: Sequence[str]) -> None:
    for label in labels:
        if label not in known:
            need = f"must have labels of the {len(known)} of BigEarthNet"
            raise DataError(where, need, repr(label), nearest(label, known))


def _names(path: str) -> set[str]:
    return {patch for _, patch, _ in _lines(path)}


def _lines(path: str) -> Iterator[tuple[str, str, str]]:
    """Place, patch and Sentinel-1 patch ("" for none) of each line of a list without a header."""
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
    except StorageError:
        raise
    except OSError:
        remedy = (
            "Put it there, name its folder in data.bigearthnet.lists, or change official_splits or leave_out."
        )
        raise DataError("A list of BigEarthNet", "must be a file that can be read", path, remedy) from None
    except UnicodeDecodeError as error:
        raise DataError(path, "must be UTF-8 text", f"byte {error.start} is not", "Restore it.") from None
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.split(",")]
        if cells[0]:
            yield f"{path}, line {number}", cells[0], cells[1] if len(cells) > 1 else ""
