"""How a training executes its network: chosen by timed steps before the first one, and kept in checkpoints.

Only what changes results by rounding alone is chosen: memory format, threads, and the batches of evaluations.
The precision stays that of the config. A training that is resumed, on whatever machine, keeps the choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from canopy.bands import BandStatistics
from canopy.config import VariantConfig
from canopy.models.autotune import Autotune, on_threads
from canopy.models.execution import Execution
from canopy.models.input_statistics import BANDS
from canopy.models.network import MultiLabelNetwork, build_model
from canopy.train.training_records import TrainingPosition

EVALUATION_BATCH_SIZE = 256
"""Images in one batch of an evaluation without a choice."""
EVALUATION_BATCHES = (16, 32, 64, 128, 256)
"""Such numbers that are tried."""


def training_execution(
    variant: VariantConfig,
    progress: TrainingPosition,
    device: torch.device,
    labels: int,
    side: int,
    bands: BandStatistics | None,
    batch_size: int,
    evaluated_share: float,
) -> Execution | None:
    """The settings of a training: those of its checkpoint, or newly chosen; None for the defaults.

    Args:
        variant: the variant.
        progress: position of the training, from its newest checkpoint if there is one.
        device: where the network is trained.
        labels: number of labels K.
        side: side of the images in pixels, as the network gets them.
        bands: bands of the images; None for RGB.
        batch_size: images of this process in one step.
        evaluated_share: images that an evaluation scores, per image of an epoch, above 0.
    """
    started = progress.epoch > 0 or progress.step > 0
    if started or not variant.scale.autotune:
        return progress.execution
    threads = variant.scale.threads_per_worker
    default = Execution(threads, EVALUATION_BATCH_SIZE)
    network = build_model(variant.model.untrained, labels, None, bands).to(device)
    key = [
        variant.model.untrained.model_dump(mode="json"),
        variant.optim.precision,
        [batch_size, side, round(evaluated_share, 2)],
        BANDS if bands is None else len(bands.names),
    ]
    most_threads = 0 if device.type == "cuda" else threads
    step = timed_step(network, side, batch_size, evaluated_share, variant.optim.precision == "bfloat16")
    return Autotune(default, most_threads, EVALUATION_BATCHES, key).settings(device, step)


def timed_step(
    network: MultiLabelNetwork, side: int, batch_size: int, evaluated_share: float, half: bool
) -> Callable[[Execution], float]:
    """A function that trains and evaluates some images under some settings, and returns seconds per image.

    The seconds are those of one image's forward and backward pass, plus those of ``evaluated_share`` images'
    evaluation. The optimizer is left out: its share does not depend on the settings.

    Args:
        network: a network whose weights nobody needs.
        side: side of the images in pixels.
        batch_size: images in a step.
        evaluated_share: see above.
        half: whether the network runs in bfloat16.
    """
    device = next(network.parameters()).device
    bands = BANDS if network.bands is None else len(network.bands.names)
    images_NCHW = torch.randn(max(batch_size, *EVALUATION_BATCHES), bands, side, side, device=device)

    def step(setting: Execution) -> float:
        on_threads(setting)
        network.to(memory_format=setting.torch_format)
        given = images_NCHW.contiguous(memory_format=setting.torch_format)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            trained = seconds(lambda: _train_step(network.train(), given[:batch_size]), device)
            with torch.inference_mode():
                scored = seconds(lambda: network.eval()(given[: setting.batch_size]), device)
        return trained / batch_size + evaluated_share * scored / setting.batch_size

    return step


def _train_step(network: nn.Module, images_nCHW: Tensor) -> None:
    network.zero_grad(set_to_none=True)
    network(images_nCHW).float().square().mean().backward()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Duration of ``work`` in seconds; on a GPU until it has finished there."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
