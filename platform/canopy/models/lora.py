"""LoRA: low-rank additions to the linear layers of a backbone, by peft; merged into its weights afterwards.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. In training a layer computes
W x + (alpha / rank) B A x with W fixed. :func:`merge_lora` puts W + (alpha / rank) B A in place of W, so that
a finished training's weights have timm's names, and nothing downstream knows of LoRA.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from torch import nn

from canopy.errors import ConfigError

MARK = ".lora_"
"""Part of the names of the tensors that are added."""
ATTENTION = ".cbam."
"""Part of the names of attention blocks, which start at random and are trained as they are."""


def require_peft(thing: str) -> None:
    """Refuse LoRA where peft is not installed.

    Args:
        thing: name of the option that needs it; used in the error message.

    Raises:
        ConfigError: with the command that installs it.
    """
    if find_spec("peft") is None:
        need, remedy = "needs a package that is not installed", "pip install 'canopy-eo[lora]'."
        raise ConfigError(thing, need, "no peft", remedy)


def linear_layers(backbone: nn.Module) -> list[str]:
    """Names of the linear layers of a backbone, those of attention that was put into it left out."""
    found = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    return [name for name in found if ATTENTION not in f".{name}"]


def add_lora(backbone: nn.Module, rank: int, alpha: int) -> None:
    """Add a product of two matrices to each linear layer, and freeze everything else but attention (CBAM).

    The product is 0 at first: one matrix is random (torch's global random state), the other 0.

    Args:
        backbone: changed in place; at least one linear layer.
        rank: rank of the product, 1 or more.
        alpha: the product is scaled by this over the rank; 1 or more.

    Raises:
        ConfigError: when peft is not installed.
    """
    require_peft("finetune.lora_rank")
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear_layers(backbone), bias="none")
    device = next(backbone.parameters()).device
    inject_adapter_in_model(config, backbone)
    backbone.to(device)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(MARK in name or ATTENTION in name)


def has_lora(network: nn.Module) -> bool:
    """Whether a network has such additions."""
    return any(MARK in name for name, _ in network.named_parameters())


def merge_lora(network: nn.Module) -> bool:
    """Merge the additions into the weights of the layers, which get their plain names back.

    Args:
        network: changed in place.

    Returns:
        Whether there were any.
    """
    if not has_lora(network):
        return False
    from peft.tuners.lora import LoraLayer

    found: list[tuple[str, Any]] = [(n, m) for n, m in network.named_modules() if isinstance(m, LoraLayer)]
    for name, layer in found:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, layer.get_base_layer())
    assert not has_lora(network)
    return True
