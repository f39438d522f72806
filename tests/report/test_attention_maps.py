"""Attention figures: their colors equal the network's effect on every position."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save
from torch import nn

from canopy.config import AugmentConfig, DataConfig, ModelConfig, VariantConfig
from canopy.data.catalogue import Catalogue
from canopy.data.transforms.normalize import normalize
from canopy.explain.tint import COOL, COVER, WARM
from canopy.labels import LabelSet
from canopy.models.cbam import CBAM, attention_maps
from canopy.models.network import MultiLabelNetwork, build_model
from canopy.report.attention_maps import (
    CHIPS,
    attention_figure,
    attention_figures,
    rare_rows,
)
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.training_run import TrainingRun

SIZE, ROWS = 64, 40
NAMES = ("clear", "mine", "haze", "road", "water")
# Its features pass a SiLU: none is exactly 0, so that factors can be computed.
BACKBONE = "test_efficientnet"


def network_of(variant: VariantConfig, gate: float) -> MultiLabelNetwork:
    """An untrained network with strong attention."""
    torch.manual_seed(0)
    network = build_model(variant.model, len(NAMES)).eval()
    for module in network.modules():
        if isinstance(module, CBAM):
            module.gate.data.fill_(gate)
            module.spatial.weight.data.mul_(3000)  # an untrained network has faint features
    return network


def variant_of(name: str = "attended", cbam: str = "last", crop: int | None = None) -> VariantConfig:
    model = ModelConfig.model_validate({"backbone": BACKBONE, "cbam": cbam, "input_size": 128})
    return VariantConfig(name=name, model=model, augment=AugmentConfig(crop=crop))


def applied(network: nn.Module, chips_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Factor of the last block at each position relative to its image's mean, from its input and output."""
    seen: list[torch.Tensor] = []
    block = next(module for name, module in network.named_modules() if name == "cbam")
    with torch.no_grad(), block.register_forward_hook(lambda _, given, out: seen.extend([given[0], out])):
        network(normalize(torch.from_numpy(chips_NHWC)))
    assert (seen[0] != 0).all()
    factor_NHW = (seen[1] / seen[0]).abs().mean(dim=1).numpy()
    return np.asarray(factor_NHW / factor_NHW.mean(axis=(1, 2), keepdims=True) - 1)


def read_off(tile_HWC: NDArray[np.uint8], positions: int) -> NDArray[np.float64]:
    """The shares of the strongest color at the middle of each position, from a tile over a chip of one gray.

    Solves gray (1 - COVER s) + color COVER s for s, in the channel in which the colors differ most.
    """
    cell = tile_HWC.shape[0] // positions
    middles = np.arange(positions) * cell + cell // 2
    around = [tile_HWC[np.ix_(middles + a, middles + b)].astype(float) for a in (-1, 0) for b in (-1, 0)]
    red, _, blue = np.moveaxis(np.mean(around, axis=0), -1, 0)
    warm, cool = (red - GRAY) / (WARM[0] - GRAY), (blue - GRAY) / (COOL[2] - GRAY)
    return np.asarray(np.where(red > blue, warm, -cool) / COVER)


GRAY = 100


@pytest.mark.parametrize("gate", [0.8, -0.6, 3.0], ids=["open", "negative", "beyond"])
def test_the_colors_are_what_the_network_did(gate: float) -> None:
    network = network_of(variant_of(), gate)
    # The network gets a texture; the drawn chip is one gray, so that the colors can be measured.
    textured = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    textured[:, :32] //= 4
    maps = attention_maps(network, normalize(torch.from_numpy(textured)))
    expected_NHW = applied(network, textured)
    assert np.abs(expected_NHW).max() > 0.05
    found = attention_figure("attended", np.full_like(textured, GRAY), ["a", "b", "c"], maps)
    assert not found.flat
    sheet = np.asarray(Image.open(io.BytesIO(found.png)))
    side, positions = 128, expected_NHW.shape[1]
    assert positions == 4
    for n in range(3):
        left = 8 + (2 * n + 1) * (side + 8)
        share_hw = read_off(sheet[8 : 8 + side, left : left + side], positions)
        strongest = np.abs(expected_NHW).max()  # a middle lies between pixels, where the slope turns
        np.testing.assert_allclose(share_hw * strongest, expected_NHW[n], atol=0.04 * strongest)
        assert (sheet[8 : 8 + side, left - side - 8 : left - 8] == GRAY).all(), "the chip is on its left"
    low, high = 100 * expected_NHW.min(), 100 * expected_NHW.max()
    (line,) = found.lines
    assert line.startswith(f"last: {positions} × {positions} positions")
    assert line.endswith(f"features {low:+.1f}% to {high:+.1f}%".replace("-", "−"))


@pytest.mark.parametrize("gate", [0.0, 0.005], ids=["closed", "nearly"])
def test_a_gate_that_does_little_is_called_flat_and_colors_faintly(gate: float) -> None:
    chips_NHWC = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    network = network_of(variant_of(cbam="all"), gate)
    maps = attention_maps(network, normalize(torch.from_numpy(chips_NHWC)))
    assert max(float(found.spatial_NHW.max() - found.spatial_NHW.min()) for found in maps.values()) > 0.1
    found = attention_figure("attended", chips_NHWC, ["", ""], maps)
    assert found.flat
    assert len(found.lines) == len(maps) > 1
    sheet = np.asarray(Image.open(io.BytesIO(found.png))).astype(int)
    for block, attention in enumerate(maps.values()):
        left = 8 + (block + 1) * 136
        tile_HWC = sheet[8:136, left : left + 128]
        strongest = float(attention.relative_gain().abs().max())
        assert (strongest > 0) == (gate > 0)
        color = (tile_HWC.max(axis=2) - tile_HWC.min(axis=2)).max()
        assert color <= 1 + 255 * COVER * strongest / 0.02


def catalogue_in(place: str) -> Catalogue:
    """Chips as files under ``place`` (path or URI): the first half to train on, the second to test on."""
    rng = np.random.default_rng(0)
    targets_NK = (rng.random((ROWS, len(NAMES))) < [0.9, 0.05, 0.3, 0.5, 0.4]).astype(np.uint8)
    targets_NK[-1], targets_NK[-2] = [0, 1, 0, 0, 0], 0
    for n in range(ROWS):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(out, "PNG")
        files.write_bytes(files.join(place, f"{n}.png"), out.getvalue())
    return Catalogue(
        ids=[f"n{n}" for n in range(ROWS)],
        uris=[files.join(place, f"{n}.png") for n in range(ROWS)],
        targets_NK=targets_NK,
        split=np.array(["train", "test"]).repeat(ROWS // 2),
        fold=np.zeros(ROWS, np.int8),
        group=np.array([""] * ROWS),
        labels=LabelSet(NAMES),
    )


def trained(
    run_dir: RunDir, variant: VariantConfig, fold: int = 0, folds: int = 1, gate: float = 0.8
) -> TrainingRun:
    """What a finished training leaves, as far as the picture needs it."""
    training_run = TrainingRun(variant, fold, folds, run_dir.root, "", "")
    weights = save({name: t.contiguous() for name, t in network_of(variant, gate).state_dict().items()})
    files.write_bytes(run_dir.path(training_run.directory, "weights.safetensors"), weights)
    files.write_json(run_dir.path(training_run.directory, "config.json"), variant.model_dump(mode="json"))
    files.write_json(run_dir.path(training_run.directory, "labels.json"), list(NAMES))
    return training_run


@pytest.fixture(params=["local", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder, and one in an object store."""
    if request.param == "local":
        yield str(tmp_path)
        return
    import boto3  # type: ignore[import-untyped]

    request.getfixturevalue("s3_here")
    boto3.client("s3").create_bucket(Bucket="attention")
    yield "s3://attention"


def test_every_variant_with_cbam_gets_a_picture(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue, run_dir = catalogue_in(f"{place}/chips"), RunDir(f"{place}/run")
    cropped = variant_of(crop=48)
    training_runs = [
        trained(run_dir, variant_of("plain", cbam="none")),
        trained(run_dir, cropped, fold=0, folds=2),
        trained(run_dir, cropped, fold=1, folds=2, gate=0.0),
        TrainingRun(variant_of("lost"), 0, 2, run_dir.root, "", ""),
    ]
    rows = list(rare_rows(catalogue))
    files.write_bytes(catalogue.uris[rows[0]], b"gone bad")  # the next one takes its place
    figures = attention_figures(training_runs, catalogue, DataConfig(image_size=SIZE), run_dir, Console())
    assert [one.variant for one in figures] == ["attended"]
    assert "no attention figure of lost: its weights are missing" in capsys.readouterr().out
    chips_NHWC = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(files.read_bytes(catalogue.uris[row]))))
            for row in rows[1 : CHIPS + 1]
        ]
    )[:, 8:56, 8:56]  # the middle, as the network gets it
    (line,) = figures[0].lines
    expected_NHW = 100 * applied(network_of(cropped, 0.8), chips_NHWC)
    assert f"{expected_NHW.min():+.1f}% to {expected_NHW.max():+.1f}%".replace("-", "−") in line
    sheet = np.asarray(Image.open(io.BytesIO(figures[0].png)))
    side = 48 * 3
    np.testing.assert_array_equal(sheet[8 : 8 + side, 8 : 8 + side][1::3, 1::3], chips_NHWC[0])


def test_nothing_is_shown_of_chips_that_are_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue, run_dir = catalogue_in(str(tmp_path)), RunDir(str(tmp_path / "run"))
    gone = replace(catalogue, uris=[uri + ".gone" for uri in catalogue.uris])
    training_runs = [trained(run_dir, variant_of())]
    assert attention_figures(training_runs, gone, DataConfig(image_size=SIZE), run_dir, Console()) == []
    assert "no attention figure of attended: no test chip can be read" in capsys.readouterr().out


def test_chips_with_the_rarest_labels_come_first(tmp_path: Path) -> None:
    catalogue = catalogue_in(str(tmp_path))
    rows = list(rare_rows(catalogue))
    test = catalogue.rows("test")
    counts_K = catalogue.targets_NK[test].sum(0)
    order = np.argsort(counts_K, kind="stable")
    assert NAMES[order[0]] == "mine"
    for row, k in zip(rows, order, strict=False):
        assert catalogue.targets_NK[row, k] == 1
    assert sorted(rows) == [row for row in test if catalogue.targets_NK[row].any()]
    assert rows == list(rare_rows(catalogue))
