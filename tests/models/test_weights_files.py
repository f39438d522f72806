"""Files of weights: what is read, and what is refused in one line."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save, save_file

from canopy.errors import ConfigError
from canopy.models.weights_files import read_metadata, read_weights_file


def state() -> dict[str, torch.Tensor]:
    network: dict[str, torch.Tensor] = timm.create_model("test_resnet").state_dict()
    return network


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_weights_file(path, "model.weights", path.name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Harmful:
    """Runs a command when it is unpickled without care."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.witness}",))


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {"a": torch.zeros(1)}, "state_dict_ema": s},
        lambda s: {"model": {"state_dict": s}, "lr": 0.1},
    ],
    ids=["plain", "nested", "averaged", "twice"],
)
def test_a_pytorch_file_of_plain_tensors_keeps_its_order(tmp_path: Path, wrapped: Any) -> None:
    torch.save(wrapped(state()), tmp_path / "w.pth")
    found = read_weights_file(tmp_path / "w.pth", "model.weights", "w.pth")
    assert found.ordered
    assert list(found.tensors) == list(state())


def test_a_safetensors_file_with_its_metadata(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w", metadata={"mean": "[0, 0, 0]"})  # known by its content, not its name
    found = read_weights_file(tmp_path / "w", "model.weights", "w")
    assert (found.ordered, set(found.tensors), found.metadata) == (False, set(state()), {"mean": "[0, 0, 0]"})
    assert read_metadata(save({"a": torch.zeros(1)})) == {}


def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    torch.save({"state_dict": state(), "hook": Harmful(witness)}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Harmful(witness)))
    for name in ("zip.pth", "bare.pth"):
        assert "model.weights must hold plain tensors" in (text := refused(tmp_path / name))
        assert f"Got: {name} with posix.system" in text
    assert not witness.exists()


@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_file_that_was_cut_off(tmp_path: Path, kept: float) -> None:
    torch.save(state(), tmp_path / "w.pth")
    save_file(state(), tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: int(len(data) * kept)])
        assert "must be a safetensors file, or a PyTorch file of plain tensors" in refused(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a safetensors file, or a PyTorch file"),
        (b"not weights at all, in no format", "must be a safetensors file, or a PyTorch file"),
    ],
)
def test_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "w").write_bytes(content)
    assert message in refused(tmp_path / "w")


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(1)], torch.zeros(1)], ids=str)
def test_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert "model.weights must hold a state dict" in refused(tmp_path / "w.pth")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_half_precision(tmp_path: Path, kind: torch.dtype, name: str) -> None:
    half = {key: tensor.to(kind) if tensor.is_floating_point() else tensor for key, tensor in state().items()}
    torch.save(half, tmp_path / name) if name.endswith("pth") else save_file(half, tmp_path / name)
    text = refused(tmp_path / name)
    assert "must hold weights in float32" in text
    assert str(kind).removeprefix("torch.") in text


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    tensors = state()
    tensors["bn1.weight"][3] = float("nan")
    save_file(tensors, tmp_path / "w.safetensors")
    assert "NaN or an infinite value in bn1.weight" in refused(tmp_path / "w.safetensors")
