"""The networks on a device: precision, compilation, batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import canopy
from canopy.errors import ConfigError
from canopy.inference.networks import Networks, chosen_device
from canopy.storage.run_dir import RunDir


def test_bfloat16_is_close_to_float32_and_not_the_same(
    finished: RunDir, images_NHWC: NDArray[np.uint8]
) -> None:
    exact = canopy.load(finished.root, device="cpu", precision="float32").predict(images_NHWC).probs_NK
    half = canopy.load(finished.root, device="cpu", precision="bfloat16").predict(images_NHWC).probs_NK
    assert (half != exact).any()
    np.testing.assert_allclose(half, exact, atol=0.05)


def test_networks_are_in_channels_last_order(finished: RunDir) -> None:
    networks = canopy.load(finished.root, device="cpu").networks
    weights = [
        p for p in networks.members["resnet"][0].network.parameters() if p.ndim == 4 and p.shape[1] > 1
    ]
    assert weights
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in weights)


def test_each_network_sees_an_image_once_per_symmetry(
    finished: RunDir, images_NHWC: NDArray[np.uint8]
) -> None:
    networks = canopy.load(finished.root, device="cpu").networks
    passes: dict[str, int] = {}
    for name, folds in networks.members.items():
        for trained in folds:

            def count(module: object, arguments: tuple[torch.Tensor, ...], name: str = name) -> None:
                passes[name] = passes.get(name, 0) + len(arguments[0])

            trained.network.register_forward_pre_hook(count)
    networks(images_NHWC, embeddings=True)
    assert passes == {"resnet": 7 * 2, "resnet-cbam": 7 * 2 * 4, "efficientnet": 7 * 2}


@pytest.mark.slow
def test_compiled_networks_give_the_same(finished: RunDir, images_NHWC: NDArray[np.uint8]) -> None:
    several = np.concatenate([images_NHWC] * 6)  # a whole batch and a short one
    plain = canopy.load(finished.root, device="cpu", members=["resnet"])
    compiled = canopy.load(finished.root, device="cpu", members=["resnet"], compile=True)
    assert compiled.networks.compiled
    expected = plain.predict(several, embeddings=True)
    found = compiled.predict(several, embeddings=True)
    np.testing.assert_allclose(found.probs_NK, expected.probs_NK, atol=1e-5)
    np.testing.assert_allclose(found.embeddings["resnet"], expected.embeddings["resnet"], atol=1e-4)


def test_a_read_only_array_is_accepted(finished: RunDir, images_NHWC: NDArray[np.uint8]) -> None:
    networks = canopy.load(finished.root, device="cpu").networks
    assert isinstance(networks, Networks)
    fixed = images_NHWC.copy()
    fixed.flags.writeable = False
    np.testing.assert_array_equal(
        networks(fixed).probs["resnet"][0], networks(images_NHWC).probs["resnet"][0]
    )


def test_a_device_that_is_not_there_is_refused() -> None:
    assert chosen_device("cpu").type == "cpu"
    assert chosen_device(torch.device("cpu")).type == "cpu"
    with pytest.raises(ConfigError, match="device must be one that this machine has"):
        chosen_device("cuda:77")
