"""Pairs of labels that look like one label, or that exclude each other."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def likely_misspellings(positives: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs (rare, frequent) of names that may be two spellings of one label.

    Two names are a pair when they are equal except for case, spaces, ``-`` and ``_``, or when difflib's ratio
    is at least 0.85 and one is twenty times as frequent as the other.
    """
    plain = {name: name.lower().translate(str.maketrans("", "", " -_")) for name in positives}
    pairs = []
    names = sorted(positives, key=lambda name: positives[name])
    for n, rare in enumerate(names):
        for frequent in names[n + 1 :]:
            same = plain[rare] == plain[frequent]
            lopsided = positives[frequent] >= 20 * max(positives[rare], 1)
            alike = difflib.SequenceMatcher(None, plain[rare], plain[frequent]).ratio() >= 0.85
            if same or (lopsided and alike):
                pairs.append((rare, frequent))
    return pairs


def exclusive_pairs(
    names: Sequence[str], targets_NK: NDArray[np.uint8], ids: Sequence[str]
) -> tuple[list[tuple[str, str]], list[tuple[str, str, list[str]]]]:
    """Pairs of labels that exclude each other.

    A pair qualifies when independent labels would share at least ten images (by Poisson, the chance of none
    is then e^-10) and at most a hundredth of that number does.

    Returns:
        Pairs that never occur together, and pairs that rarely do with the ids of those images.
    """
    together_KK = targets_NK.T.astype(np.int64) @ targets_NK
    positives_K = together_KK.diagonal()
    expected_KK = np.outer(positives_K, positives_K) / max(len(ids), 1)
    never, rarely = [], []
    for a, b in np.argwhere(np.triu((together_KK <= expected_KK / 100) & (expected_KK >= 10), 1)).tolist():
        if together_KK[a, b] == 0:
            never.append((names[a], names[b]))
        else:
            rows = np.flatnonzero(targets_NK[:, a] & targets_NK[:, b])
            rarely.append((names[a], names[b], [ids[n] for n in rows.tolist()]))
    return never, rarely
