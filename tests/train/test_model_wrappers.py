"""Wrappers of a network: synchronized batch norm and torch.compile keep its weights and names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import start_processes

from canopy.config import (
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
)
from canopy.models.network import build_model
from canopy.train.model_wrappers import compile_model, unwrap_model, with_sync_batchnorm

SIZE, TRAIN, VAL = 32, 101, 23
"""Neither count is a multiple of the ranks."""


def test_synchronized_batch_norm_keeps_names_weights_and_activations() -> None:
    """Torch's own conversion would drop the activations of fused batch norms."""
    torch.manual_seed(0)
    network = build_model(ModelConfig(backbone="test_efficientnet"), 3).eval()
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        before, names = network(images), list(network.state_dict())
        optim = OptimConfig(sync_batchnorm=True)
        assert not synchronizing(with_sync_batchnorm(network, optim, world_size=1))
        assert not synchronizing(with_sync_batchnorm(network, OptimConfig(), world_size=2))
        converted = with_sync_batchnorm(network, optim, world_size=2)
        assert synchronizing(converted)
        assert list(converted.state_dict()) == names
        torch.testing.assert_close(converted(images), before)


def synchronizing(network: nn.Module) -> bool:
    return any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())


def on_a_gpu(rank: int, world_size: int, folder: str) -> None:
    """Check batch norm's running mean after one batch, of which each rank has a different half."""
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"file://{folder}/gpus", rank=rank, world_size=world_size)
    network = with_sync_batchnorm(
        nn.Sequential(nn.BatchNorm2d(1)), OptimConfig(sync_batchnorm=True), world_size
    ).cuda()
    network(torch.full((2, 1, 4, 4), float(rank), device="cuda"))
    (mean, *_) = network.buffers()
    assert mean.item() == pytest.approx(0.1 * 0.5)
    dist.destroy_process_group()


def test_batch_norm_over_two_gpus_sees_the_global_batch(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs 2 GPUs (NCCL refuses two ranks on one); here: {torch.cuda.device_count()}")
    start_processes(on_a_gpu, (2, str(tmp_path)), nprocs=2, start_method="spawn")  # type: ignore[no-untyped-call]


def test_a_network_is_compiled_only_if_configured() -> None:
    network = nn.Linear(2, 2)
    assert compile_model(network, ResourcesConfig()) is network
    assert unwrap_model(compile_model(network, ResourcesConfig(compile=True))) is network
    assert unwrap_model(network) is network


@pytest.mark.slow
def test_a_compiled_network_has_the_same_outputs_and_gradients() -> None:
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    )
    images = torch.randn(2, 3, 8, 8)
    network(images).sum().backward()
    plain = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    fast = compile_model(network, ResourcesConfig(compile=True))
    torch.testing.assert_close(fast(images), network(images))
    fast(images).sum().backward()
    assert len(plain) == 6
    torch.testing.assert_close([p.grad for p in network.parameters()], plain)
    assert list(unwrap_model(fast).state_dict()) == list(network.state_dict())
