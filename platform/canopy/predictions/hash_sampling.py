"""Hashes of ids, and the stratified folds and samples derived from them.

Hashes and samples depend on the ids alone, folds also on the targets; none depends on the order of rows.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def hash_ids(ids_N: NDArray[np.str_], salt: str = "") -> NDArray[np.uint64]:
    """64-bit hash of each id, shape (N,): FNV-1a over code points, finished by splitmix64."""
    ids = np.ascontiguousarray(ids_N.astype(np.str_, copy=False))
    width = max(ids.dtype.itemsize // 4, 1)
    points_NL = ids.view(np.uint32).reshape(len(ids), width) if len(ids) else np.zeros((0, 1), np.uint32)
    seed = int.from_bytes(hashlib.blake2b(salt.encode(), digest_size=8).digest(), "little")
    state = np.full(len(ids), seed, np.uint64)
    with np.errstate(over="ignore"):
        for column in points_NL.T:  # zeros pad shorter ids and must not change their hash
            state = np.where(column > 0, (state ^ column) * np.uint64(0x100000001B3), state)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)), np.uint64)


def folds_of(
    ids_N: NDArray[np.str_], targets_NK: NDArray[np.uint8], folds: int, seed: int = 0
) -> NDArray[np.intp]:
    """A fold in [0, folds) for each row, shape (N,), stratified by the row's rarest label.

    Rows in the order of stratum and hash are dealt to the folds in turn, so that the positives of every class
    spread evenly. The fold of a row depends on the set of rows, not on their order.

    Args:
        ids_N: ids of the rows.
        targets_NK: targets, 0 and 1.
        folds: number of folds.
        seed: seed of the hash.
    """
    frequency_K = targets_NK.sum(axis=0)
    rank_K = np.argsort(np.argsort(frequency_K, kind="stable"), kind="stable")
    stratum_N = np.where(targets_NK > 0, rank_K, targets_NK.shape[1]).min(axis=1, initial=targets_NK.shape[1])
    order = np.lexsort((hash_ids(ids_N, f"folds {seed}"), stratum_N))
    fold_N = np.empty(len(ids_N), np.intp)
    fold_N[order] = np.arange(len(ids_N)) % folds
    return fold_N


def sample_of(ids_N: NDArray[np.str_], num_rows: int, seed: int = 0) -> NDArray[np.intp]:
    """Rising positions of the ``num_rows`` ids with the lowest hash, shape (min(N, num_rows),)."""
    if len(ids_N) <= num_rows:
        return np.arange(len(ids_N))
    hashes = hash_ids(ids_N, f"sample {seed}")
    return np.sort(np.argpartition(hashes, num_rows)[:num_rows])
