"""Contenders that Canopy is compared with: tuned torch DataLoaders, and a bare decoding loop."""

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
from canopy.data.loading.augment_chunks import gather_and_augment, read_and_augment
from canopy.data.loading.batch_sampler import BatchSampler
from canopy.data.loading.chip_cache import ChipCache
from canopy.data.transforms.augment import AugmentParams, draw_params
from canopy.storage.files import read_bytes

PREFETCH = 8
"""Batches that each loader process prepares in advance."""

Batch = tuple[NDArray[np.int64], Tensor]


class FileBatches(Dataset[Batch]):
    """Dataset of whole batches by step, decoded from files: the batches of Canopy's stream, without Ray.

    Tuned for speed: no collation of single samples, chips decoded and augmented by Canopy's kernels while
    they are in the processor's cache, one message per batch to the training process.

    Args:
        files: paths of the images.
        sampler: decides the rows of each batch.
        augment: augmentation of the chips.
        size: height and width of the chips in pixels.
    """

    def __init__(
        self, files: tuple[str, ...], sampler: BatchSampler, augment: AugmentConfig, size: int
    ) -> None:
        self._files = np.array(files)  # in an array, reference counts do not make forked processes copy it
        self._sampler, self._augment, self._size = sampler, augment, size
        self._epoch, self._order_N = -1, np.empty(0, np.int64)

    def __getitem__(self, step: int) -> Batch:
        rows_n = self.rows(step)
        params = draw_params(self._augment, self._sampler.batch_size, self._sampler.step_rng(step))
        side = self._augment.crop or self._size
        images_nHWC = np.empty((len(rows_n), side, side, 3), np.uint8)
        self.fill(rows_n, params, images_nHWC)
        return rows_n, torch.from_numpy(images_nHWC)

    def fill(self, rows_n: NDArray[np.int64], params: AugmentParams, images_nHWC: NDArray[np.uint8]) -> None:
        """Write the augmented images of ``rows_n`` into ``images_nHWC``."""
        read_and_augment(
            images_nHWC, self._size, params, lambda piece, place: self.read_into(rows_n[piece], place)
        )

    def rows(self, step: int) -> NDArray[np.int64]:
        """The rows of the batch of ``step``; the order of an epoch is drawn once and kept."""
        epoch, place = divmod(step, self._sampler.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order_N = epoch, self._sampler.epoch_order(epoch)
        return self._order_N[place * self._sampler.batch_size : (place + 1) * self._sampler.batch_size]

    def read_into(self, rows_n: NDArray[np.int64], chips_nHWC: NDArray[np.uint8]) -> None:
        """Decode the images of ``rows_n`` into ``chips_nHWC``, shape (n, size, size, 3)."""
        for chip, file in zip(chips_nHWC, self._files[rows_n].tolist(), strict=True):
            simplejpeg.decode_jpeg(read_bytes(file), "RGB", strict=True, buffer=chip)


class CachedBatches(FileBatches):
    """Dataset of the same batches, cut out of a memory-mapped uint8 file of decoded chips."""

    def __init__(self, cache: Path, sampler: BatchSampler, augment: AugmentConfig, size: int) -> None:
        super().__init__((), sampler, augment, size)
        self._cache = cache
        self._chips_NHWC: NDArray[np.uint8] | None = None

    def fill(self, rows_n: NDArray[np.int64], params: AugmentParams, images_nHWC: NDArray[np.uint8]) -> None:
        """Write the augmented images of ``rows_n``, gathered from the cache, into ``images_nHWC``."""
        if self._chips_NHWC is None:
            self._chips_NHWC = np.load(self._cache, mmap_mode="r").view(np.ndarray)
        gather_and_augment(images_nHWC, self._chips_NHWC, rows_n, params)


class StepSampler(Sampler[int]):
    """Yields the steps of the next ``epochs`` epochs; each pass continues after the previous one."""

    def __init__(self, sampler: BatchSampler, epochs: int) -> None:
        self._steps = sampler.steps_per_epoch * epochs
        self._passes = count()

    def __iter__(self) -> Iterator[int]:
        start = next(self._passes) * self._steps
        yield from range(start, start + self._steps)

    def __len__(self) -> int:
        return self._steps


def loader(batches: FileBatches, sampler: BatchSampler, epochs: int, processes: int) -> DataLoader[Any]:
    """A DataLoader with passes of ``epochs`` epochs, persistent processes and unpinned memory."""
    ahead: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": PREFETCH} if processes else {}
    steps = StepSampler(sampler, epochs)
    return DataLoader(batches, batch_size=None, sampler=steps, num_workers=processes, **ahead)


def count_images_of_pass(batches: DataLoader[Any]) -> int:
    """Consume one pass and return the number of images."""
    return sum(len(images) for _, images in batches)


_encoded: list[bytes] = []


def load_encoded(files: tuple[str, ...]) -> None:
    """Read all files into the memory of this process."""
    _encoded.extend(Path(file).read_bytes() for file in files)


def decode_from_memory(job: tuple[int, int, int]) -> int:
    """Decode images ``start`` to ``stop`` - 1 from memory to ``size`` pixels, and discard the pixels."""
    start, stop, size = job
    chip_HWC = np.empty((size, size, 3), np.uint8)
    for n in range(start, stop):
        decode_to_size(_encoded[n % len(_encoded)], chip_HWC)
    return stop - start


def decode_files(job: tuple[int, tuple[str, ...], int, ChipCache | None]) -> int:
    """Decode ``files`` to ``size`` pixels; write them to the cache from row ``start``, or discard them."""
    start, files, size, cache = job
    chips_nHWC = np.empty((len(files) if cache else 1, size, size, 3), np.uint8)
    for n, file in enumerate(files):
        decode_to_size(read_bytes(file), chips_nHWC[n if cache else 0])
    if cache:
        cache.write_rows(start, chips_nHWC)
    return len(files)


def decode_to_size(data: bytes, chip_HWC: NDArray[np.uint8]) -> None:
    """Decode a JPEG into ``chip_HWC``; if the size differs, resize bilinearly with Pillow."""
    if simplejpeg.decode_jpeg_header(data)[0] == len(chip_HWC):
        simplejpeg.decode_jpeg(data, "RGB", strict=True, buffer=chip_HWC)
        return
    pixels = Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", strict=True))
    chip_HWC[:] = np.asarray(pixels.resize(chip_HWC.shape[:2], Image.Resampling.BILINEAR))


def decoding_pool(files: tuple[str, ...], processes: int) -> Any:
    """A pool of processes that hold the bytes of ``files``, for :func:`decode_from_memory`."""
    return get_context("fork").Pool(processes, load_encoded, (files,))
