from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import tiny_experiment

from canopy.config import FieldRange, Study, SweepConfig, derive
from canopy.errors import ConfigError
from canopy.stages.checks import check_variants
from canopy.stages.dry_run import plan_of
from canopy.storage.run_dir import RunDir
from canopy.sweep.equal_cost import EqualCost, check_equal_cost, cost_text, costly_points
from canopy.sweep.records import TrialRecord, TrialRecords
from canopy.sweep.schedulers import make_scheduler
from canopy.sweep.selection import ranked
from canopy.sweep.trials import TrialContext, trial_variant
from canopy.train.fleet.scheduler import multiply_adds

VARIANT = derive(tiny_experiment().variants[0], optim={"epochs": 12, "rebalance_epochs": 3})
SPACE = {"model.backbone": ("test_resnet", "test_efficientnet")}
RULE = EqualCost(VARIANT, 32)
OTHER = {"model.backbone": "test_efficientnet"}


def test_the_cost_is_that_of_the_multiply_adds() -> None:
    ratio = multiply_adds("test_efficientnet", None, 32) / multiply_adds("test_resnet", None, 32)
    assert RULE.relative(OTHER) == ratio
    assert ratio < 0.8 or ratio > 1.25, "else these two backbones show nothing"
    assert RULE.relative({"model.backbone": "test_resnet", "optim.lr": 1.0}) == 1
    assert RULE.relative({"optim.lr": 1.0}) == 1
    larger = RULE.relative({"model.input_size": 64})
    assert larger == multiply_adds("test_resnet", 64, 32) / multiply_adds("test_resnet", None, 32) > 3


def test_the_epochs_cost_as_much_as_those_of_the_untouched_variant() -> None:
    for values in (OTHER, {"model.input_size": 48}, {"augment.crop": 16}):
        for reference in (8, 20, 40):
            cost = RULE.epochs(values, reference) * RULE.relative(values)
            assert abs(cost - reference) <= RULE.relative(values) / 2, "to the nearest whole epoch"
    assert RULE.epochs({"model.input_size": 256}, 2) == 1
    assert RULE.epochs(OTHER, 0) == 0


def test_the_winner_is_trained_at_equal_cost_in_both_phases() -> None:
    whole = RULE.at_full_length(OTHER)
    assert whole == {
        **OTHER,
        "optim.epochs": RULE.epochs(OTHER, 12),
        "optim.rebalance_epochs": RULE.epochs(OTHER, 3),
    }
    assert RULE.at_full_length({"optim.lr": 0.1}) == {"optim.lr": 0.1}, "the length stays where cost does"


def study(**space: Any) -> Study:
    named = {name.replace("_", ".", 1): domain for name, domain in space.items()}
    return Study(VARIANT, named, "tpe", "sweep.space")


def test_every_choice_and_both_ends_of_a_range_are_tried() -> None:
    mixed = study(model_backbone=("a", "b"), model_input_size=FieldRange(low=32, high=64), optim_lr=(1.0,))
    assert list(costly_points(mixed.space)) == [
        {"model.backbone": name, "model.input_size": size} for name in ("a", "b") for size in (32, 64)
    ]


def test_a_choice_that_is_too_dear_for_one_epoch_is_one_clear_error() -> None:
    dear = study(model_input_size=(32, 128))
    message = r"one epoch with model.input_size 128 costs as much as .* Got: sweep.epochs 4"
    with pytest.raises(ConfigError, match=message):
        check_equal_cost(dear, 32, 4)
    check_equal_cost(dear, 32, 40)


def test_a_training_that_would_be_too_short_is_one_clear_error() -> None:
    slow = derive(VARIANT, finetune={"swa_epochs": 6})
    with pytest.raises(ConfigError, match=r"sweep.equal_cost needs a training that is long enough"):
        check_equal_cost(replace(study(model_input_size=(32, 64)), variant=slow), 32, 12)


def test_the_checks_and_the_plan_know_the_rule() -> None:
    tiny = tiny_experiment(variants=1)
    settings = {"space": SPACE, "trials": 4, "epochs": 4, "equal_cost": True}
    config = derive(tiny, sweep=SweepConfig.model_validate(settings))
    check_variants(config, "none")
    rule = EqualCost(config.variants[0], 32)
    text = plan_of(config)
    assert (
        f"at equal cost: test_resnet 4 epochs (100%); test_efficientnet {rule.epochs(OTHER, 4)} epochs"
        in text
    )
    assert cost_text(config.sweep_studies[0], 32, 4) in text
    dear = derive(config, sweep=derive(config.sweep, space={"model.input_size": [32, 512]}))
    with pytest.raises(ConfigError, match=r"sweep.equal_cost needs trials"):
        check_variants(dear, "none")


def context_in(folder: Path) -> TrialContext:
    settings = SweepConfig(epochs=8, trials=4)
    records, chips = TrialRecords(RunDir(str(folder)), "0123456789abcdef"), Any
    return TrialContext(trial_variant(VARIANT, settings), settings, chips, records, equal_cost=RULE)  # type: ignore[arg-type]


def test_early_stopping_compares_trials_at_equal_cost(tmp_path: Path) -> None:
    """ASHA's rungs lie at 1, 2, 4 and 8 epochs of the untouched variant, whatever the backbone."""
    context = context_in(tmp_path)
    count = context.epochs_of(OTHER)
    assert (context.epochs_of({}), count) == (8, RULE.epochs(OTHER, 8))
    assert count != 8
    assert context.reference_epochs(OTHER, count) == pytest.approx(8)
    curve = tuple(0.1 * n for n in range(1, count + 1))
    record = TrialRecord(OTHER, curve[-1], count, False, None, curve)
    scheduler = make_scheduler(context.settings, 8, [(0, record)], context.reference_epochs)
    rungs = {level: list(scores.values()) for level, scores in scheduler._brackets[0]._rungs}  # type: ignore[attr-defined]
    passed = {
        level: next(n for n in range(1, count + 1) if n * 8 / count >= level - 1e-9) for level in (1, 2, 4)
    }
    assert {level: rungs[level] for level in passed} == {
        level: [pytest.approx(0.1 * n)] for level, n in passed.items()
    }


def test_complete_trials_of_different_lengths_compete() -> None:
    short, long = TrialRecord(OTHER, 0.7, 3, False, None), TrialRecord({}, 0.6, 8, False, None)
    assert ranked([long, short, TrialRecord({}, 0.9, 7, True, None)]) == [short, long]
