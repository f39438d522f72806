"""Checks of a data set before training.

Pure functions over a listing and the inspections of its images. The decoding itself runs elsewhere, in
parallel; each image gives one :class:`~canopy.data.raster.try_decode.Inspection`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import allowed_count
from canopy.data.duplicates import Duplicates
from canopy.data.label_checks import exclusive_pairs, likely_misspellings
from canopy.errors import DataError

if TYPE_CHECKING:
    from canopy.data.catalogue import Catalogue
    from canopy.data.listing import Listing
    from canopy.data.raster.try_decode import Inspection

LARGE_GROUP = 50
"""Size of a group of duplicates, in images, from which a warning names it."""
DARK = 48
"""Gray value, of 255, below which a whole image counts as nearly black; sunlit ground is brighter."""
DARK_SHARE = 0.1
"""Share of the images of more than 8 bits that may be nearly black without a warning (water, night)."""


@dataclass(frozen=True)
class Validation:
    """Findings about a data set; all values can be written as JSON.

    Attributes:
        rows: number of images that the labels name, missing ones included.
        bad: reason by id, for each image that is missing, unreadable or repeated, or has an unknown label.
        sizes: number of images by size ("256x256"), the most frequent first.
        modes: number of images by mode, the most frequent first.
        unusual: difference from the most frequent size and mode, by id, for images that differ.
        unlabelled: number of images without a label.
        positives: number of images by label, bad ones left out.
        together: number of images that have both labels, for each pair of labels.
        exclusive: pairs of labels that never occur together, though independent labels often would.
        contradictions: pairs of labels that rarely occur together, with the ids of those images.
        suspects: pairs of label names (rare, frequent) that may be two spellings of one label.
        duplicates: repeated and nearly repeated images; None when they were not searched for.
        nodata: share of pixels that were filled, by id, for chips of ``data.bands`` that have some.
    """

    rows: int
    bad: dict[str, str]
    sizes: dict[str, int]
    modes: dict[str, int]
    unusual: dict[str, str]
    unlabelled: int
    positives: dict[str, int]
    together: dict[str, dict[str, int]]
    exclusive: list[tuple[str, str]]
    contradictions: list[tuple[str, str, list[str]]]
    suspects: list[tuple[str, str]]
    duplicates: Duplicates | None = None
    nodata: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The findings as values that JSON can hold; ``nodata`` only where a chip has some."""
        found = asdict(self)
        return found if self.nodata else {k: v for k, v in found.items() if k != "nodata"}

    def warnings(self) -> list[str]:
        """Warnings for the console, one sentence each; empty for a clean data set."""
        out = []
        if self.bad:
            out.append(f"{len(self.bad)} of {self.rows} images are left out: {_first_names(self.bad)}.")
        if self.unusual:
            usual = f"{next(iter(self.sizes))} {next(iter(self.modes))}"
            named = _first_names(f"{name} ({how})" for name, how in self.unusual.items())
            out.append(f"Not all images are {usual}: {named}.")
        if self.unlabelled:
            out.append(f"{self.unlabelled} images have no label; they count as negatives of every label.")
        for rare, frequent in self.suspects:
            counts = f"{self.positives[rare]} and {self.positives[frequent]} images"
            out.append(f"The labels {rare!r} and {frequent!r} ({counts}) may be two spellings of one label.")
        for a, b, names in self.contradictions:
            out.append(f"{a} and {b} exclude each other, except in {_first_names(names)}.")
        if self.duplicates is not None:
            out.extend(self._duplicate_warnings(self.duplicates))
        return out

    def _duplicate_warnings(self, found: Duplicates) -> list[str]:
        out = []
        if found.blank:
            out.append(f"{len(found.blank)} images have a single color: {_first_names(found.blank)}.")
        if found.equal:
            groups = _first_names(" = ".join(group) for group in found.equal)
            out.append(f"{len(found.equal)} groups of images are equal, pixel for pixel: {groups}.")
        if found.near:
            pairs = _first_names(f"{a} ~ {b}" for a, b, _ in found.near)
            out.append(f"{len(found.near)} pairs of images are near-duplicates: {pairs}.")
        shown = list(dict.fromkeys(name for pair in found.pairs() for name in pair))
        groups_N, sizes = np.unique(found.groups(shown), return_counts=True)
        if len(sizes) and sizes.max() >= LARGE_GROUP:
            first = groups_N[sizes.argmax()]
            out.append(
                f"{sizes.max()} images form one group of duplicates (with {first}): they stay in one split."
            )
        if found.disagreeing:
            pairs = _first_names(f"{a}, {b}" for a, b in found.disagreeing)
            out.append(f"{len(found.disagreeing)} pairs of duplicates have different labels: {pairs}.")
        return out


def refuse_bad(bad: Mapping[str, str], rows: int, max_bad_fraction: float, report: str) -> None:
    """Stop when too many images cannot be used.

    Args:
        bad: reason by id.
        rows: number of images, bad ones included.
        max_bad_fraction: share that may be bad. All images bad is always an error.
        report: path of the file that lists all of them.

    Raises:
        DataError: naming the first bad images with their reasons.
    """
    if len(bad) <= allowed_count(max_bad_fraction, rows) and len(bad) < rows:
        return
    first = "; ".join(f"{name}: {why}" for name, why in list(bad.items())[:5])
    remedy = f"Repair or remove them ({report} lists all), correct data.*, or raise data.max_bad_fraction."
    reasons = set(bad.values())
    if len(bad) == rows:  # no fraction helps
        remedy = f"Repair or replace them ({report} lists all), or correct data.*."
        if len(reasons) == 1:  # the reason has its own remedy
            remedy = f"All images have this problem; {report} lists them."
    if len(reasons) == 1 < len(bad):
        first = f"{next(iter(bad))}; the reason of all: {next(iter(reasons))}"
    raise DataError(
        "Images that cannot be used",
        f"must be at most {max_bad_fraction:.4g} of all (data.max_bad_fraction)",
        f"{len(bad)} of {rows}, first {first}",
        remedy,
    )


def validate(
    listing: Listing, inspections: Sequence[Inspection], duplicates: Duplicates | None = None
) -> Validation:
    """Combine all findings.

    Args:
        listing: the N images that exist.
        inspections: one per image.
        duplicates: result of the search for duplicates; None when it has not run.
    """
    assert len(inspections) == len(listing)
    bad = listing.bad | {
        name: seen.problem for name, seen in zip(listing.ids, inspections, strict=True) if seen.problem
    }
    good = [n for n, seen in enumerate(inspections) if not seen.problem]
    ids = [listing.ids[n] for n in good]
    seen = [inspections[n] for n in good]
    sizes = Counter(f"{one.width}x{one.height}" for one in seen).most_common()
    modes = Counter(one.mode for one in seen).most_common()
    targets_NK = listing.labels.encode([listing.tags[n] for n in good])
    names = listing.labels.names
    together_KK = targets_NK.T.astype(np.int64) @ targets_NK
    positives = dict(zip(names, together_KK.diagonal().tolist(), strict=True))
    exclusive, contradictions = exclusive_pairs(names, targets_NK, ids)
    return Validation(
        rows=len(listing) + len(listing.bad),
        bad=bad,
        sizes=dict(sizes),
        modes=dict(modes),
        unusual=_unusual(ids, seen, {key for counts in (sizes, modes) for key, _ in counts[:1]}),
        unlabelled=int((targets_NK.sum(1) == 0).sum()),
        positives=positives,
        together={a: dict(zip(names, together_KK[k].tolist(), strict=True)) for k, a in enumerate(names)},
        exclusive=exclusive,
        contradictions=contradictions,
        suspects=likely_misspellings(positives),
        duplicates=duplicates,
        nodata={name: round(one.nodata, 6) for name, one in zip(ids, seen, strict=True) if one.nodata},
    )


def _unusual(ids: Sequence[str], seen: Sequence[Inspection], usual: set[str]) -> dict[str, str]:
    """Size and mode, where not in ``usual``, by id."""
    out: dict[str, str] = {}
    for name, one in zip(ids, seen, strict=True):
        odd = [what for what in (f"{one.width}x{one.height}", one.mode) if what not in usual]
        if odd:
            out[name] = ", ".join(odd)
    return out


def refuse_unlearnable(catalogue: Catalogue, limit: int | None = None) -> None:
    """Stop when a label has no positive in the training rows, or in those of one fold's model.

    Args:
        catalogue: catalogue with splits and folds.
        limit: ``data.limit``, for the remedy.

    Raises:
        DataError: naming the label.
    """
    parts = {"train": catalogue.rows("train")}
    if catalogue.folds > 1:
        for fold in range(catalogue.folds):
            parts[f"train without fold {fold}"] = catalogue.rows("train", not_fold=fold)
    for part, rows in parts.items():
        for name, count in catalogue.counts(rows).items():
            if count == 0:
                remedies = ["Add images with this label", "delete it from the label table and data.labels"]
                remedies += ["lower folds"] if part != "train" else []
                remedies += ["raise data.limit"] if limit is not None else []
                raise DataError(
                    f"The label {name}",
                    f"must have a positive in {part}",
                    f"0 in {len(rows)} rows",
                    f"{', '.join(remedies[:-1])}, or {remedies[-1]}.",
                )


def label_warnings(catalogue: Catalogue) -> list[str]:
    """Warnings about labels that are too rare for the splits and folds, one sentence each."""
    warnings = []
    for name, count in catalogue.counts(catalogue.rows("train")).items():
        if count < catalogue.folds:
            held_out = f"some of the {catalogue.folds} folds hold out none and cannot be scored for it"
            warnings.append(f"{name} has only {count} positives in train: {held_out}.")
    for split in ("val", "test"):
        for name, count in catalogue.counts(catalogue.rows(split)).items():
            if count == 0:
                warnings.append(f"{name} has no positive in {split}: its score there is undefined.")
    return warnings


def level_warnings(inspections: Sequence[Inspection], thumbs_NSS: NDArray[np.float32]) -> list[str]:
    """A warning when many images of more than 8 bits are nearly black, so that a level is probably wrong.

    Args:
        inspections: N findings, whose depth says which images are concerned.
        thumbs_NSS: N small gray versions, 0 to 255. An image is dark when its brightest value is.
    """
    deep = [n for n, found in enumerate(inspections) if found.bits > 8]
    brightest_n = thumbs_NSS[deep].max(axis=(1, 2)) if deep else np.zeros(0)
    dark = np.flatnonzero(brightest_n < DARK)
    if len(dark) <= DARK_SHARE * len(deep):
        return []
    depths = sorted({inspections[n].bits for n in deep})
    return [
        f"{len(dark)} of {len(deep)} images of {' and '.join(map(str, depths))} bits are nearly black, "
        f"{brightest_n[dark].max():.0f} of 255 at most: set data.sensor.white to the highest useful value."
    ]


def leakage_warnings(catalogue: Catalogue, duplicates: Duplicates) -> list[str]:
    """Warnings about duplicates and groups on two sides of a split or fold, one sentence each.

    Groups (a scene) can be divided only where the table has a column of splits.
    """
    part = {
        name: f"{split} {fold}" if split == "train" else str(split)
        for name, split, fold in zip(catalogue.ids, catalogue.split, catalogue.fold, strict=True)
    }
    pairs = [(a, b) for a, b in duplicates.pairs() if a in part and b in part and part[a] != part[b]]
    group = dict(zip(catalogue.ids, catalogue.group.tolist(), strict=True))
    sides: dict[str, set[str]] = {}
    for name, side in part.items():
        sides.setdefault(group[name], set()).add(side)
    named = {group[a] for a, _ in pairs}
    divided = [name for name, parts in sides.items() if len(parts) > 1 and name not in named]
    scenes = f"{len(divided)} groups have images on two sides of a split: {_first_names(divided)}."
    return [scenes] * bool(divided) + [
        f"{a} ({part[a]}) and {b} ({part[b]}) are duplicates on two sides of a split." for a, b in pairs
    ]


def _first_names(names: Iterable[str], count: int = 5) -> str:
    """The first names, and the number of the others."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
