"""``canopy weights``: what it lists, what it fetches, what it refuses."""

from __future__ import annotations

from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest
import timm
from safetensors.torch import save
from tests.models.networks import SMALL, fill_hub_cache

from canopy.cli.main import main
from canopy.storage import files


def test_an_empty_machine_says_how_to_fetch(hub_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights"]) == 0
    out = capsys.readouterr().out
    assert f"no weights on this machine (looked in {hub_cache}" in out
    assert "canopy weights --fetch SOURCE" in out


def test_both_caches_are_listed(hub_cache: Path, s3_here: str, capsys: pytest.CaptureFixture[str]) -> None:
    network = timm.create_model(SMALL)
    fill_hub_cache(hub_cache, "timm/test_resnet.r160_in1k", network)
    boto3.client("s3", endpoint_url=s3_here).create_bucket(Bucket="listed")
    files.write_bytes("s3://listed/own.safetensors", save(network.state_dict()))
    assert main(["weights", "--fetch", "s3://listed/own.safetensors"]) == 0
    count = len(network.state_dict())
    assert capsys.readouterr().out.startswith(f"s3://listed/own.safetensors: {count} tensors")
    assert main(["weights", "--fetch", SMALL]) == 0
    assert "timm's default weights are on this machine" in capsys.readouterr().out
    assert main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == [
        "hf-hub:timm/test_resnet.r160_in1k",
        "s3://listed/own.safetensors",
    ]


@pytest.mark.usefixtures("empty_hub")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("resnet5O", "--fetch must be a timm model. Got: resnet5O. Nearest: "),
        (SMALL, "model.pretrained needs timm's weights from the Hugging Face hub"),
        ("s3://key:secret@b/w", "--fetch must not hold credentials"),
        ("./nothing", "--fetch must be the path or URI of a file that can be read. Got: ./nothing"),
    ],
)
def test_what_cannot_be_fetched(source: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "--fetch", source]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
