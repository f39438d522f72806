"""The best subset of members: the one that the exhaustive comparison by hand finds."""

from __future__ import annotations

from itertools import combinations

import pytest
from tests.ensemble.worlds import FAST, world

from canopy.inference import members as module
from canopy.inference.members import best_subset, subset_loss


def test_the_best_subset_is_the_one_with_the_least_loss() -> None:
    stored = world(200, noises=(1.4, 6.0, 1.5))
    losses = {one: subset_loss(stored, one, FAST) for one in combinations(stored, 2)}
    best = best_subset(stored, 2, FAST)
    assert best == min(losses, key=losses.__getitem__) == ("m0", "m2"), "the two with the least noise"
    assert best_subset(stored, 3, FAST) == best_subset(stored, 9, FAST) == tuple(stored)


def test_of_many_subsets_members_are_added_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SUBSETS", 1)
    stored = world(200, noises=(6.0, 1.5, 1.4))
    assert best_subset(stored, 2, FAST) == ("m1", "m2")
