"""Duplicates and near-duplicates among the images of a data set.

A duplicate on both sides of a split leaks test data into training; a duplicate with other labels is
measurable label noise. Equal pixels are found by hash. Near-duplicates (another compression, brightness,
contrast or size) are found in two steps: a 64-bit perceptual hash proposes pairs, and the pixels confirm
them. Without the second step, hashes would chain hundreds of plain forest chips into one group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

THUMBNAIL = 32
"""Height and width in pixels of the grayscale thumbnails from which hashes are computed."""
MAX_DISTANCE = 10
"""Maximum number of different bits, of 64, for which two hashes propose a pair."""
MIN_CORRELATION = 0.92
"""Minimum correlation of a confirmed pair, both of gray values and of gradients."""
CHUNK = 256
"""Number of images, or of rows of the table of hash distances, that are processed at once."""


@dataclass(frozen=True)
class Duplicates:
    """The duplicates among N images.

    Attributes:
        equal: groups of ids whose chips have equal pixels.
        near: pairs of ids that are near-duplicates, with the lower of their two correlations.
        disagreeing: pairs of ids of either kind whose labels differ.
        blank: ids of chips with a single color; they are left out of the comparisons.
    """

    equal: list[list[str]]
    near: list[tuple[str, str, float]]
    disagreeing: list[tuple[str, str]]
    blank: list[str]

    def pairs(self) -> list[tuple[str, str]]:
        """All pairs of either kind; a group of equals gives pairs with its first member."""
        equal = [(group[0], other) for group in self.equal for other in group[1:]]
        return equal + [(a, b) for a, b, _ in self.near]

    def groups(self, ids: Sequence[str], *known: Sequence[str] | None) -> NDArray[np.str_]:
        """A group name for each id, shape (N,): the id of the group's first member.

        Duplicates are in one group, and so are ids with an equal value in one of ``known``.

        Args:
            ids: ids of the N images.
            known: known groups of the images, such as scenes or spatial blocks; "" for none.
        """
        position = {name: n for n, name in enumerate(ids)}
        edges = [(position[a], position[b]) for a, b in self.pairs() if a in position and b in position]
        for values in known:
            first_of: dict[str, int] = {}
            for n, value in enumerate(values or ()):
                if value:
                    edges.append((first_of.setdefault(value, n), n))
        first, second = np.array(edges, np.int64).reshape(-1, 2).T
        graph = coo_array((np.ones(len(first)), (first, second)), (len(ids), len(ids)))
        _, component_N = connected_components(graph, directed=False)
        _, leader = np.unique(component_N, return_index=True)
        names_N = np.array(ids, np.str_)
        return np.asarray(names_N[leader[component_N]], np.str_)


def find_duplicates(
    ids: Sequence[str], chips_NHWC: NDArray[Any], tags: Sequence[tuple[str, ...]]
) -> Duplicates:
    """Find the duplicates among N images; a memory-mapped array is read in chunks.

    Args:
        ids: id of each image.
        chips_NHWC: uint8, shape (N, S, S, 3).
        tags: labels of each image, in any order.
    """
    return duplicates_from_hashes(ids, pixel_hashes(chips_NHWC), thumbnails(chips_NHWC), tags)


def duplicates_from_hashes(
    ids: Sequence[str],
    hash_N: Sequence[bytes],
    thumbs_NSS: NDArray[np.float32],
    tags: Sequence[tuple[str, ...]],
) -> Duplicates:
    """Find duplicates as :func:`find_duplicates` does, without the chips.

    The time grows with the square of N, about 4 ns of one core per pair.

    Args:
        ids: id of each image.
        hash_N: hashes of :func:`pixel_hashes`.
        thumbs_NSS: thumbnails of :func:`thumbnails`, shape (N, 32, 32).
        tags: labels of each image, in any order.
    """
    assert len(ids) == len(hash_N) == len(thumbs_NSS) == len(tags)
    blank_N = np.ptp(thumbs_NSS, axis=(1, 2)) < 1e-3
    rows = np.flatnonzero(~blank_N)
    by_hash: dict[bytes, list[int]] = {}
    for n in rows.tolist():
        by_hash.setdefault(hash_N[n], []).append(n)
    firsts = np.array([group[0] for group in by_hash.values()], np.int64)  # equal images are compared once
    first, second, correlation = near_pairs(thumbs_NSS[firsts])
    near = zip(firsts[first].tolist(), firsts[second].tolist(), correlation.tolist(), strict=True)
    found = Duplicates(
        equal=[[ids[n] for n in group] for group in by_hash.values() if len(group) > 1],
        near=[(ids[a], ids[b], round(r, 4)) for a, b, r in near],
        disagreeing=[],
        blank=[ids[n] for n in np.flatnonzero(blank_N).tolist()],
    )
    labels = {name: frozenset(row) for name, row in zip(ids, tags, strict=True)}
    found.disagreeing.extend((a, b) for a, b in found.pairs() if labels[a] != labels[b])
    return found


def pixel_hashes(chips_NHWC: NDArray[Any]) -> list[bytes]:
    """A hash of 16 bytes per chip; equal hashes mean equal pixels."""
    return [hashlib.blake2b(chip_HWC.tobytes(), digest_size=16).digest() for chip_HWC in chips_NHWC]


def thumbnails(chips_NHWC: NDArray[Any]) -> NDArray[np.float32]:
    """Gray values averaged over areas, shape (N, 32, 32).

    Those of uint8 RGB are ITU-R BT.601, 0 to 255; those of other chips are means over the bands, each
    scaled to its largest level in the chip, 0 to 255.
    """
    size, channels = chips_NHWC.shape[1], chips_NHWC.shape[3]
    is_rgb = channels == 3 and chips_NHWC.dtype == np.uint8
    shrink_TS = area_weights(THUMBNAIL, size)
    out = np.empty((len(chips_NHWC), THUMBNAIL, THUMBNAIL), np.float32)
    for start in range(0, len(out), CHUNK):
        chunk_nHWC = chips_NHWC[start : start + CHUNK]
        if is_rgb:
            gray_NHW = chunk_nHWC @ np.array([0.299, 0.587, 0.114], np.float32)
        else:
            largest_nC = np.maximum(chunk_nHWC.max((1, 2)), 1).astype(np.float32)
            gray_NHW = np.einsum("nhwc,nc->nhw", chunk_nHWC, 255 / channels / largest_nC)
        out[start : start + CHUNK] = shrink_TS @ gray_NHW @ shrink_TS.T
    return out


def area_weights(target: int, size: int) -> NDArray[np.float32]:
    """The matrix (target, size) that averages ``size`` pixels to ``target`` pixels by area."""
    edges_T = np.arange(target + 1) * size / target
    low, high = edges_T[:-1, None], edges_T[1:, None]
    pixel = np.arange(size)
    overlap_TS = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return np.asarray(overlap_TS / overlap_TS.sum(1, keepdims=True), np.float32)


def perceptual_hashes(thumbs_NSS: NDArray[np.float32]) -> NDArray[np.uint64]:
    """The "pHash" of each thumbnail, 64 bits, shape (N,).

    Each bit says whether one of the 8 x 8 lowest cosine coefficients exceeds their median. Brightness and
    contrast do not change the hash; compression changes few bits.

    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
    """
    low_N64 = dctn(thumbs_NSS, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(thumbs_NSS), 64)
    bits_N64 = low_N64 > np.median(low_N64[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits_N64, axis=1).view(np.uint64).ravel()


def near_pairs(
    thumbs_NSS: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """P pairs of near-duplicates: rows a < b, the lower correlation of gray values and gradients; (P,) each.

    Both correlations use 16 x 16 pixels, which averages compression noise. Gradients must correlate because
    two fields with an edge at the same position correlate in gray values but not in texture. Gray values
    must correlate because the gradients of two plain chips may have one bright corner in common and nothing
    else.
    """
    hash_N = perceptual_hashes(thumbs_NSS)
    small_N = thumbs_NSS.reshape(-1, 16, 2, 16, 2).mean((2, 4))
    values_NF = unit_rows(small_N.reshape(len(hash_N), 16 * 16))
    steps = [np.diff(small_N, axis=axis).reshape(len(hash_N), 15 * 16) for axis in (1, 2)]
    gradients_NF = unit_rows(np.hstack(steps))
    first, second, lower = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, len(hash_N), CHUNK):
        distance = np.bitwise_count(hash_N[start : start + CHUNK, None] ^ hash_N[start:])
        a, b = np.nonzero(distance <= MAX_DISTANCE)
        a, b = a[b > a] + start, b[b > a] + start
        correlation = np.minimum(_row_dots(values_NF, a, b), _row_dots(gradients_NF, a, b))
        kept = correlation >= MIN_CORRELATION
        first.append(a[kept])
        second.append(b[kept])
        lower.append(correlation[kept])
    return np.concatenate(first), np.concatenate(second), np.concatenate(lower)


def unit_rows(values_NF: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtract each row's mean and scale the row to length 1, shape (N, F); constant rows become 0."""
    centered = values_NF - values_NF.mean(1, keepdims=True)
    return np.asarray(centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-3))


def _row_dots(
    values_NF: NDArray[np.float32], a: NDArray[np.int64], b: NDArray[np.int64]
) -> NDArray[np.float32]:
    out = np.empty(len(a), np.float32)
    for start in range(0, len(a), 4096):  # many pairs may pass the hash; small copies limit the memory
        part = slice(start, start + 4096)
        out[part] = np.einsum("nf,nf->n", values_NF[a[part]], values_NF[b[part]])
    return out
