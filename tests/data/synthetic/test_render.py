"""What chips look like: pure, whole, visible, and neither trivial nor hopeless to learn."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve
from sklearn.preprocessing import StandardScaler

from canopy.config import GenerateConfig
from canopy.data.synthetic.label_model import GROUND, LABELS, SyntheticLabels, ceiling_decisions, draw_labels
from canopy.data.synthetic.render import paint_scene, render_chip


@pytest.mark.parametrize("size", [32, 64, 100, 256])
def test_chips_come_in_any_size(size: int) -> None:
    chip = render_chip(("agriculture", "clear", "primary", "road", "water"), size, 0, 0)
    assert chip.shape == (size, size, 3)
    assert chip.dtype == np.uint8


def test_a_chip_is_a_pure_function_of_seed_and_row() -> None:
    labels = ("agriculture", "clear", "habitation", "primary", "road")
    chip = render_chip(labels, 64, 1, 7)
    render_chip(("cloudy",), 64, 1, 8)  # nothing is carried over
    np.testing.assert_array_equal(render_chip(labels, 64, 1, 7), chip)
    assert (render_chip(labels, 64, 1, 8) != chip).mean() > 0.5
    assert (render_chip(labels, 64, 2, 7) != chip).mean() > 0.5


def test_more_pixels_show_the_same_scene() -> None:
    labels = ("agriculture", "artisinal_mine", "clear", "primary", "road", "water")
    similar = []
    for row in range(8):
        coarse, fine = (render_chip(labels, size, 0, row).astype(float) for size in (64, 256))
        shrunk = fine.reshape(64, 4, 64, 4, 3).mean((1, 3))
        similar.append(np.corrcoef(coarse.ravel(), shrunk.ravel())[0, 1])
    assert np.median(similar) > 0.85, similar


@pytest.mark.parametrize("labels", [(name,) for name in LABELS.names] + [LABELS.names])
def test_any_set_of_labels_can_be_painted(labels: tuple[str, ...]) -> None:
    """Also those that the label statistics never draw (annotators' sets are stranger than ours)."""
    assert render_chip(labels, 64, 0, 3).std() > 0


def test_every_label_that_is_there_can_be_seen() -> None:
    """What is painted later, clouds included, leaves at least 0.3 % of the chip to each label."""
    table = draw_labels(GenerateConfig(rows=400, min_rate=0.06, seed=2))
    seen = defaultdict(list)
    for row, labels in enumerate(LABELS.decode(table.true_NK)):
        scene = paint_scene(labels, 64, 2, row)
        for name in labels:
            if name in GROUND:
                seen[name].append(float(scene.evidence[name].mean()))
    assert set(seen) == set(GROUND)
    for name, shares in seen.items():
        assert min(shares) > 0.003, (name, min(shares))


def test_weather_looks_like_weather() -> None:
    ground = ("primary", "road")
    by_weather = {
        weather: np.stack([render_chip((weather, *ground), 64, 0, row) for row in range(40)]).astype(float)
        for weather in ("clear", "haze", "partly_cloudy")
    }
    cloudy = np.stack([render_chip(("cloudy",), 64, 0, row) for row in range(40)]).astype(float)
    contrast = {weather: chips.std((1, 2)).mean() for weather, chips in by_weather.items()}
    assert contrast["haze"] < 0.8 * contrast["clear"]
    assert contrast["partly_cloudy"] > 1.5 * contrast["clear"]
    assert cloudy.mean() > 1.4 * by_weather["haze"].mean()
    assert by_weather["haze"].mean() > 1.2 * by_weather["clear"].mean()


def rendered(config: GenerateConfig) -> tuple[NDArray[np.uint8], SyntheticLabels]:
    table = draw_labels(config)
    rows = enumerate(LABELS.decode(table.true_NK))
    return np.stack([render_chip(labels, config.size, config.seed, row) for row, labels in rows]), table


def best_f1(written_N: NDArray[np.uint8], scores_N: NDArray[np.float64]) -> float:
    precision, recall, _ = precision_recall_curve(written_N, scores_N)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


def probe_and_ceiling(chips_NHWC: NDArray[np.uint8], table: SyntheticLabels) -> tuple[float, float]:
    """Macro-F1 of a linear probe on colours (its thresholds taken from the answers), and the ceiling."""
    features = np.concatenate([chips_NHWC.mean((1, 2)), chips_NHWC.std((1, 2))], axis=1)
    features = StandardScaler().fit_transform(features)
    half = len(features) // 2
    probe, ceiling = [], []
    decided_NK = ceiling_decisions(table.oracle_NK)
    for k in range(len(LABELS)):
        written = table.written_NK[:, k]
        model = LogisticRegression(max_iter=300).fit(features[:half], written[:half])
        probe.append(best_f1(written[half:], model.predict_proba(features[half:])[:, 1]))
        hits = (decided_NK[half:, k] & (written[half:] == 1)).sum()
        ceiling.append(2 * hits / (decided_NK[half:, k].sum() + written[half:].sum()))
    return float(np.mean(probe)), float(np.mean(ceiling))


def test_mean_colors_do_not_tell() -> None:
    """Even with the probe's thresholds tuned on the very rows that it is scored on."""
    probe, ceiling = probe_and_ceiling(*rendered(GenerateConfig(rows=1200, size=32, min_rate=0.04)))
    assert ceiling > 0.93
    assert probe < ceiling - 0.2, (probe, ceiling)


@pytest.mark.slow
def test_a_small_network_learns_what_the_probe_cannot() -> None:
    """A tiny convolutional net, a minute or two on one core, trained from scratch."""
    import torch
    from torch import nn

    chips_NHWC, table = rendered(GenerateConfig(rows=3600, size=64, min_rate=0.04))
    probe, ceiling = probe_and_ceiling(chips_NHWC, table)
    torch.manual_seed(0)
    images = torch.from_numpy(chips_NHWC).permute(0, 3, 1, 2).float().sub_(75).div_(40)
    targets = torch.from_numpy(table.written_NK).float()
    layers: list[nn.Module] = []
    for inside, outside in ((3, 24), (24, 48), (48, 96), (96, 160)):
        layers += [nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(160, len(LABELS)))
    train, epochs = 2700, 14
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=epochs * (train // 60))
    for epoch in range(epochs):
        order = torch.randperm(train, generator=torch.Generator().manual_seed(epoch))
        for rows in order.reshape(-1, 60):
            batch = images[rows].flip(3) if epoch % 2 else images[rows]
            batch = batch.transpose(2, 3) if epoch % 3 else batch
            loss = nn.functional.binary_cross_entropy_with_logits(net(batch), targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        scores = torch.sigmoid(net(images[train:])).double().numpy()
    learned = float(np.mean([best_f1(table.written_NK[train:, k], scores[:, k]) for k in range(17)]))
    assert probe + 0.1 < learned < ceiling - 0.02, (probe, learned, ceiling)
