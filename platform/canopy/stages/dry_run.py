"""``--dry-run``: a table of the trainings of an experiment, without reading data and without Ray."""

from __future__ import annotations

from collections.abc import Sequence

from canopy.config import Experiment, ResourcesConfig, Study, VariantConfig
from canopy.config.describe import describe_loss, describe_model
from canopy.config.study import values_text
from canopy.data.synthetic.label_model import PLANET_CHIPS
from canopy.data.synthetic.near_infrared import labels_of
from canopy.models.network import count_parameters
from canopy.runtime.console import table_lines
from canopy.runtime.stage import Stage
from canopy.sweep.equal_cost import cost_text
from canopy.train.phase_plan import planned_epochs, training_phases

HEADINGS = (
    "variant",
    "backbone",
    "pixels",
    "weights",
    "parameters",
    "workers",
    "per worker",
    "epochs",
    "steps",
    "loss",
)
RIGHT = {"pixels", "parameters", "workers", "steps"}


def plan_of(config: Experiment, stages: Sequence[Stage] = tuple(Stage)) -> str:
    """The plan as text: a table of the variants, the numbers of trainings and trials, nodes and cost.

    Raises:
        ConfigError: for a network that cannot be built, a cluster that cannot hold a training, or an estimate
            above the limit of the cost.
    """
    num_rows, origin = expected_rows(config)
    variants = config.trained_variants
    lines = table_lines(HEADINGS, [row_of(variant, config, num_rows) for variant in variants], RIGHT)
    trainings = len(variants) * config.folds
    folds = f"{config.folds} folds" if config.folds > 1 else "1 fold"
    lines += ["", f"{len(variants)} variants × {folds} = {trainings} trainings"]
    for study in config.sweep_studies:
        lines += sweep_lines(config, study)
    lines += cost_lines(config, num_rows, stages)
    lines += [f"steps counted for {origin}", "dry run: nothing was read, started or written"]
    return "\n".join(lines)


def cost_lines(config: Experiment, num_rows: int | None, stages: Sequence[Stage]) -> list[str]:
    """The nodes that the stages will ask for, when, and what that costs; nothing without ``budget.cluster``.

    Raises:
        ConfigError: see :func:`canopy.cost.estimate.estimate` and :func:`refuse_over_budget`.
    """
    if config.budget.cluster is None:
        return []
    if num_rows is None:
        return ["no estimate of nodes and cost: the number of chips is not known"]
    from canopy.cost.estimate import estimate, refuse_over_budget
    from canopy.cost.report import estimate_lines

    found = estimate(config, num_rows, stages)
    refuse_over_budget(config, found)
    return ["", *estimate_lines(found), ""]


def sweep_lines(config: Experiment, study: Study) -> list[str]:
    """The plan of the search over one variant."""
    sweep = config.sweep
    first = f"before them a sweep of {study.name}: {sweep.trials} trials of at most {sweep.epochs} epochs"
    if sweep.is_plain_focal:
        return [first]
    lines = [first, f"  {study.sampler} over {values_text(study.space)}"]
    if sweep.equal_cost:
        shown = cost_text(study, config.data.image_size, sweep.epochs)
        lines.append(f"  at equal cost: {shown} of the cost of {study.name}")
    if sweep.members:
        lines.append(
            f"  then the {sweep.members} trials that make the best ensemble together are trained as members: "
            f"{study.name}-1 to {study.name}-{sweep.members}"
        )
    if sweep.effective_finalists:
        runs = (sweep.effective_finalists + 1) * sweep.final_seeds
        lines.append(
            f"  then {runs} trainings of {study.variant.optim.epochs} epochs: up to "
            f"{sweep.effective_finalists} finalists and the untouched variant, {sweep.final_seeds} seeds each"
        )
    return lines


def expected_rows(config: Experiment) -> tuple[int | None, str]:
    """Expected number of labelled chips and its origin in words; None where only the data set knows it."""
    data = config.data
    match data.source:
        case "generated":
            rows, origin = data.generate.rows, f"{data.generate.rows:,} generated chips"
        case "kaggle":
            rows, origin = PLANET_CHIPS, f"the {PLANET_CHIPS:,} chips of Kaggle's train_v2.csv"
        case _:
            if data.limit is None:
                return None, "no data set: set data.limit, or run jobs/prepare.py, to learn its size"
            rows, origin = data.limit, ""
    if data.limit is not None and data.limit <= rows:
        rows, origin = data.limit, f"data.limit, {data.limit:,} chips"
    return rows, origin


def row_of(variant: VariantConfig, config: Experiment, num_rows: int | None) -> tuple[str, ...]:
    """Cells of a variant, in the order of ``HEADINGS``.

    Args:
        variant: the variant.
        config: the experiment.
        num_rows: number of labelled chips; None where unknown.

    Raises:
        ConfigError: for a network that cannot be built.
    """
    model = variant.model
    labels = len(config.data.labels) or len(labels_of(config.data.generate))
    epochs = " + ".join(str(phase.variant.optim.epochs) for phase in training_phases(variant))
    return (
        variant.name,
        f"{describe_model(model)}, {model.head}",
        str(model.input_size or variant.augment.crop or config.data.image_size),
        "pretrained" if model.pretrained else ("own" if model.weights else "random"),
        f"{count_parameters(model, labels) / 1e6:.2f} M",
        str(variant.scale.workers),
        resources(variant.scale),
        epochs,
        "?" if num_rows is None else steps_of(variant, config, num_rows),
        loss_text(variant, config),
    )


def loss_text(variant: VariantConfig, config: Experiment) -> str:
    """The loss, or what of it comes from the sweep."""
    if variant.swept is True and config.sweep.space is None and not config.sweep.variants:
        return "focal (γ, α from the sweep)"
    swept = " (swept fields)" if variant.swept else ""
    return describe_loss(variant.loss.model_dump()) + swept


def steps_of(variant: VariantConfig, config: Experiment, num_rows: int) -> str:
    """Number of optimizer steps of one training; a lower bound where repeat factors lengthen the epoch."""
    per_epoch = max(1, config.training_rows(num_rows) // variant.optim.batch_size)
    least = "≥ " if variant.sampling.name == "repeat_factor" else ""
    return f"{least}{planned_epochs(training_phases(variant)) * per_epoch:,}"


def resources(scale: ResourcesConfig) -> str:
    """Resources of one worker, such as ``4 CPU, 1 GPU``."""
    wanted = [f"{scale.cpus_per_worker:g} CPU"]
    if scale.gpus_per_worker:
        wanted.append(f"{scale.gpus_per_worker:g} GPU")
    if scale.accelerator:
        wanted.append(f"1 {scale.accelerator}")
    return ", ".join(wanted)
