"""The price table: what a node of each group costs per hour, and how fast it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from canopy.config import Positive, Section
from canopy.config.validation_errors import config_error
from canopy.errors import ConfigError
from canopy.storage import files
from canopy.storage.yaml_files import read_yaml

DEFAULT_TABLE = Path(__file__).with_name("prices.yaml")
NotNegative = Annotated[float, Field(ge=0)]


class PriceTable(Section):
    """Prices per node and hour, and the constants of the estimate."""

    currency: str = Field(pattern=r"^[A-Z]{3}$")
    """Three letters, such as USD."""
    nodes: dict[str, NotNegative]
    """Price of a node per hour, 0 or more, by its group."""
    boot_minutes: NotNegative
    """Minutes from the request of a node to its first task, 0 or more."""
    start_seconds: NotNegative
    """Seconds from the placement of a training's workers to its first step, 0 or more."""
    chips_per_cpu_s: Positive
    """Images per second that one CPU reads and decodes, above 0."""
    gpu_teraflops: Positive
    """Speed of one GPU in training in 10¹² operations per second, above 0."""
    cpu_teraflops: Positive
    """The same of one CPU."""

    def price(self, group: str) -> float | None:
        """Price of a node of ``group`` per hour; None when the table does not name it."""
        return self.nodes.get(group)


def load_prices(path: str | None) -> PriceTable:
    """The price table in a YAML file; the built-in one for None.

    Raises:
        ConfigError: when the file is missing, is not YAML, or breaks a rule of the table.
    """
    name = "budget.prices"
    if path is not None and (not files.exists(path) or files.is_dir(path)):
        remedy = "Correct the path, or leave budget.prices out for the built-in table."
        raise ConfigError(name, "must name a file that exists", path, remedy)
    content = read_yaml(name, str(DEFAULT_TABLE) if path is None else path)
    try:
        return PriceTable.model_validate(content)
    except ValidationError as error:
        raise config_error(f"{name} {path}", error) from None
