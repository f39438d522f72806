from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from canopy.train.probe_batches import ProbeBatches

STEPS, ROWS = 3, 4


class Source:
    """Views of numbered images; counts what is read and extracted."""

    def __init__(self) -> None:
        self.views: list[int] = []
        self.extracted = 0

    def view(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.views.append(number)
        for step in range(STEPS):
            ids_n = torch.arange(ROWS) + 100 * number + ROWS * step
            yield ids_n.float()[:, None].requires_grad_(), ids_n[:, None].float()

    def extract(self, images: Tensor) -> Tensor:
        self.extracted += 1
        return images * 2

    def epochs(self, first_epoch: int, first_step: int, epochs: int) -> list[tuple[Tensor, Tensor]]:
        return list(ProbeBatches(self.extract, self.view, 2, seed=1).batches(first_epoch, first_step, epochs))


def test_each_view_is_computed_once_and_shown_in_a_new_order() -> None:
    source = Source()
    shown = source.epochs(0, 0, 5)
    assert (source.views, source.extracted) == ([0, 1], 2 * STEPS)
    assert len(shown) == 5 * STEPS
    epochs = [
        torch.cat([targets for _, targets in shown[e * STEPS : (e + 1) * STEPS]])[:, 0] for e in range(5)
    ]
    for epoch, ids_N in enumerate(epochs):
        assert ids_N.sort().values.tolist() == [100.0 * (epoch % 2) + n for n in range(STEPS * ROWS)]
    assert not torch.equal(epochs[0], epochs[2])
    for features_nD, targets_nK in shown:
        assert torch.equal(features_nD, targets_nK * 2), "features and targets stay together"
        assert not features_nD.requires_grad


def test_a_restart_continues_where_it_was() -> None:
    whole = Source().epochs(0, 0, 4)
    later = Source()
    rest = later.epochs(1, 2, 4)
    assert len(rest) == 2 * STEPS + 1
    for (features, targets), (again, again_targets) in zip(whole[STEPS + 2 :], rest, strict=True):
        assert torch.equal(features, again)
        assert torch.equal(targets, again_targets)
    assert later.views == [1, 0]
