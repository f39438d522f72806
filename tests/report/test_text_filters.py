"""Values of the report as text."""

from __future__ import annotations

from canopy.report.text_filters import breakable, interval, loss_text, narrow_interval, score, signed


def test_losses_are_named_with_the_parameters_they_read() -> None:
    focal = {"name": "focal", "gamma": 1.6183, "alpha": 0.42, "clip": 0.05}
    assert loss_text(focal) == "focal, γ 1.62, α 0.42"
    assert loss_text({**focal, "alpha": "frequency"}) == "focal, γ 1.62, α frequency"
    assert loss_text({**focal, "alpha": None}) == "focal, γ 1.62"
    assert loss_text({"name": "logit_adjusted", "tau": 1.0}) == "logit adjusted, τ 1"
    assert loss_text({"name": "bce", "gamma": 2.0}) == "bce"
    assert loss_text("bce") == "bce"
    assert loss_text(None) == "–"


def test_scores_and_intervals_are_dashes_or_empty_where_unknown() -> None:
    assert (score(0.87123), score(None), score(float("nan"))) == ("0.871", "–", "–")
    assert (signed(0.0123), signed(-0.0123)) == ("+0.012", "−0.012")
    assert interval((0.7094, 0.7432)) == "0.709 – 0.743"
    assert narrow_interval((0.7094, 0.7432)) == ".709–.743"
    assert interval(None) == interval((float("nan"), 0.7)) == ""


def test_names_break_after_separators_and_are_escaped() -> None:
    assert breakable("a_b/<c>") == "a_<wbr>b/<wbr>&lt;c&gt;"
