"""The networks of a model on one device: each chip goes through each network once per symmetry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from canopy.bands import BandStatistics
from canopy.data.transforms.crop import center_crop
from canopy.data.transforms.normalize import normalize
from canopy.errors import ConfigError, InputError
from canopy.explain.evidence import Method, evidence_maps
from canopy.explain.explanation import at_chip_size
from canopy.models.execution import Execution
from canopy.models.heads import CSRAHead
from canopy.models.network import MultiLabelNetwork
from canopy.runtime.malloc import keep_freed_memory
from canopy.train.logits import logits_to_probs, symmetries
from canopy.train.trained_model import TrainedModel

Precision = Literal["float32", "bfloat16"]
CPU_BATCH, GPU_BATCH = 32, 256
"""Images in one forward pass. On a CPU the activations of larger batches leave its caches."""


@dataclass(frozen=True, eq=False)
class NetworkOutputs:
    """What the networks give for N chips.

    Args:
        probs: by member, the probabilities (N, K) of each fold's network: sigmoid of the mean logits over the
            symmetries that the variant's ``tta`` names.
        embeddings: by member, the features (N, D) that the head of the first fold's network reads of the
            chip itself, as float32; those of a CSRA head are averaged over positions. Empty unless asked for.
    """

    probs: Mapping[str, Sequence[NDArray[np.float32]]]
    embeddings: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks of an ensemble's members, ready to run.

    Args:
        members: by member, one network per fold, in evaluation mode and ``memory_format`` on ``device``.
        device: where they run.
        precision: of all networks; None: each runs in the precision that it was trained in.
        batch_size: images in one forward pass.
        compiled: the networks of ``members``, compiled; empty to run them as they are.
        memory_format: order of the axes of images and weights in memory.
    """

    members: Mapping[str, Sequence[TrainedModel]]
    device: torch.device
    precision: Precision | None = None
    batch_size: int = CPU_BATCH
    compiled: Mapping[tuple[str, int], nn.Module] = field(default_factory=dict)
    memory_format: torch.memory_format = torch.channels_last

    @classmethod
    def prepare(
        cls,
        members: Mapping[str, Sequence[TrainedModel]],
        device: torch.device,
        precision: Precision | None = None,
        compile: bool = False,
    ) -> Networks:
        """Move networks to ``device`` and set them and this process up for repeated forward passes."""
        keep_freed_memory()
        for trained in (one for folds in members.values() for one in folds):
            trained.network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        compiled = {}
        if compile:
            compiled = {
                (name, fold): cast(nn.Module, torch.compile(trained.network, dynamic=False))
                for name, folds in members.items()
                for fold, trained in enumerate(folds)
            }
        batch_size = GPU_BATCH if device.type == "cuda" else CPU_BATCH
        return cls(members, device, precision, batch_size, compiled)

    def executed(self, execution: Execution) -> Networks:
        """The same networks under other settings; their weights are brought into its memory format.

        The number of threads belongs to the process and is left as it is. A precision that is stated here
        stays.
        """
        for trained in (one for folds in self.members.values() for one in folds):
            trained.network.to(memory_format=execution.torch_format)
        return replace(
            self,
            precision=self.precision or execution.precision,
            batch_size=execution.batch_size,
            memory_format=execution.torch_format,
        )

    @property
    def bands(self) -> BandStatistics | None:
        """The bands of the chips with their statistics, the same for all members; None for RGB."""
        first = next(iter(self.members.values()))[0].network
        return cast(MultiLabelNetwork, first).bands

    def __call__(self, chips_NHWC: NDArray[Any], *, embeddings: bool = False) -> NetworkOutputs:
        """Run all networks on decoded chips, (N, S, S, C), at least one."""
        with torch.inference_mode():
            batches = [
                self._batch(chips_NHWC[start : start + self.batch_size], embeddings)
                for start in range(0, len(chips_NHWC), self.batch_size)
            ]
        probs = {
            name: [
                np.concatenate([batch.probs[name][fold] for batch in batches]) for fold in range(len(folds))
            ]
            for name, folds in self.members.items()
        }
        names = self.members if embeddings else ()
        return NetworkOutputs(
            probs, {name: np.concatenate([batch.embeddings[name] for batch in batches]) for name in names}
        )

    def evidence(self, name: str, chips_1HWC: NDArray[Any]) -> tuple[NDArray[np.float32], Method]:
        """Evidence maps (K, S, S) of one chip by a member, the mean over its folds, and how they were made.

        Raises:
            ConfigError: when the backbone's features have no positions.
        """
        found: list[NDArray[np.float32]] = []
        method: Method = "cam"
        size = chips_1HWC.shape[1]
        chips = torch.from_numpy(chips_1HWC).to(self.device)
        for trained in self.members[name]:
            assert isinstance(trained.network, MultiLabelNetwork)
            crop = trained.variant.augment.crop
            maps = evidence_maps(trained.network, normalize(center_crop(chips, crop), trained.network.bands))
            found.append(at_chip_size(maps.maps_nKhw[0].detach(), crop, size).cpu().numpy())
            method = maps.method
        return np.mean(found, axis=0, dtype=np.float32), method

    def _batch(self, chips_nHWC: NDArray[Any], embeddings: bool) -> NetworkOutputs:
        count = len(chips_nHWC)
        if self.compiled and count < self.batch_size:  # torch.compile starts again for another shape
            chips_nHWC = np.concatenate(
                [chips_nHWC, np.zeros((self.batch_size - count, *chips_nHWC.shape[1:]), chips_nHWC.dtype)]
            )
        chips = torch.from_numpy(np.array(chips_nHWC) if not chips_nHWC.flags.writeable else chips_nHWC)
        chips = chips.to(self.device)
        images: dict[int | None, Tensor] = {}  # by crop: members often share one
        probs: dict[str, list[NDArray[np.float32]]] = {}
        found: dict[str, NDArray[np.float32]] = {}
        for name, folds in self.members.items():
            probs[name] = []
            for fold, trained in enumerate(folds):
                crop = trained.variant.augment.crop
                if crop not in images:
                    assert isinstance(trained.network, MultiLabelNetwork)
                    images[crop] = normalize(center_crop(chips, crop), trained.network.bands)
                wanted = embeddings and fold == 0
                network = self.compiled.get((name, fold), trained.network)
                with head_input(trained.network, wanted) as seen:
                    # torch.compile would start again for the hook.
                    logits_nK = self._logits(trained.network if wanted else network, trained, images[crop])
                probs[name].append(logits_to_probs(logits_nK[:count]))
                if seen:
                    found[name] = pooled(trained.network, seen[0])[:count]
        return NetworkOutputs(probs, found)

    def _logits(self, network: nn.Module, trained: TrainedModel, images_nCHW: Tensor) -> NDArray[np.float32]:
        """Mean logits over the symmetries; one autocast, so that weights are converted once for all views."""
        half = (self.precision or trained.variant.optim.precision) == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            views = [
                network(view.contiguous(memory_format=self.memory_format)).float()
                for view in symmetries(images_nCHW, trained.variant.tta)
            ]
        mean: NDArray[np.float32] = (sum(views) / len(views)).cpu().numpy()
        return mean


@contextmanager
def head_input(network: nn.Module, wanted: bool) -> Iterator[list[Tensor]]:
    """Collect what the head of ``network`` reads, one tensor per forward pass; nothing unless ``wanted``."""
    seen: list[Tensor] = []
    if not wanted:
        yield seen
        return
    assert isinstance(network, MultiLabelNetwork)

    def keep(module: nn.Module, arguments: tuple[Any, ...]) -> None:  # noqa: ARG001 (signature of hooks)
        seen.append(arguments[0])

    handle = network.head.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def pooled(network: nn.Module, features: Tensor) -> NDArray[np.float32]:
    """Input of a head as one vector per image, float32, (n, D)."""
    assert isinstance(network, MultiLabelNetwork)
    head = network.head
    if isinstance(head, CSRAHead):
        features = features.mean((1, 2) if head.channels_last else (2, 3))
    vectors: NDArray[np.float32] = features.float().cpu().numpy()
    return vectors


def chosen_device(given: str | torch.device | None) -> torch.device:
    """The device ``given``; None: the first GPU of this machine, else the CPU.

    Raises:
        ConfigError: when there is no such device.
    """
    try:
        device = torch.device(given or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except InputError:
        raise
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(
            "device", "must be one that this machine has", f"{given} ({first})", "Give cpu, or leave it out."
        ) from None
    return device
