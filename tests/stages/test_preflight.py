"""What is refused before the first stage starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.stages.prepared import prepared_context

from canopy.config import BudgetConfig, Experiment, ModelConfig, SensorConfig, derive
from canopy.errors import ConfigError, RunDirError
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.stages import preflight
from canopy.stages.context import StageContext
from canopy.storage.run_dir import RunDir


def context_of(config: Experiment, folder: Path) -> StageContext:
    return StageContext(config, RunDir(str(folder / "run")), Console())


def test_weights_are_fetched_only_where_a_training_needs_them(tiny: Experiment, tmp_path: Path) -> None:
    assert preflight.weights_check(context_of(tiny, tmp_path), on_ray=True) == "none"
    variant = derive(tiny.variants[0], model=ModelConfig(backbone="test_resnet", pretrained=True))
    transfer = context_of(derive(tiny, variants=(variant,)), tmp_path)
    assert preflight.weights_check(transfer, on_ray=True) == "fetch"
    assert preflight.weights_check(transfer, on_ray=False) == "none"


def test_the_directories_that_nodes_share(tiny: Experiment, tmp_path: Path) -> None:
    places = preflight.shared_places(context_of(tiny, tmp_path))
    assert [(place.option, place.written) for place in places] == [("--run-dir", True)]
    data = derive(tiny.data, root=str(tmp_path))
    (_, root) = preflight.shared_places(context_of(derive(tiny, data=data), tmp_path))
    assert (root.option, root.written) == ("--data.root", True)  # generated chips are written there


@pytest.mark.usefixtures("ray_here")
def test_a_variant_without_room_is_refused_unless_all_are_trained(tmp_path: Path) -> None:
    context = prepared_context(tmp_path)
    variant = context.config.variants[0]
    scale = derive(variant.scale, accelerator="h100")
    config = derive(context.config, variants=(derive(variant, scale=scale),))
    preflight.require_room(context)
    with pytest.raises(ConfigError, match="1 h100, which no node has"):
        preflight.require_room(StageContext(config, context.run_dir, Console()))


@pytest.mark.parametrize("changed", [{"image_size": 48}, {"sensor": SensorConfig(white=3000)}])
def test_trainings_of_other_pixels_do_not_count_as_done(
    changed: dict[str, Any], tiny: Experiment, tmp_path: Path
) -> None:
    context = context_of(tiny, tmp_path)
    preflight.refuse_other_pixels(context)  # a new run directory
    context.run_dir.store_config(tiny)
    other = context_of(derive(tiny, data=derive(tiny.data, **changed)), tmp_path)
    preflight.refuse_other_pixels(other)  # nothing is trained
    (tmp_path / "run" / "train").mkdir()
    preflight.refuse_other_pixels(context)
    with (
        pytest.raises(RunDirError, match=rf"with the data\.{next(iter(changed))} .* Give another --run-dir"),
        preflight.opened(other, [Stage.PREPARE], on_ray=True),
    ):
        pytest.fail("it was not refused")


def test_a_cost_limit_without_a_cluster_refuses_nothing(tiny: Experiment, tmp_path: Path) -> None:
    limited = derive(tiny, budget=BudgetConfig(max_node_hours=0.001))
    preflight.refuse_dear_run(context_of(limited, tmp_path), list(Stage))


def test_a_bad_price_table_is_refused_before_the_run_starts_up(tiny: Experiment, tmp_path: Path) -> None:
    config = derive(tiny, budget=BudgetConfig(prices=str(tmp_path / "gone.yaml")))
    context = context_of(config, tmp_path)  # not prepared: the start would be refused for that
    with (
        pytest.raises(ConfigError, match=r"budget\.prices must name a file that exists"),
        preflight.opened(context, [Stage.TRAIN], on_ray=True),
    ):
        raise AssertionError("a stage would begin")
