"""Scores the windows of a scene: a stream of Ray Data over its blocks, as in batch inference."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ray.exceptions import RayActorError

from canopy.data.loading.ray_stream import Batch
from canopy.errors import ClusterError
from canopy.inference.batch import ModelSource, Workplace
from canopy.inference.scenes.blocks import BlockDirectory, packed
from canopy.inference.scenes.reader import SceneReader
from canopy.inference.shard_stream import CRASH_RETRIES, shard_stream
from canopy.runtime.console import Console
from canopy.runtime.malloc import keep_freed_memory
from canopy.runtime.ray_tasks import CRASHES
from canopy.storage import files

NAME = "predict"
HEADER = -1
"""Position of the row that carries what concerns a whole block; Ray Data drops blocks without rows."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _ReadBlock:
    """Task: the chips of a block, behind a black one that carries the shares of its cells."""

    reader: SceneReader

    def __call__(self, block: Batch) -> Batch:
        keep_freed_memory()
        (number,) = block["shard"].tolist()
        chips_nHWC, positions_n, shares_HW = self.reader.read(number)
        shares = np.full(len(chips_nHWC) + 1, None, object)
        shares[0] = shares_HW.astype(np.float32).tobytes()
        return {
            "shard": np.full(len(chips_nHWC) + 1, number),
            "position": np.concatenate([[HEADER], positions_n]),
            "shares": shares,
            "image": np.concatenate([np.zeros((1, *chips_nHWC.shape[1:]), chips_nHWC.dtype), chips_nHWC]),
        }


class _ScoreBlock:
    """Actor: the networks; turns the chips of a block into its file."""

    def __init__(self, source: ModelSource, workplace: Workplace, reader: SceneReader) -> None:
        self._model, self._grid = source.model(workplace), reader.grid

    def __call__(self, block: Batch) -> Batch:
        (header,) = np.flatnonzero(block["position"] == HEADER)
        scored = block["position"] != HEADER
        number = int(block["shard"][0])
        rows, columns = self._grid.block(number).shape
        reach = self._grid.reach - 1
        shares_HW = np.frombuffer(block["shares"][header], np.float32).reshape(rows + reach, columns + reach)
        found = self._model.predict_decoded(np.ascontiguousarray(block["image"][scored]))
        content = packed(found.probs_NK, block["position"][scored], (rows, columns), shares_HW)
        return {
            "shard": block["shard"][:1],
            "windows": np.array([rows * columns]),
            "file": np.array([content], object),
        }


@dataclass(frozen=True)
class _WriteBlock:
    """Task: writes the file of a block."""

    directory: BlockDirectory

    def __call__(self, block: Batch) -> Batch:
        for number, content in zip(block["shard"].tolist(), block["file"].tolist(), strict=True):
            self.directory.write(number, content)
        return {name: block[name] for name in ("shard", "windows")}


@dataclass(frozen=True)
class ScenePipeline:
    """Scores the missing blocks of a scene.

    Args:
        source: the model.
        reader: reads the scene.
        directory: where the blocks go.
        workplace: where the networks run.
    """

    source: ModelSource
    reader: SceneReader
    directory: BlockDirectory
    workplace: Workplace

    def run(self, console: Console) -> None:
        """Score all missing blocks, with lines of progress.

        Raises:
            DataError: when the scene is damaged.
            ClusterError: when worker processes keep dying.
            StorageError: when a store fails.
        """
        missing, losses, since, done = self.directory.missing(), 0, time.monotonic(), 0
        total = sum(self._windows(number) for number in missing)
        while missing:
            try:
                for windows in self.results(missing):
                    done += windows
                    console.count(NAME, "windows", done, total, since)
                return
            except (*CRASHES, RayActorError) as error:
                logger.warning("a worker process was lost: %s", error)
                before, missing = missing, self.directory.missing()
                done = total - sum(self._windows(number) for number in missing)
                losses = 1 if len(missing) < len(before) else losses + 1
                if losses > CRASH_RETRIES:
                    need, got = (
                        "must survive the prediction of a block",
                        f"they were lost {losses} times in a row",
                    )
                    remedy = "Give smaller blocks (--block-windows), or look at the memory of the machines."
                    raise ClusterError("The worker processes", need, got, remedy) from error
                console.say(NAME, "a worker process was lost; going on with the blocks that are missing")

    def results(self, blocks: list[int]) -> Iterator[int]:
        """Score ``blocks``, at least one; the number of windows of each, as it is written."""
        dataset = shard_stream(
            blocks,
            _ReadBlock(self.reader),
            _ScoreBlock,
            (self.source, self.workplace, self.reader),
            _WriteBlock(self.directory),
            self.workplace,
            on_this_node=not files.is_uri(self.directory.root),
        )
        for block in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
            yield from block["windows"].tolist()

    def _windows(self, number: int) -> int:
        rows, columns = self.reader.grid.block(number).shape
        return rows * columns
