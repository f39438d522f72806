"""The price table."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.support import REPOSITORY

from canopy.cost.prices import DEFAULT_TABLE, load_prices
from canopy.errors import ConfigError
from canopy.runtime.node_groups import OTHER


def test_the_built_in_table_prices_every_group_of_cluster_yaml() -> None:
    table = load_prices(None)
    cluster = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text("utf-8"))
    assert set(cluster["available_node_types"]) | {OTHER} == set(table.nodes)
    assert table.price(OTHER) == 0
    assert table.price("gone") is None
    for group in ("gpu1", "gpu4"):
        spot, demand = table.price(f"{group}-spot"), table.price(f"{group}-on-demand")
        assert spot is not None
        assert demand is not None
        assert 0 < spot < demand


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("currency: dollars", r"currency in .* must match the pattern"),
        ("nodes: {head: -1}", r"nodes\.head in .* must be greater than or equal to 0"),
        ("gpu_teraflops: 0", r"gpu_teraflops in .* must be greater than 0"),
        ("cheap: 1", r"cheap in .* must be the name of an option"),
        ("nodes: [", r"must be YAML\. Got: .*p\.yaml: .* \(line \d+, column \d+\)"),
    ],
)
def test_a_bad_table_is_one_clear_error(change: str, problem: str, tmp_path: Path) -> None:
    name = change.partition(":")[0]
    content = yaml.safe_load(DEFAULT_TABLE.read_text("utf-8"))
    content.pop(name, None)
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content) + change)
    with pytest.raises(ConfigError, match=problem):
        load_prices(str(tmp_path / "p.yaml"))


def test_a_missing_table_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"prices must name a file that exists\. Got: gone\.yaml\. Correct the path, or lea"
    ):
        load_prices("gone.yaml")
    with pytest.raises(ConfigError, match=r"budget\.prices must name a file that exists"):
        load_prices(str(tmp_path))
