"""The result of the sweep as ``best.json`` holds it: per swept variant, the values that its takers take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Self

from canopy.config import (
    Experiment,
    FieldValues,
    VariantConfig,
    describe_values,
    members_of,
    set_fields,
    study_for,
    taken_fields,
)
from canopy.sweep.members import Member, members_verdict
from canopy.sweep.records import FOCAL_KEYS
from canopy.sweep.selection import Finalist


@dataclass(frozen=True)
class StudyResult:
    """The result of the search over one variant."""

    variant: str
    """Name of the swept variant."""
    values: FieldValues
    """The values to take: the best trial's or the winning finalist's; empty where the default stays."""
    score: float
    """Validation score of the best trial."""
    best_trial: FieldValues
    """The best trial's values."""
    finalists: tuple[Finalist, ...] = ()
    """The untouched default and the finalists, judged; empty where there were none."""
    members: tuple[Member, ...] = ()
    """The trials that are trained as members in place of the variant; empty without ``sweep.members``."""

    @property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        if self.members:
            return f"members of {self.variant}: {members_verdict(self.members)}"
        if not self.finalists and not self.values:
            return "the default stays: no other trial ran to its end"
        if not self.finalists:
            return f"best: {describe_values(self.best_trial)} (val score {self.score:.3f})"
        judged = [one for one in self.finalists if one.gain is not None]
        if not judged:
            return "the default stays: the runs of every finalist failed"
        if self.values:
            (won,) = [one for one in judged if one.values == self.values]
            return f"{describe_values(self.values)} beats the default by {_gain(won)}"
        best = max(judged, key=lambda one: one.gain or 0.0)
        return f"the default stays: the best finalist, {describe_values(best.values)}, gains {_gain(best)}"

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "variant": self.variant,
            "values": dict(self.values),
            "score": self.score,
            "best_trial": dict(self.best_trial),
            "finalists": [one.to_json() for one in self.finalists],
            **({"members": [one.to_json() for one in self.members]} if self.members else {}),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Undo :meth:`to_json`."""
        judged = tuple(Finalist.from_json(one) for one in content["finalists"])
        members = tuple(Member.from_json(one) for one in content.get("members", ()))
        return cls(**{**content, "finalists": judged, "members": members})


def _gain(finalist: Finalist) -> str:
    """The gain with its noise, such as ``+0.012 (noise of seeds 0.010, of rows from +0.003)``."""
    assert finalist.gain is not None
    margin, low = finalist.seed_margin, finalist.row_low
    return f"{finalist.gain:+.4f} (seeds alone reach {margin:.4f}; over rows at least {low:+.4f})"


@dataclass(frozen=True)
class SweepResult:
    """The results of all studies.

    Args:
        studies: one per swept variant.
        former: whether ``best.json`` holds gamma, alpha and score, as in former versions.
    """

    studies: tuple[StudyResult, ...]
    former: bool = False

    def to_json(self) -> dict[str, Any]:
        """The content of ``best.json``."""
        if self.former:
            (study,) = self.studies
            return {**{key: study.values[name] for name, key in FOCAL_KEYS.items()}, "score": study.score}
        return {"studies": [study.to_json() for study in self.studies]}

    @classmethod
    def from_json(cls, content: Any, config: Experiment) -> Self:
        """Read the content of ``best.json``.

        Args:
            content: the content.
            config: the experiment that the sweep belongs to.

        Raises:
            ValueError: when a number is missing, not finite or out of range, or a study is missing.
        """
        if config.sweep.is_plain_focal:
            return cls((former_result(content, config.sweep_studies[0].name),), former=True)
        try:
            studies = tuple(StudyResult.from_json(one) for one in content["studies"])
            names = [study.variant for study in studies]
            if names != [study.name for study in config.sweep_studies]:
                raise ValueError(f"studies of {names}")
            for study, result in zip(config.sweep_studies, studies, strict=True):
                for values in (result.values, *(one.values for one in result.members)):
                    set_fields(study.variant, values)
                if len(result.members) != (config.sweep.members or 0):
                    raise ValueError(f"{len(result.members)} members")
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no results of studies ({type(error).__name__}: {error})") from error
        return cls(studies)

    def variants(self, config: Experiment) -> tuple[VariantConfig, ...]:
        """The variants to train, each with the values that it takes, in the order of the experiment.

        Their names are those of ``config.trained_variants``.
        """
        return tuple(one for variant in config.variants for one in self._trained(config, variant))

    def _trained(self, config: Experiment, variant: VariantConfig) -> Iterator[VariantConfig]:
        """``variant`` with the values that it takes from its study, or its members."""
        study = study_for(config, variant)
        if study is None:
            yield variant
            return
        (result,) = [one for one in self.studies if one.variant == study.name]
        if result.members and study.name == variant.name:
            members = members_of(config, variant)
            for named, member in zip(members, result.members, strict=True):
                yield set_fields(named, taken_fields(variant, member.values))
            return
        values = taken_fields(variant, result.values)
        yield set_fields(variant, values) if values else variant


def former_result(content: Any, variant: str) -> StudyResult:
    """The result in a ``best.json`` with gamma, alpha and score.

    Raises:
        ValueError: when a number is missing, not finite or out of range.
    """
    if not isinstance(content, dict):
        raise ValueError("no object with gamma, alpha and score")
    gamma, alpha, score = (_number(content.get(name)) for name in ("gamma", "alpha", "score"))
    if gamma < 0 or not 0 <= alpha <= 1:
        raise ValueError(f"gamma {gamma} or alpha {alpha} is out of range")
    values = {"loss.gamma": gamma, "loss.alpha": alpha}
    return StudyResult(variant, values, score, values)


def _number(value: Any) -> float:
    """``value``, when it is a finite number."""
    if not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"{value!r} is no finite number for gamma, alpha and score")
    return value
