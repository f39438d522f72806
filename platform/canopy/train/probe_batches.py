"""Batches of a linear probe: features that the frozen backbone computes once per view."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass
class ProbeBatches:
    """Batches of features for the epochs of a probe, on one rank.

    A view is one pass over the training chips with its own random augmentation. Epoch e takes view e modulo
    ``views``, in an order of its own. A view's features are computed when they are first needed, and again
    after a restart, to the same values.

    Args:
        extract: pooled features (n, D) of images (n, C, H, W).
        view_batches: batches of images and targets of a view, from 0; every view has the same number of them.
        views: number of views.
        seed: seed of the order.
    """

    extract: Callable[[Tensor], Tensor]
    view_batches: Callable[[int], Batches]
    views: int
    seed: int
    _kept: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict, init=False)

    def batches(self, first_epoch: int, first_step: int, epochs: int) -> Batches:
        """Features (n, D) and targets (n, K) from a step of an epoch to the end of epoch ``epochs`` - 1."""
        for epoch in range(first_epoch, epochs):
            batches = self._view(epoch % self.views)
            features_ND = torch.cat([features for features, _ in batches])
            targets_NK = torch.cat([targets for _, targets in batches])
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order_N = torch.randperm(len(features_ND), generator=generator).to(features_ND.device)
            parts = torch.split(order_N, len(batches[0][1]))
            for rows_n in parts[first_step if epoch == first_epoch else 0 :]:
                yield features_ND[rows_n], targets_NK[rows_n]

    def _view(self, view: int) -> list[tuple[Tensor, Tensor]]:
        if view not in self._kept:
            with torch.no_grad():
                self._kept[view] = [
                    (self.extract(images).float(), targets) for images, targets in self.view_batches(view)
                ]
        return self._kept[view]
