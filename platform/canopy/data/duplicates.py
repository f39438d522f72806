"""Images that are there twice, and images that show the same.

A duplicate on both sides of a split is a test question printed in the textbook; one with other labels is
label noise that can be measured. Equal pixels are found by hash. What shows the same (another
compression, brightness, contrast, a resize) is found in two steps: a 64-bit perceptual hash proposes
pairs, and the pixels confirm them. The second step is what makes it useful: hashes alone, followed from
neighbour to neighbour, chain hundreds of plain forest chips into one group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

THUMBNAIL = 32
"""Side in pixels of the grey thumbnails that hashes are computed from."""
MAX_DISTANCE = 10
"""Hashes that differ in at most this many of 64 bits propose a pair."""
MIN_CORRELATION = 0.92
"""Confirmed pairs correlate this well, both in their grey values and in their gradients."""
CHUNK = 256
"""Images, or rows of the table of hash distances, at a time."""


@dataclass(frozen=True)
class Duplicates:
    """Among N images.

    Attributes:
        equal: groups of ids whose chips are equal, pixel for pixel.
        near: pairs of ids that show the same, with the lower of their two correlations.
        disagreeing: pairs of ids, of either kind, whose labels differ.
        blank: ids of chips of one single colour; they are left out of the comparisons.
    """

    equal: list[list[str]]
    near: list[tuple[str, str, float]]
    disagreeing: list[tuple[str, str]]
    blank: list[str]

    def pairs(self) -> list[tuple[str, str]]:
        """All pairs of either kind; of a group of equals, its first member with each other one."""
        equal = [(group[0], other) for group in self.equal for other in group[1:]]
        return equal + [(a, b) for a, b, _ in self.near]

    def groups(self, ids: Sequence[str], known: Sequence[str] | None = None) -> NDArray[np.str_]:
        """A group name for each of ``ids``, shape (N,): the id of the group's first member.

        Joined are pairs that the pixels confirmed, and ids with an equal value of ``known`` (a scene), if
        it is not empty.
        """
        position = {name: n for n, name in enumerate(ids)}
        edges = [(position[a], position[b]) for a, b in self.pairs() if a in position and b in position]
        first_of: dict[str, int] = {}
        for n, value in enumerate(known or ()):
            if value:
                edges.append((first_of.setdefault(value, n), n))
        first, second = np.array(edges, np.int64).reshape(-1, 2).T
        graph = coo_array((np.ones(len(first)), (first, second)), (len(ids), len(ids)))
        _, component_N = connected_components(graph, directed=False)
        _, leader = np.unique(component_N, return_index=True)
        names_N = np.array(ids, np.str_)
        return np.asarray(names_N[leader[component_N]], np.str_)


def find_duplicates(
    ids: Sequence[str], chips_NHWC: NDArray[np.uint8], tags: Sequence[tuple[str, ...]]
) -> Duplicates:
    """Compare all images with all others; a memory-mapped array is read in chunks.

    Args:
        ids: name of each image.
        chips_NHWC: uint8, shape (N, S, S, 3).
        tags: labels of each image, in any order.
    """
    return compare(ids, pixel_hashes(chips_NHWC), thumbnails(chips_NHWC), tags)


def compare(
    ids: Sequence[str],
    hash_N: Sequence[bytes],
    thumbs_NSS: NDArray[np.float32],
    tags: Sequence[tuple[str, ...]],
) -> Duplicates:
    """As :func:`find_duplicates`, for data sets whose chips are too many to hold.

    Time grows with the square of N, by about 4 ns of one core per pair: 2 s for 32,000 images, half an
    hour for a million.

    Args:
        ids: name of each image.
        hash_N: its :func:`pixel_hashes`.
        thumbs_NSS: its :func:`thumbnails`, shape (N, 32, 32).
        tags: its labels, in any order.
    """
    assert len(ids) == len(hash_N) == len(thumbs_NSS) == len(tags)
    blank_N = np.ptp(thumbs_NSS, axis=(1, 2)) < 1e-3
    rows = np.flatnonzero(~blank_N)
    by_hash: dict[bytes, list[int]] = {}
    for n in rows.tolist():
        by_hash.setdefault(hash_N[n], []).append(n)
    firsts = np.array([group[0] for group in by_hash.values()], np.int64)  # equals are told of once
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


def pixel_hashes(chips_NHWC: NDArray[np.uint8]) -> list[bytes]:
    """16 bytes per chip that are equal exactly when its pixels are."""
    return [hashlib.blake2b(chip_HWC.tobytes(), digest_size=16).digest() for chip_HWC in chips_NHWC]


def thumbnails(chips_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey values (ITU-R 601) of shape (N, 32, 32), 0 to 255, averaged over areas."""
    size = chips_NHWC.shape[1]
    shrink_TS = area_weights(THUMBNAIL, size)
    out = np.empty((len(chips_NHWC), THUMBNAIL, THUMBNAIL), np.float32)
    for start in range(0, len(out), CHUNK):
        gray_NHW = chips_NHWC[start : start + CHUNK] @ np.array([0.299, 0.587, 0.114], np.float32)
        out[start : start + CHUNK] = shrink_TS @ gray_NHW @ shrink_TS.T
    return out


def area_weights(goal: int, size: int) -> NDArray[np.float32]:
    """Matrix of shape (goal, size): each goal pixel is the mean of the source interval under it."""
    edges_T = np.arange(goal + 1) * size / goal
    low, high = edges_T[:-1, None], edges_T[1:, None]
    pixel = np.arange(size)
    overlap_TS = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return np.asarray(overlap_TS / overlap_TS.sum(1, keepdims=True), np.float32)


def perceptual_hashes(thumbs_NSS: NDArray[np.float32]) -> NDArray[np.uint64]:
    """64 bits per thumbnail, shape (N,): which of the 8 x 8 lowest cosine coefficients exceed their median.

    The common "pHash" (Zauner, 2010): brightness and contrast do not change it, compression hardly.
    """
    low_N64 = dctn(thumbs_NSS, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(thumbs_NSS), 64)
    bits_N64 = low_N64 > np.median(low_N64[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits_N64, axis=1).view(np.uint64).ravel()


def near_pairs(
    thumbs_NSS: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Rows a < b that show the same, and the lower of the correlations of grey values and gradients.

    Both are taken at 16 x 16 pixels, where compression noise has been averaged away. The gradients must
    agree because two fields with an edge at the same place correlate in their grey values, but not in
    their texture; the grey values because two dull chips may share one bright corner and nothing else.
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
    """Each row less its mean and scaled to length 1; rows without variation become 0."""
    centered = values_NF - values_NF.mean(1, keepdims=True)
    return np.asarray(centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-3))


def _row_dots(
    values_NF: NDArray[np.float32], a: NDArray[np.int64], b: NDArray[np.int64]
) -> NDArray[np.float32]:
    out = np.empty(len(a), np.float32)
    for start in range(0, len(a), 4096):  # many pairs may pass the hash: keep the copies small
        part = slice(start, start + 4096)
        out[part] = np.einsum("nf,nf->n", values_NF[a[part]], values_NF[b[part]])
    return out
