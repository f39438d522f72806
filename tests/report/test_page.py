"""The report's HTML: its figures, its size, and pages with parts missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from canopy.report.attention_maps import AttentionFigure
from canopy.report.page import AugmentationExamples, render_report

VOID = {"meta", "link", "br", "img", "wbr"}


class Outline(HTMLParser):
    """Checks that every tag is closed in order, and keeps the page's visible text and its links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(html: str) -> tuple[str, Outline]:
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    return " ".join("".join(outline.text).split()), outline


def render(run: dict[str, Any], png: bytes | None = None) -> str:
    return render_report(run["summary"], run["histories"], run["trials"], png)


def test_the_page_holds_every_part(demo: dict[str, Any]) -> None:
    text, outline = read(render(demo, b"\x89PNG"))
    ensemble = demo["summary"]["ensemble"]
    assert f"Macro-F1 {ensemble['macro_f1']:.3f} on 1,200 chips" in text
    low, high = ensemble["intervals"]["macro_f1"]
    assert f"{low:.3f} – {high:.3f}" in text
    for name in (*demo["summary"]["members"], *demo["summary"]["data"]["labels"], "Best reachable", "Sweep"):
        assert name in text
    assert "up to 3 at the same time" in text
    assert "gamma 1.60, alpha 0.42" in text
    assert demo["summary"]["config_hash"] in text
    assert "in all 4 min 04 s" in text
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)


def test_the_page_makes_no_network_requests(demo: dict[str, Any]) -> None:
    html = render(demo, b"\x89PNG")
    _, outline = read(html)
    assert all(link.startswith(("#", "data:")) for link in outline.links)
    assert "<script" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert len(html) < 500_000


def test_labels_are_ordered_by_frequency(demo: dict[str, Any]) -> None:
    labels = demo["summary"]["data"]["labels"]
    labels["blooming"] = {part: 10 * count for part, count in labels["primary"].items()}
    section = render(demo).partition('<section id="labels"')[2].partition("</section>")[0]
    rows = [re.sub("<.*?>", "", row) for row in re.findall(r'<th scope="row">(.*?)</th>', section)]
    assert rows == sorted(labels, key=lambda name: (-labels[name]["all"], name))
    assert rows[0] == "blooming"


def test_every_text_is_escaped(run_of: Callable[..., dict[str, Any]]) -> None:
    evil = "<img src=x onerror=alert(1)>\"'&amp;"
    run = run_of([f"a{evil}", f"b{evil}"], [f"label{evil}", "plain"])
    run["summary"]["preset"] = run["summary"]["ensemble"]["method"] = evil
    for variant in run["summary"]["variants"].values():
        variant["backbone"] = variant["loss"] = evil
    run["summary"]["sweep"]["reference"] = f"b{evil}"
    html = render(run)
    text, outline = read(html)
    assert f"a{evil}" in text
    assert f"label{evil}" in text
    assert "<img" not in html
    assert "onerror=alert(1)>" not in html.replace("onerror=alert(1)&gt;", "")
    assert all(link.startswith(("#", "data:")) for link in outline.links)


def cells_of(html: str, section: str) -> dict[str, list[str]]:
    """The first table of a section: each row's cells as texts, by its heading."""
    table = html.partition(f'<section id="{section}"')[2].partition("</table>")[0]
    rows: dict[str, list[str]] = {}
    for row in re.findall(r"<tr.*?>(.*?)</tr>", table.partition("<tbody>")[2], re.DOTALL):
        name, *cells = (
            re.sub(r"<.*?>", " ", c) for c in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL)
        )
        rows["".join(name.split())] = [" ".join(cell.split()) for cell in cells]
    return rows


def test_every_figure_of_every_model_is_there_tuned_and_at_half(demo: dict[str, Any]) -> None:
    summary = demo["summary"]
    rows = cells_of(render(demo), "figures")
    models = {"Ensemble": summary["ensemble"], **summary["members"]}
    assert list(rows) == [*models, "Bestreachable"]
    for name, scores in models.items():
        expected = []
        for key in ("macro_f1", "micro_f1", "samples_f1", "samples_f2"):
            for card in (scores, scores["at_half"]):
                low, high = card["intervals"][key]
                expected.append(
                    f"{card[key]:.3f} {low:.3f}–{high:.3f}".replace(" 0.", " .").replace("–0.", "–.")
                )
        expected += [f"{scores['map']:.3f}", f"{scores['ranking_loss']:.4f}"]
        expected += [f"{scores['coverage_error']:.2f}", f"{scores['calibration_error']:.4f}"]
        assert rows[name] == expected
    text, _ = read(render(demo))
    for label in ("primary", "blow_down"):
        both = [(m["per_class_f1"][label], m["at_half"]["per_class_f1"][label]) for m in models.values()]
        expected_text = " ".join(f"{tuned:.3f} {half:.3f}" for tuned, half in both)
        assert f"{label} {expected_text}" in re.sub(r"(?<=\d)(?=\d\.)|(?<=[a-z])(?=0\.)", " ", text)


def test_figures_that_an_older_summary_lacks_are_dashes(demo: dict[str, Any]) -> None:
    for scores in (*demo["summary"]["members"].values(), demo["summary"]["ensemble"]):
        for figure in ("samples_f1", "samples_f2", "ranking_loss", "coverage_error", "calibration_error"):
            scores.pop(figure)
        scores["at_half"] = {"micro_f1": 0.8, "macro_f1": 0.5}
    html = render(demo)
    cells = cells_of(html, "figures")["resnet-bce"]
    assert cells[1:8:2] == ["0.500", "0.800", "–", "–"]
    assert cells[9:] == ["–", "–", "–"]
    read(html)


def test_a_sweep_over_other_fields_shows_its_studies(demo: dict[str, Any]) -> None:
    curve = [0.3, 0.5]
    fields = ({"optim.lr": 0.01, "loss.name": "<b>"}, {"optim.lr": 0.1, "loss.name": "focal"})
    demo["trials"] = [
        {
            **{
                "variant": "resnet-bce",
                "number": n,
                "values": values,
                "score": 0.5 + n / 10,
                "epochs": 2 - n,
            },
            **{"stopped_early": n == 1, "error": None, "seconds": 1.0, "curve": curve[: 2 - n]},
        }
        for n, values in enumerate(fields)
    ]
    judged = {"values": fields[0], "scores": [0.5, 0.6], "gain": 0.01, "seed_margin": 0.02, "row_low": 0.0}
    study = {
        **{"variant": "resnet-bce", "values": {}, "score": 0.5, "verdict": "the default stays: <noise>"},
        "finalists": [{**judged, "gain": None, "is_better": False}, {**judged, "is_better": False}],
    }
    demo["summary"]["sweep"] = {
        **{"reference": "resnet-bce", "studies": [study], "trials": 2, "stopped_early": 1},
    }
    importance = {"resnet-bce": [{"field": "optim.lr", "value": 0.8, "low": 0.4, "high": 1.0}]}
    ranges = {"optim.lr": {"low": 0.001, "high": 1}, "optim.weight_decay": {"low": 0, "high": 1}}
    study["space"] = {**ranges, "loss.name": ["<b>", "focal"]}
    study["members"] = [
        {"trial": 0, "values": fields[0], "rank": 1, "alone": 0.5, "together": 0.5},
        {"trial": 1, "values": fields[1], "rank": 7, "alone": 0.4, "together": 0.55},
    ]
    surface = {
        **{"x": "optim.lr", "y": "optim.weight_decay", "noise": 0.01, "trials": 12},
        **{"mean": [[0.5, 0.6], [0.55, 0.7]], "deviation": [[0.01, 0.02], [0.03, 0.05]]},
    }
    html = render_report(
        **demo, contact_sheet_png=None, importance=importance, surfaces={"resnet-bce": surface}
    )
    text, _ = read(html)
    assert "Mean score by lr (across) and weight_decay (up)" in text
    assert "Its standard deviation by lr (across) and weight_decay (up)" in text
    for words in ("Rank by score", "resnet-bce-1", "resnet-bce-2", "+0.050"):
        assert words in text
    assert "2 trials, 1 of them stopped early." in text
    assert "The default stays: <noise>." in text
    for title in ("Trials", "Learning curves", "Finalists at full length", "Importance of the fields"):
        assert title in text
    assert "mean over 2 seeds" in text
    assert "<noise>" not in html
    assert "focal sweep" not in text


def test_missing_parts_are_omitted(run_of: Callable[..., dict[str, Any]]) -> None:
    run = run_of(["only"], ["one"], swept=False, ceiling=False)
    run["summary"]["ensemble"] |= {"estimated": None, "versus_best_member": None}
    run["histories"] = {}
    text, _ = read(render(run))
    assert "One model, only, with a threshold per label." in text
    for absent in ("sweep", "Best reachable", "best single member", "Learning", "None", "nan"):
        assert absent not in text


def test_a_class_without_positives_and_an_insignificant_difference(demo: dict[str, Any]) -> None:
    summary = demo["summary"]
    for scores in (*summary["members"].values(), summary["ensemble"], summary["ceiling"]):
        scores["per_class_f1"]["blow_down"] = None
    summary["data"]["labels"]["blow_down"] = {"train": 0, "val": 0, "test": 0, "all": 0}
    summary["ensemble"]["thresholds"].pop("blow_down")
    summary["ensemble"]["versus_best_member"]["macro_f1"] = [-0.004, 0.006, 0.016]
    text, _ = read(render(demo))
    assert "left out of the macro figures: blow_down." in text
    assert "−0.004 to +0.016, so the test split shows no significant difference" in text


def test_an_ensemble_of_its_best_member_alone_is_named(demo: dict[str, Any]) -> None:
    first, *others = demo["summary"]["members"]
    demo["summary"]["ensemble"]["weights"] = {first: 1.0, **dict.fromkeys(others, 0.0)}
    text, _ = read(render(demo))
    assert (
        f"No combination of the 3 members was better than the best of them, so the ensemble is {first}"
        in text
    )


def test_members_brought_from_elsewhere_have_no_variant(demo: dict[str, Any]) -> None:
    demo["summary"]["variants"] = {}
    demo["histories"] = {}
    text, _ = read(render(demo))
    assert "resnet-bce" in text
    assert "Learning" not in text
    assert 'href="#training"' not in render(demo)


def test_an_interval_that_is_not_a_number_is_no_interval(demo: dict[str, Any]) -> None:
    demo["summary"]["ensemble"]["intervals"]["map"] = [float("nan"), float("nan")]
    demo["summary"]["ensemble"]["estimated"] = {}
    text, _ = read(render(demo))
    assert "nan" not in text
    assert "cross-fitted estimate" not in text


@pytest.mark.parametrize(("members", "labels"), [(1, 1), (2, 3), (20, 100)])
def test_any_size_renders(run_of: Callable[..., dict[str, Any]], members: int, labels: int) -> None:
    run = run_of([f"m{k}" for k in range(members)], [f"label {k}" for k in range(labels)])
    html = render(run)
    read(html)
    assert html.count('class="score"') == labels
    assert len(html) < 1_000_000


def test_what_the_models_saw(demo: dict[str, Any]) -> None:
    examples = [
        AugmentationExamples(("a", "b"), "flips & <turns>", b"\xff\xd8"),
        AugmentationExamples(("c",), "no augmentation", b"\xff\xd8"),
    ]
    html = render_report(demo["summary"], demo["histories"], demo["trials"], None, examples)
    text, outline = read(html)
    assert "What the models saw" in text
    assert "flips & <turns>" in text
    assert "seen" in outline.ids
    assert sum(link.startswith("data:image/jpeg;base64,") for link in outline.links) == 2
    text, outline = read(render(demo))
    assert "What the models saw" not in text
    assert "#seen" not in outline.links


def test_where_cbam_looks(demo: dict[str, Any]) -> None:
    figures = [
        AttentionFigure("a", ("layer1: 4 × 4", "last: 2 × 2"), False, b"\x89PNG"),
        AttentionFigure("<b>", ("last: 1",), True, b"\x89"),
    ]
    html = render_report(demo["summary"], demo["histories"], demo["trials"], None, (), figures)
    text, outline = read(html)
    assert "attention" in outline.ids
    assert "layer1: 4 × 4; last: 2 × 2." in text
    assert [link for link in outline.links if link.startswith("data:image/png")] == [
        "data:image/png;base64,iVBORw==",
        "data:image/png;base64,iQ==",
    ]
    assert text.count("Nearly flat") == 1
    assert text.index("last: 1.") < text.index("Nearly flat"), "only of the one that is"
    text, outline = read(render(demo))
    assert "CBAM looks" not in text
    assert "#attention" not in outline.links
