"""The guard of a run's cost on a real Ray: it charges, stores, and ends the run at its limit."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import yaml
from tests.ray_metrics_page import metric_values, wait_for_values
from tests.support import read_json

from canopy.config import BudgetConfig
from canopy.cost.guard import BudgetGuard, is_end
from canopy.cost.prices import DEFAULT_TABLE
from canopy.errors import BudgetError, ConfigError, Stopped
from canopy.runtime.console import Console
from canopy.storage.run_dir import RunDir
from canopy.train.fleet.shutdown import end_on_sigterm

pytestmark = pytest.mark.usefixtures("ray_here")


@pytest.fixture
def sigterm_ends_the_block() -> Iterator[None]:
    former = signal.getsignal(signal.SIGTERM)
    end_on_sigterm()
    yield
    signal.signal(signal.SIGTERM, former)


def table_with(folder: Path, **nodes: float) -> str:
    """A price table whose groups cost ``nodes``."""
    content = yaml.safe_load(DEFAULT_TABLE.read_text("utf-8"))
    (folder / "prices.yaml").write_text(yaml.safe_dump({**content, "nodes": nodes}))
    return str(folder / "prices.yaml")


@pytest.mark.usefixtures("sigterm_ends_the_block")
def test_at_the_limit_the_run_ends_and_cannot_go_on_below_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, prices = RunDir(str(tmp_path / "run")), table_with(tmp_path, other=3600.0)
    budget = BudgetConfig(max_cost=0.5, prices=prices)
    start = time.monotonic()
    with (
        pytest.raises(BudgetError, match=r"the run has cost 0\.\d\d USD, its limit is 0.5 \(--max-cost\)"),
        BudgetGuard(run_dir, budget, Console(), poll_every_s=0.1),
    ):
        time.sleep(30)
    assert 0.4 < time.monotonic() - start < 10
    assert "the run ends with checkpoints" in capsys.readouterr().out
    spent = read_json(tmp_path / "run" / "cost.json")
    assert spent["cost"] >= 0.5
    assert spent["node_hours"] == pytest.approx(spent["cost"] / 3600, abs=1e-3)
    with pytest.raises(ConfigError, match="--max-cost must be above what the run has used already"):
        BudgetGuard(run_dir, budget, Console())
    with BudgetGuard(run_dir, BudgetConfig(max_cost=100, prices=prices), Console()):
        pass
    assert read_json(tmp_path / "run" / "cost.json")["cost"] >= spent["cost"]


def test_without_limits_and_prices_nothing_is_written(tmp_path: Path) -> None:
    with BudgetGuard(RunDir(str(tmp_path / "run")), BudgetConfig(), Console(), poll_every_s=0.05) as guard:
        time.sleep(0.2)
    assert guard.meter.spent.node_hours > 0
    assert guard.meter.spent.cost == 0
    assert not (tmp_path / "run").exists()


def test_a_cost_is_written_also_without_a_limit(tmp_path: Path) -> None:
    budget = BudgetConfig(prices=table_with(tmp_path, other=3600.0))
    with BudgetGuard(RunDir(str(tmp_path / "run")), budget, Console(), poll_every_s=0.05):
        time.sleep(0.2)
    assert read_json(tmp_path / "run" / "cost.json")["cost"] > 0


def test_the_gauges_of_nodes_reach_prometheus_and_count_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spot = {"canopy/group": "gpu1", "canopy/market": "spot"}
    dead = {"Alive": False, "DeathReason": 2, "Labels": spot}
    nodes = [*ray.nodes(), dead]  # type: ignore[no-untyped-call]
    seen = SimpleNamespace(nodes=lambda: list(nodes), exceptions=ray.exceptions)
    monkeypatch.setattr("canopy.cost.guard.ray", seen)
    run = str(tmp_path / "run")
    with BudgetGuard(RunDir(run), BudgetConfig(), Console(), poll_every_s=0.1) as guard:
        nodes.append(dead)
        living: dict[tuple[str, ...], float] = {("other",): 1.0, ("gpu1-spot",): 0.0}
        assert wait_for_values(lambda: metric_values("canopy_nodes", run, "group"), living) == living
        lost: dict[tuple[str, ...], float] = {("other",): 0.0, ("gpu1-spot",): 1.0}
        assert wait_for_values(lambda: metric_values("canopy_nodes_lost", run, "group"), lost) == lost
    assert guard.groups == {"other": 1}


@pytest.mark.usefixtures("sigterm_ends_the_block")
def test_a_limit_that_is_reached_while_the_block_ends_sends_no_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = BudgetConfig(max_cost=0.2, prices=table_with(tmp_path, other=3600.0))
    looking = threading.Event()

    def slow_nodes() -> list[dict[str, object]]:
        if threading.current_thread().name == "budget":
            looking.set()
            time.sleep(0.6)
        return [{"Alive": True}]

    monkeypatch.setattr(ray, "nodes", slow_nodes)
    with BudgetGuard(RunDir(str(tmp_path / "run")), budget, Console(), poll_every_s=0.01) as guard:
        assert looking.wait(5)
    assert guard.reached is None
    assert guard.meter.over(budget) is not None


def test_another_error_of_the_block_is_not_replaced(tmp_path: Path) -> None:
    budget = BudgetConfig(max_node_hours=1)
    guard = BudgetGuard(RunDir(str(tmp_path)), budget, Console())
    guard.reached = "a limit"
    with pytest.raises(ValueError, match="of the stage"), guard:
        raise ValueError("of the stage")


def test_only_the_ends_after_sigterm_are_the_guards() -> None:
    assert is_end(Stopped(signal.SIGTERM, "nothing was running"))
    assert is_end(SystemExit(143))
    assert not is_end(SystemExit(1))
    assert not is_end(KeyboardInterrupt())
    assert not is_end(None)
