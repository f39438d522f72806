"""The ensemble as one torch module: what the model predicts, from the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from canopy.inference.export.graph import EnsembleGraph, MemberGraph
from canopy.inference.model import Model


def test_the_graph_gives_the_models_probabilities_and_decisions(
    model: Model, images_NHWC: NDArray[np.uint8]
) -> None:
    graph = EnsembleGraph.of(model.ensemble, model.networks.members)
    expected = model.predict_decoded(images_NHWC)
    with torch.inference_mode():
        probs_NK, decisions_NK = graph(torch.from_numpy(images_NHWC))
    np.testing.assert_allclose(probs_NK.numpy(), expected.probs_NK, atol=1e-5)
    np.testing.assert_array_equal(decisions_NK.numpy(), expected.decisions_NK)
    assert np.ptp(expected.probs_NK) > 0.1, "else anything would agree"


def test_a_member_gives_each_folds_probabilities(model: Model, images_NHWC: NDArray[np.uint8]) -> None:
    for name, folds in model.networks.members.items():
        with torch.inference_mode():
            probs_NFK = MemberGraph(folds)(torch.from_numpy(images_NHWC)).numpy()
        expected_NFK = np.stack(model.networks(images_NHWC).probs[name], axis=1)
        np.testing.assert_allclose(probs_NFK, expected_NFK, atol=1e-5)
        assert probs_NFK.shape[1] == len(folds)


@pytest.mark.parametrize("tta", ["none", "flips", "d4"])
def test_symmetries_are_averaged_as_logits(model: Model, tta: str, images_NHWC: NDArray[np.uint8]) -> None:
    name = model.members[0]
    graph = MemberGraph(model.networks.members[name][:1])
    graph.tta = tta  # type: ignore[assignment]
    views = {
        "none": [images_NHWC],
        "flips": [images_NHWC[:, ::y, ::x] for y in (1, -1) for x in (1, -1)],
        "d4": [
            turned[:, ::y, ::x]
            for turned in (images_NHWC, np.rot90(images_NHWC, 1, (1, 2)))
            for y in (1, -1)
            for x in (1, -1)
        ],
    }[tta]
    plain = MemberGraph(model.networks.members[name][:1])
    plain.tta = "none"
    with torch.inference_mode():
        logits = [torch.logit(plain(torch.from_numpy(view.copy())).double()) for view in views]
        got = graph(torch.from_numpy(images_NHWC))
    torch.testing.assert_close(got.double(), torch.sigmoid(torch.stack(logits).mean(0)), atol=1e-5, rtol=0)


def test_members_without_weight_are_left_out(model: Model) -> None:
    import dataclasses

    combination = model.ensemble.combination
    weights_MK = combination.weights_MK.copy()
    weights_MK[1] = 0
    thinner = dataclasses.replace(
        model.ensemble, combination=dataclasses.replace(combination, weights_MK=weights_MK)
    )
    assert len(EnsembleGraph.of(thinner, model.networks.members).members) == len(model.members) - 1


def test_the_models_own_networks_are_not_changed(model: Model) -> None:
    folds = next(iter(model.networks.members.values()))
    MemberGraph(folds, "float16")
    assert {parameter.dtype for parameter in folds[0].network.parameters()} == {torch.float32}
