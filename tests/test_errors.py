from __future__ import annotations

import pickle

from canopy.errors import DataError, FleetError, InputError, StageError


def test_the_four_parts_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(DataError("data.root", "must be a directory", None, "Give one.")))
    assert isinstance(error, DataError)
    assert isinstance(error, ValueError)
    assert str(error) == "data.root must be a directory. Got: None. Give one."
    assert error.remedy == "Give one."


def test_exit_statuses() -> None:
    assert InputError.exit_status == 2
    assert StageError.exit_status == FleetError.exit_status == 1
