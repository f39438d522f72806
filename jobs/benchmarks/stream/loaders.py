"""The rivals of the data benchmarks: torch's DataLoader at its best, and a decoder with nothing around it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from canopy.config import AugmentConfig
from canopy.data.loading.batch_sampler import BatchSampler
from canopy.data.loading.chip_cache import ChipCache
from canopy.data.loading.chunks import augment_into, gather_into
from canopy.data.transforms.augment import AugmentParams, draw_params
from canopy.storage.files import read_bytes

PREFETCH = 8
"""Batches that each loader process makes ahead."""

Batch = tuple[NDArray[np.int64], Tensor]


class FileBatches(Dataset[Batch]):
    """Whole batches by step, decoded from files: what our stream delivers, without Ray.

    As fast as it can be made: no sample-wise collation, chips decoded and augmented by our own kernels while
    they lie in the processor's cache, one message per batch to the training process.
    """

    def __init__(self, files: tuple[str, ...], plan: BatchSampler, augment: AugmentConfig, size: int) -> None:
        self._files = np.array(files)  # an array: forked processes do not copy it by counting references
        self._plan, self._augment, self._size = plan, augment, size
        self._epoch, self._order_N = -1, np.empty(0, np.int64)

    def __getitem__(self, step: int) -> Batch:
        rows_n = self.rows(step)
        params = draw_params(self._augment, self._plan.batch_size, self._plan.step_rng(step))
        side = self._augment.crop or self._size
        images_nHWC = np.empty((len(rows_n), side, side, 3), np.uint8)
        self.make(rows_n, params, images_nHWC)
        return rows_n, torch.from_numpy(images_nHWC)

    def make(self, rows_n: NDArray[np.int64], params: AugmentParams, images_nHWC: NDArray[np.uint8]) -> None:
        """Write the augmented images of ``rows_n`` to their places."""
        augment_into(
            images_nHWC, self._size, params, lambda piece, place: self.read_into(rows_n[piece], place)
        )

    def rows(self, step: int) -> NDArray[np.int64]:
        """As :meth:`BatchSampler.batches`, the order of an epoch drawn once."""
        epoch, place = divmod(step, self._plan.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order_N = epoch, self._plan.epoch_order(epoch)
        return self._order_N[place * self._plan.batch_size : (place + 1) * self._plan.batch_size]

    def read_into(self, rows_n: NDArray[np.int64], chips_nHWC: NDArray[np.uint8]) -> None:
        """Decode the chips of ``rows_n`` into their places, shape (n, size, size, 3)."""
        for chip, file in zip(chips_nHWC, self._files[rows_n].tolist(), strict=True):
            simplejpeg.decode_jpeg(read_bytes(file), "RGB", strict=True, buffer=chip)


class CachedBatches(FileBatches):
    """The same batches, cut out of a decoded uint8 cache, memory-mapped."""

    def __init__(self, cache: Path, plan: BatchSampler, augment: AugmentConfig, size: int) -> None:
        super().__init__((), plan, augment, size)
        self._cache = cache
        self._chips_NHWC: NDArray[np.uint8] | None = None

    def make(self, rows_n: NDArray[np.int64], params: AugmentParams, images_nHWC: NDArray[np.uint8]) -> None:
        """Each image straight from the cache to its place."""
        if self._chips_NHWC is None:
            self._chips_NHWC = np.load(self._cache, mmap_mode="r").view(np.ndarray)
        gather_into(images_nHWC, self._chips_NHWC, rows_n, params)


class Steps(Sampler[int]):
    """The steps of the next epochs, from where the last pass ended."""

    def __init__(self, plan: BatchSampler, epochs: int) -> None:
        self._steps = plan.steps_per_epoch * epochs
        self._passes = count()

    def __iter__(self) -> Iterator[int]:
        start = next(self._passes) * self._steps
        yield from range(start, start + self._steps)

    def __len__(self) -> int:
        return self._steps


def loader(batches: FileBatches, plan: BatchSampler, epochs: int, processes: int) -> DataLoader[Any]:
    """A DataLoader whose passes are ``epochs`` long, its ``processes`` kept between them, nothing pinned."""
    ahead: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": PREFETCH} if processes else {}
    steps = Steps(plan, epochs)
    return DataLoader(batches, batch_size=None, sampler=steps, num_workers=processes, **ahead)


def images_of(batches: DataLoader[Any]) -> int:
    """Take one pass; the number of images."""
    return sum(len(images) for _, images in batches)


_encoded: list[bytes] = []


def load_bytes(files: tuple[str, ...]) -> None:
    """Read all files into this process's memory."""
    _encoded.extend(Path(file).read_bytes() for file in files)


def decode_only(job: tuple[int, int, int]) -> int:
    """Decode images ``start`` to ``stop`` from memory to ``size`` pixels, and drop them."""
    start, stop, size = job
    chip_HWC = np.empty((size, size, 3), np.uint8)
    for n in range(start, stop):
        decode_plainly(_encoded[n % len(_encoded)], chip_HWC)
    return stop - start


def decode_files(job: tuple[int, tuple[str, ...], int, ChipCache | None]) -> int:
    """Read and decode ``files`` to ``size`` pixels; leave them in a file from row ``start`` or drop them."""
    start, files, size, cache = job
    chips_nHWC = np.empty((len(files) if cache else 1, size, size, 3), np.uint8)
    for n, file in enumerate(files):
        decode_plainly(read_bytes(file), chips_nHWC[n if cache else 0])
    if cache:
        cache.write_rows(start, chips_nHWC)
    return len(files)


def decode_plainly(data: bytes, chip_HWC: NDArray[np.uint8]) -> None:
    """A JPEG to pixels, with PIL's resampling where the size differs, and no more."""
    if simplejpeg.decode_jpeg_header(data)[0] == len(chip_HWC):
        simplejpeg.decode_jpeg(data, "RGB", strict=True, buffer=chip_HWC)
        return
    pixels = Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", strict=True))
    chip_HWC[:] = np.asarray(pixels.resize(chip_HWC.shape[:2], Image.Resampling.BILINEAR))


def decoding_pool(files: tuple[str, ...], processes: int) -> Any:
    """Processes with the bytes of all ``files`` in memory, for :func:`decode_only`."""
    return get_context("fork").Pool(processes, load_bytes, (files,))
