from __future__ import annotations

import json

from canopy.config import (
    Experiment,
    FinetuneConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    derive,
)
from canopy.sweep.trials import (
    final_variant,
    search_parameters,
    trial_resources,
    trial_variant,
)


def test_a_trial_has_one_worker_one_phase_and_the_sweeps_epochs(tiny: Experiment) -> None:
    optim = OptimConfig(epochs=30, patience=2, batch_size=32, rebalance_epochs=3)
    scale = ResourcesConfig(workers=2, min_workers=2)
    reference = derive(tiny.variants[0], optim=optim, scale=scale)
    variant = trial_variant(reference, derive(tiny.sweep, epochs=5))
    assert (variant.optim.epochs, variant.optim.rebalance_epochs, variant.optim.patience) == (5, 0, None)
    assert variant.scale.workers == 1
    assert derive(variant, optim=optim, scale=reference.scale) == reference


def test_a_trial_keeps_lora_and_no_other_technique(tiny: Experiment) -> None:
    finetune = FinetuneConfig(method="lp_ft", lora_rank=4, lora_alpha=8, batch_norm="frozen")
    model = ModelConfig(backbone="test_vit", input_size=32, weights="vit.safetensors")
    reference = derive(tiny.variants[0], model=model, finetune=finetune)
    trial = trial_variant(reference, tiny.sweep)
    assert trial.finetune == FinetuneConfig(lora_rank=4, lora_alpha=8, batch_norm="frozen")
    assert final_variant(reference, tiny.sweep).finetune == finetune


def test_a_finalist_is_trained_at_full_length(tiny: Experiment) -> None:
    optim = OptimConfig(epochs=30, patience=2, batch_size=32, rebalance_epochs=3)
    reference = derive(tiny.variants[0], optim=optim, scale=ResourcesConfig(workers=2))
    variant = final_variant(reference, tiny.sweep)
    assert (variant.optim.epochs, variant.optim.rebalance_epochs, variant.optim.patience) == (30, 3, None)
    assert variant.scale.workers == 1


def test_a_trial_has_the_workers_of_its_variant_where_the_sweep_says_so(tiny: Experiment) -> None:
    reference = derive(tiny.variants[0], scale=ResourcesConfig(workers=2, min_workers=1))
    settings = derive(tiny.sweep, workers="variant")
    for variant in (trial_variant(reference, settings), final_variant(reference, settings)):
        assert (variant.scale.workers, variant.scale.min_workers) == (2, None)


def test_a_trial_takes_the_resources_of_one_worker_and_at_most_one_gpu() -> None:
    scale = ResourcesConfig(cpus_per_worker=4, gpus_per_worker=2, accelerator="a100")
    assert trial_resources(scale) == {"CPU": 4, "GPU": 1, "a100": 1}
    assert trial_resources(ResourcesConfig(gpus_per_worker=0.25)) == {"CPU": 0.5, "GPU": 0.25}


def test_values_are_one_text_for_ray_tune() -> None:
    found = search_parameters(3, {"optim.lr": 0.1, "loss.alpha": None})
    assert found["number"] == 3
    assert json.loads(found["values"]) == {"optim.lr": 0.1, "loss.alpha": None}
