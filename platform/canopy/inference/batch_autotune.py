"""The settings of a job of batch inference: chosen in a process with the resources of its actors."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError

from canopy.inference.autotune import (
    LEAST_IMAGES,
    SAMPLE_IMAGES,
    keep_execution,
    kept_execution,
    tuned_execution,
)
from canopy.inference.batch import ModelSource, Workplace
from canopy.inference.chips import ChipDecoder
from canopy.inference.images import ImageList
from canopy.inference.shards import ShardDirectory
from canopy.models.execution import Execution
from canopy.runtime.console import Console


def job_execution(
    source: ModelSource,
    images: ImageList,
    directory: ShardDirectory,
    workplace: Workplace,
    console: Console,
    tune: bool = True,
    with_precision: bool = False,
) -> Execution | None:
    """The settings of a job: those of its earlier start, or newly chosen; None for the defaults.

    A job whose first shards were written with the defaults goes on with them, and a small one is not worth
    timed steps. A choice that fails costs a line on the console and nothing else.

    Args:
        source: the model.
        images: the images of the job.
        directory: its shards.
        workplace: where the networks will run.
        console: gets the line.
        tune: whether to choose; an earlier start's choice is kept in any case.
        with_precision: whether bfloat16 may be chosen.

    Raises:
        ConfigError: when the settings of an earlier start cannot be read.
    """
    kept = kept_execution(directory)
    if kept is not None:
        console.say("predict", f"networks run with {kept.text}, as in the earlier start")
        return kept
    if not tune or len(directory.missing()) < directory.job.shards or len(images) < LEAST_IMAGES:
        return None
    uris = list(images.at(np.arange(min(SAMPLE_IMAGES, len(images))))[1]) if with_precision else []
    task = _tune.options(num_cpus=workplace.threads, num_gpus=workplace.gpus)
    try:
        chosen: Execution = ray.get(task.remote(source, workplace, uris))
    except RayError as error:
        console.say("predict", f"autotune failed, the defaults are used: {str(error).splitlines()[-1]}")
        return None
    keep_execution(directory, chosen)
    console.say("predict", f"autotune: networks run with {chosen.text}")
    return chosen


@ray.remote(max_retries=1)
def _tune(source: ModelSource, workplace: Workplace, uris: list[str]) -> Execution:
    """Task: choose the settings; with ``uris`` bfloat16 may be chosen, compared on these images."""
    model = source.model(workplace)
    sample_NHWC = _readable(model.decoder, uris) if uris else None
    return tuned_execution(model, workplace.threads, sample_NHWC)


def _readable(decoder: ChipDecoder, uris: list[str]) -> NDArray[Any]:
    """The chips (N, S, S, C) of those images that can be read."""
    chips_NHWC = np.zeros((len(uris), *decoder.shape), decoder.dtype)
    good = [not decoder.read_into(chip, uri) for chip, uri in zip(chips_NHWC, uris, strict=True)]
    return chips_NHWC[good]
