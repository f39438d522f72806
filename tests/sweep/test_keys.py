from __future__ import annotations

from typing import Any

import pytest

from canopy.config import Experiment, SearchSpace, derive
from canopy.config.presets import preset
from canopy.sweep.keys import study_key, sweep_key


def test_the_key_covers_settings_variant_and_catalogue(tiny: Experiment) -> None:
    key = sweep_key(tiny, "digest")
    reference = tiny.variants[0]
    others = [
        sweep_key(derive(tiny, sweep=derive(tiny.sweep, trials=9)), "digest"),
        sweep_key(derive(tiny, variants=(derive(reference, seed=7), *tiny.variants[1:])), "digest"),
        sweep_key(tiny, "other"),
    ]
    assert key not in others
    assert sweep_key(derive(tiny, sweep=derive(tiny.sweep, concurrent=9)), "digest") == key
    assert sweep_key(derive(tiny, folds=3), "digest") == key


FINISHED_SWEEPS = {"demo": "e602dfc75b4d", "planet32": "8d57fc4c5af2", "amazon": "56d98f67d28d"}
"""Keys of the presets' sweeps in finished run directories, first digits, for the catalogue ``digest``."""


@pytest.mark.parametrize("name", FINISHED_SWEEPS)
def test_sweeps_of_former_versions_are_recognized_as_done(name: str) -> None:
    config = preset(name)
    (study,) = config.sweep_studies
    assert sweep_key(config, "digest") == study_key(config, study, "digest")
    assert sweep_key(config, "digest").startswith(FINISHED_SWEEPS[name])


def test_more_trials_and_finalists_go_on_from_the_trials_that_are_there(tiny: Experiment) -> None:
    def key(**settings: Any) -> str:
        config = derive(tiny, sweep=derive(tiny.sweep, **{"space": SearchSpace("recipe"), **settings}))
        return study_key(config, config.sweep_studies[0], "digest")

    assert key() == key(trials=30) == key(finalists=0) == key(final_seeds=5) == key(minutes=3)
    assert key() == key(warm_start=("runs/a",))
    assert key() == key(members=2), "the trials of a search become members without being run again"
    others = [key(epochs=9), key(seed=1), key(sampler="random"), key(space=SearchSpace("losses"))]
    assert len({key(), *others, key(objective="macro_f1"), key(scheduler="none")}) == 7


def test_members_depend_on_the_ensemble_section(tiny: Experiment) -> None:
    several = derive(tiny, sweep=derive(tiny.sweep, members=2))
    ensemble = derive(tiny.ensemble, objective="macro_f1")
    assert sweep_key(several, "d") != sweep_key(derive(several, ensemble=ensemble), "d")
    assert sweep_key(tiny, "d") == sweep_key(derive(tiny, ensemble=ensemble), "d")


def test_at_equal_cost_the_size_of_the_chips_sets_the_epochs(tiny: Experiment) -> None:
    space = SearchSpace({"model.backbone": ["test_resnet", "test_efficientnet"]})

    def keys(image_size: int, **settings: Any) -> tuple[str, str]:
        data = derive(tiny.data, image_size=image_size)
        config = derive(tiny, data=data, sweep=derive(tiny.sweep, space=space, epochs=8, **settings))
        return sweep_key(config, "d"), study_key(config, config.sweep_studies[0], "d")

    assert keys(32) == keys(64)
    assert not set(keys(32, equal_cost=True)) & set(keys(64, equal_cost=True))
