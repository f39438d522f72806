from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError

from canopy.config import AugmentConfig, Experiment, Section, TrackingConfig, derive


def sections(kind: type[Section]) -> Iterator[type[Section]]:
    """``kind`` and the sections of its fields, each once per occurrence."""
    yield kind
    for field in kind.model_fields.values():
        candidates = (field.annotation, *get_args(field.annotation))
        for found in candidates:
            if inspect.isclass(found) and issubclass(found, Section):
                yield from sections(found)


def help_texts(kind: type[Section]) -> dict[str, str]:
    """The docstring of each field of ``kind``: the string that follows it in the source."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for statement, following in itertools.pairwise(definition.body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            value = following.value if isinstance(following, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                texts[statement.target.id] = " ".join(value.value.split())
    return texts


FIELDS = [(kind, name) for kind in dict.fromkeys(sections(Experiment)) for name in kind.model_fields]


def limits(annotation: Any, metadata: list[Any]) -> Iterator[float]:
    """The limits of a number, or of the numbers in a tuple, a mapping or a union."""
    for limit in metadata:
        if isinstance(limit, Ge | Gt | Le | Lt):
            yield next(getattr(limit, name) for name in ("ge", "gt", "le", "lt") if hasattr(limit, name))
    for part in get_args(annotation):
        if get_origin(part) is Annotated:
            yield from limits(get_args(part)[0], list(part.__metadata__))


def test_every_section_is_found() -> None:
    names = {kind.__name__ for kind, _ in FIELDS}
    assert {
        "Experiment",
        "VariantConfig",
        "LossConfig",
        "SensorConfig",
        "FleetConfig",
        "TrackingConfig",
    } <= names
    assert len(FIELDS) > 100


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_every_field_has_a_help_text_with_its_range(kind: type[Section], name: str) -> None:
    text = help_texts(kind).get(name, "")
    assert text, f"{kind.__name__}.{name} has no docstring"
    assert text.endswith("."), text
    field = kind.model_fields[name]
    for limit in limits(field.annotation, list(field.metadata)):
        assert f"{limit:g}" in text, f"{kind.__name__}.{name}: {limit:g} is not in its help text: {text}"


def test_sections_are_frozen(tiny: Experiment) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tiny.folds = 3


def test_derive_validates(tiny: Experiment) -> None:
    assert derive(tiny, folds=4).folds == 4
    with pytest.raises(ValidationError):
        derive(tiny, folds=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        AugmentConfig(rotate_degrees=value)


def test_a_former_field_name_is_read() -> None:
    former = AugmentConfig.model_validate({"greyscale": 0.25})
    assert former == AugmentConfig(grayscale=0.25)
    assert "greyscale" not in former.model_dump()


def test_a_field_under_both_names_is_refused() -> None:
    with pytest.raises(ValidationError, match="greyscale"):
        AugmentConfig.model_validate({"greyscale": 0.25, "grayscale": 0.5})


def test_a_refused_value_is_not_repeated_in_the_text() -> None:
    with pytest.raises(ValidationError) as caught:
        TrackingConfig.model_validate({"tensorboard": "hunter2"})
    assert "hunter2" not in str(caught.value)
