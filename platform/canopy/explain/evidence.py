"""Evidence maps of one network: how much each position of an image adds to the logit of each label.

Three methods, by what the network is:

- ``cam``: a linear head over features that are averaged over positions. The map is the class activation map,
  exact: its mean over positions plus the head's bias is the logit. Zhou et al., "Learning Deep Features for
  Discriminative Localization", CVPR 2016.
- ``csra``: the head scores every position itself; its mean score plus the residual is the logit
  (:class:`canopy.models.heads.CSRAHead`). A position's map value is its score times the weight that it has in
  the logit, in units of the mean.
- ``grad-cam``: any other network. The gradient of the logit, summed over positions, weights the features.
  Selvaraju et al., "Grad-CAM", ICCV 2017, here without its last ReLU, so that evidence against a label is
  negative. For a linear head over averaged features it equals ``cam``. A transformer's features are the
  patch tokens that its last block reads: behind it a class token alone may lead to the head.

All maps have the unit of logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from canopy.errors import ConfigError
from canopy.models.heads import CSRA_LAMBDA, CSRA_TEMPERATURE, CSRAHead, LinearHead
from canopy.models.network import MultiLabelNetwork

Method = Literal["cam", "csra", "grad-cam"]
SAME = 1e-4
"""Relative difference up to which pooled features count as the mean of the positions."""


@dataclass(frozen=True, eq=False)
class EvidenceMaps:
    """Maps of n images and K labels.

    Args:
        maps_nKhw: evidence at each position of the network's last features, in logits.
        logits_nK: the network's logits.
        method: how the maps were made.
    """

    maps_nKhw: Tensor
    logits_nK: Tensor
    method: Method


def evidence_maps(network: MultiLabelNetwork, images_nCHW: Tensor) -> EvidenceMaps:
    """Evidence maps of ``network``, which must be in evaluation mode, for normalized images.

    Raises:
        ConfigError: for a backbone whose features have no positions.
    """
    with torch.inference_mode(False), torch.no_grad():
        images_nCHW = images_nCHW.clone()  # a tensor of inference mode has no gradients
        features = network.features(images_nCHW)
        if isinstance(network.head, CSRAHead):
            return _csra(network.head, features)
        pooled_nD = cast(Any, network.backbone).forward_head(features, pre_logits=True)
        logits_nK = network.head(pooled_nD)
        maps_nDhw = _as_maps(network, features) if features.ndim == 4 else None
        if isinstance(network.head, LinearHead) and maps_nDhw is not None and _is_mean(pooled_nD, maps_nDhw):
            weights_KD = network.head.final.weight
            return EvidenceMaps(torch.einsum("ndhw,kd->nkhw", maps_nDhw, weights_KD), logits_nK, "cam")
    if maps_nDhw is not None:
        tail = _tail_of_maps(network)
        return _grad_cam(features, tail, lambda one: _as_maps(network, one))
    return _grad_cam_of_tokens(network, images_nCHW)


def _csra(head: CSRAHead, features: Tensor) -> EvidenceMaps:
    scores_nKhw = head.scores(features).float()
    shape = scores_nKhw.shape
    scores_nKP = scores_nKhw.flatten(2)
    attention_nKP = (CSRA_TEMPERATURE * scores_nKP).softmax(dim=2)
    # The logit is the mean over positions of (1 + lambda * P * attention) * score, plus the bias.
    weighted_nKP = scores_nKP * (1 + CSRA_LAMBDA * scores_nKP.shape[2] * attention_nKP)
    return EvidenceMaps(weighted_nKP.view(shape), weighted_nKP.mean(2) + head.final.bias, "csra")


def _as_maps(network: MultiLabelNetwork, features: Tensor) -> Tensor:
    """Feature maps as (n, D, h, w), whatever the backbone's layout."""
    is_last = getattr(network.backbone, "output_fmt", "NCHW") == "NHWC"
    return features.permute(0, 3, 1, 2) if is_last else features


def _is_mean(pooled_nD: Tensor, maps_nDhw: Tensor) -> bool:
    mean_nD = maps_nDhw.mean((2, 3))
    if pooled_nD.shape != mean_nD.shape:
        return False
    return bool((pooled_nD - mean_nD).abs().max() <= SAME * mean_nD.abs().max().clamp(min=1e-12))


def _tail_of_maps(network: MultiLabelNetwork) -> Callable[[Tensor], Tensor]:
    def tail(features: Tensor) -> Tensor:
        logits_nK: Tensor = network.head(cast(Any, network.backbone).forward_head(features, pre_logits=True))
        return logits_nK

    return tail


def _grad_cam(
    features: Tensor, tail: Callable[[Tensor], Tensor], as_maps: Callable[[Tensor], Tensor]
) -> EvidenceMaps:
    """Grad-CAM of ``features``, from which ``tail`` computes logits."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = features.detach().clone().requires_grad_()
        logits_nK = tail(leaf)
        return EvidenceMaps(_weighted(leaf, logits_nK, as_maps), logits_nK.detach(), "grad-cam")


def _grad_cam_of_tokens(network: MultiLabelNetwork, images_nCHW: Tensor) -> EvidenceMaps:
    """Grad-CAM of the patch tokens that the last block of a transformer reads."""
    blocks = getattr(network.backbone, "blocks", None)
    grid = getattr(getattr(network.backbone, "patch_embed", None), "grid_size", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not len(blocks) or grid is None:
        kind = type(network.backbone).__name__
        need, remedy = (
            "needs a backbone with feature maps or with blocks of tokens",
            "Explain another member.",
        )
        raise ConfigError("explain", need, kind, remedy)
    prefix = int(getattr(network.backbone, "num_prefix_tokens", 0))

    def as_maps(tokens_nTD: Tensor) -> Tensor:
        patches_nPD = tokens_nTD[:, prefix:]
        assert patches_nPD.shape[1] == grid[0] * grid[1]
        count, _, features = patches_nPD.shape
        return patches_nPD.transpose(1, 2).reshape(count, features, *grid)

    with torch.inference_mode(False), torch.enable_grad(), _leaf_before(blocks[-1]) as leaves:
        logits_nK = network(images_nCHW)
        return EvidenceMaps(_weighted(leaves[0], logits_nK, as_maps), logits_nK.detach(), "grad-cam")


@contextmanager
def _leaf_before(module: nn.Module) -> Iterator[list[Tensor]]:
    """Cut the graph before ``module``: its input becomes a leaf, which is collected."""
    leaves: list[Tensor] = []

    def cut(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001 (hook)
        leaves.append(arguments[0].detach().requires_grad_())
        return (leaves[-1], *arguments[1:])

    handle = module.register_forward_pre_hook(cut)
    try:
        yield leaves
    finally:
        handle.remove()


def _weighted(leaf: Tensor, logits_nK: Tensor, as_maps: Callable[[Tensor], Tensor]) -> Tensor:
    """Per label the features weighted by the logit's gradient, summed over positions."""
    maps_nDhw = as_maps(leaf).detach()
    found = []
    for k in range(logits_nK.shape[1]):
        (gradient,) = torch.autograd.grad(logits_nK[:, k].sum(), leaf, retain_graph=True)
        weights_nD = as_maps(gradient).sum((2, 3))
        found.append(torch.einsum("ndhw,nd->nhw", maps_nDhw, weights_nD))
    return torch.stack(found, dim=1)
