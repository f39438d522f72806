"""Fitting the tensors of a file to a backbone: by name, by timm's conversion, or by order and shape."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from canopy.errors import ConfigError
from canopy.models.input_statistics import BANDS
from canopy.models.weights import first_difference
from canopy.models.weights_files import WeightsFile

WRAPPERS = ("module.", "_orig_mod.", "backbone.", "model.", "network.", "encoder.")
"""Prefixes that wrappers and training programs put before the names of a network's tensors."""
COUNTER = "num_batches_tracked"
"""Batch norm's count of steps, which old files lack and which nothing here uses."""
NAMED = 3
"""Tensors that a report names before it only counts."""


@dataclass(frozen=True)
class MatchedWeights:
    """The tensors for a backbone, and how they were found."""

    tensors: dict[str, Tensor]
    """One tensor per name of the backbone's state dict, but for those of ``missing``."""
    method: Literal["name", "timm's conversion", "order and shape"]
    """How the file's tensors were assigned."""
    left_out: tuple[str, ...]
    """Names in the file that the backbone has no use for, as a rule the classifier."""
    missing: tuple[str, ...]
    """Names of the backbone that the file lacks: batch norm's counters at most, which keep their zeros."""

    @property
    def text(self) -> str:
        """The report, as a phrase."""
        parts = [f"{len(self.tensors)} tensors by {self.method}"]
        for names, what in ((self.left_out, "left out"), (self.missing, "missing")):
            if names:
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                parts.append(f"{len(names)} {what} ({', '.join(names[:NAMED])}{more})")
        return ", ".join(parts)


def match_weights(
    file: WeightsFile, backbone: nn.Module, name: str, thing: str, source: str
) -> MatchedWeights:
    """Assign the tensors of a file to those of a backbone.

    Args:
        file: the file.
        backbone: the network without a classifier; only names and shapes of its tensors are used.
        name: timm's name of it; used in error messages.
        thing: name of the option that gave the file; used in error messages.
        source: address of the file; used in error messages.

    Raises:
        ConfigError: when the tensors do not fit, naming the first that does not.
    """
    wanted = backbone.state_dict()
    by_name = _by_name(file.tensors, wanted)
    if _fits(by_name, wanted):
        return _matched(by_name, "name", file.tensors, wanted)
    converted = _converted(file.tensors, backbone, wanted)
    if converted is not None:
        return _matched(_by_name(converted, wanted), "timm's conversion", converted, wanted)
    ordered = _in_order(file, wanted)
    if ordered is not None:
        return _matched(ordered, "order and shape", file.tensors, wanted)
    _refuse_other_bands(file, wanted, name, thing, source)
    needed = {own_name: tensor for own_name, tensor in wanted.items() if not own_name.endswith(COUNTER)}
    found = {own_name: tensor for own_name, (_, tensor) in by_name.items() if own_name in needed}
    difference = first_difference(found, needed)
    remedy = "Give the weights of this backbone, or set model.backbone to the backbone of these weights."
    raise ConfigError(thing, f"must fit {name}", f"{source} with {difference}", remedy)


Found = dict[str, tuple[str, Tensor]]
"""By the backbone's name of a tensor: its name in the file, and the tensor."""


def _by_name(saved: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Found:
    found: Found = {}
    for saved_name, tensor in saved.items():
        for own_name in _own_names(saved_name):
            if own_name in wanted:
                found.setdefault(own_name, (saved_name, tensor))
                break
    return found


def _own_names(saved_name: str) -> Iterator[str]:
    """The name itself, then without each wrapper at its front, one after the other."""
    name = saved_name.replace(".plain.", ".")  # stages that Canopy wrapped for attention
    yield name
    stripped = True
    while stripped:
        stripped = False
        for prefix in WRAPPERS:
            if name.startswith(prefix):
                name, stripped = name.removeprefix(prefix), True
                yield name


def _converted(
    saved: Mapping[str, Tensor], backbone: nn.Module, wanted: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """The tensors after timm's own conversion of this family's checkpoints, if that makes them fit."""
    convert = getattr(sys.modules.get(type(backbone).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        converted: Any = convert(dict(saved), backbone)
    except Exception:  # written for the checkpoints that it knows; others fail in any way
        return None
    if not isinstance(converted, Mapping) or not all(isinstance(t, Tensor) for t in converted.values()):
        return None
    return dict(converted) if _fits(_by_name(converted, wanted), wanted) else None


def _in_order(file: WeightsFile, wanted: Mapping[str, Tensor]) -> Found | None:
    """The file's first tensors, if they agree with the backbone's one by one in shape and last name."""
    if not file.ordered:
        return None
    counted = any(name.endswith(COUNTER) for name in file.tensors)
    names = [name for name in wanted if counted or not name.endswith(COUNTER)]
    if len(file.tensors) < len(names):
        return None
    found: Found = {}
    for own_name, (saved_name, tensor) in zip(names, file.tensors.items(), strict=False):
        same_kind = own_name.rpartition(".")[2] == saved_name.rpartition(".")[2]
        if not same_kind or tensor.shape != wanted[own_name].shape:
            return None
        found[own_name] = saved_name, tensor
    return found


def _fits(found: Found, wanted: Mapping[str, Tensor]) -> bool:
    return all(
        found[name][1].shape == tensor.shape if name in found else name.endswith(COUNTER)
        for name, tensor in wanted.items()
    )


def _matched(
    found: Found,
    method: Literal["name", "timm's conversion", "order and shape"],
    saved: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
) -> MatchedWeights:
    used = {saved_name for saved_name, _ in found.values()}
    return MatchedWeights(
        tensors={name: tensor for name, (_, tensor) in found.items()},
        method=method,
        left_out=tuple(name for name in saved if name not in used),
        missing=tuple(name for name in wanted if name not in found),
    )


def _refuse_other_bands(
    file: WeightsFile, wanted: Mapping[str, Tensor], name: str, thing: str, source: str
) -> None:
    """Refuse weights whose first convolution takes another number of bands."""
    own_name, first = next(((n, t) for n, t in wanted.items() if t.ndim == 4), (None, None))
    if own_name is None or first is None or first.shape[1] != BANDS:
        return
    found = [(n, t) for n, t in file.tensors.items() if t.ndim == 4]
    same_name = [(n, t) for n, t in found if own_name in _own_names(n)]
    for saved_name, tensor in same_name or (found[:1] if file.ordered else []):
        bands, outer = tensor.shape[1], (tensor.shape[0], *tensor.shape[2:])
        if bands != BANDS and outer == (first.shape[0], *first.shape[2:]):
            got = f"{source} for {bands} bands ({saved_name})"
            remedy = "Take weights for RGB images, or those of the three bands that you use."
            raise ConfigError(thing, f"must be for {BANDS} bands, as {name} is", got, remedy)
