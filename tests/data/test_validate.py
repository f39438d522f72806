"""Validation: every kind of fault is named, and a clean set raises no word."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from canopy.data.catalogue import Catalogue
from canopy.data.duplicates import Duplicates
from canopy.data.label_checks import exclusive_pairs
from canopy.data.listing import Listing
from canopy.data.raster.try_decode import Inspection, try_decode
from canopy.data.validate import (
    label_warnings,
    leakage_warnings,
    level_warnings,
    refuse_bad,
    refuse_unlearnable,
    validate,
)
from canopy.errors import DataError
from canopy.labels import LabelSet


def listing(tags: list[tuple[str, ...]], **changes: Any) -> Listing:
    ids = [f"n{n}" for n in range(len(tags))]
    return Listing(ids, [f"/{name}.jpg" for name in ids], tags, LabelSet.of(tags), "0" * 64, **changes)


GOOD = Inspection("RGB", 64, 64)


def test_a_share_of_images_may_be_bad_to_the_last_one() -> None:
    refuse_bad({str(n): "gone" for n in range(29)}, 100, 0.29, "report")  # 0.29 * 100 is 28.999999999999996
    with pytest.raises(DataError, match="30 of 100"):
        refuse_bad({str(n): "gone" for n in range(30)}, 100, 0.29, "report")


def test_an_image_is_decoded_or_its_problem_told() -> None:
    stream = io.BytesIO()
    Image.new("CMYK", (40, 30)).save(stream, "JPEG")
    chip, seen = try_decode(stream.getvalue(), 16)
    assert chip.shape == (16, 16, 3)
    assert seen == Inspection("CMYK", 40, 30)
    chip, seen = try_decode(stream.getvalue()[:-60], 16)
    assert (chip == 0).all()
    assert "truncated" in seen.problem


def test_a_clean_set_raises_no_word() -> None:
    tags: list[tuple[str, ...]] = [("clear", "road") if n % 3 else ("haze", "road") for n in range(90)]
    found = validate(listing(tags), [GOOD] * 90, Duplicates([], [], [], []))
    assert found.bad == {}
    assert found.warnings() == []
    assert found.positives == {"clear": 60, "haze": 30, "road": 90}
    assert found.together["road"] == {"clear": 60, "haze": 30, "road": 90}
    assert found.exclusive == [("clear", "haze")]
    assert found.sizes == {"64x64": 90}


def test_every_fault_is_named() -> None:
    tags: list[tuple[str, ...]] = [("road",)] * 100
    tags[7] = ()
    tags[8] = ("Road",)
    inspections = [GOOD] * 100
    inspections[3] = Inspection(problem="the file is empty")
    inspections[4] = Inspection("CMYK", 64, 64)
    inspections[5] = Inspection("RGB", 256, 64)
    duplicates = Duplicates([["n10", "n11"]], [("n12", "n13", 0.95)], [("n12", "n13")], ["n14"])
    found = validate(listing(tags, bad={"gone": "there is no such file"}), inspections, duplicates)
    assert found.rows == 101
    assert found.bad == {"gone": "there is no such file", "n3": "the file is empty"}
    assert found.modes == {"RGB": 98, "CMYK": 1}
    assert found.unusual == {"n4": "CMYK", "n5": "256x64"}
    assert found.unlabelled == 1
    assert found.positives == {"Road": 1, "road": 97}
    text = "\n".join(found.warnings())
    for part in (
        "2 of 101 images are left out: gone, n3.",
        "Not all images are 64x64 RGB: n4 (CMYK), n5 (256x64).",
        "1 images have no label",
        "'Road' and 'road' (1 and 97 images) may be two spellings of one label",
        "1 images have a single color: n14",
        "equal, pixel for pixel: n10 = n11",
        "1 pairs of images are near-duplicates: n12 ~ n13",
        "different labels: n12, n13",
    ):
        assert part in text
    assert json.loads(json.dumps(found.to_dict()))["duplicates"]["near"] == [["n12", "n13", 0.95]]


def test_a_large_group_of_duplicates_is_named() -> None:
    def notes(frames: int) -> str:
        chain = [(f"n{n}", f"n{n + 1}", 0.95) for n in range(frames - 1)]  # each looks like the next
        found = validate(listing([("road",)] * 80), [GOOD] * 80, Duplicates([], chain, [], []))
        return "\n".join(found.warnings())

    assert "60 images form one group of duplicates (with n0)" in notes(60)
    assert "hang together" not in notes(40)


def test_the_allowed_share_of_bad_images() -> None:
    inspections = [GOOD] * 18 + [Inspection(problem="truncated")]
    found = validate(listing([("x",)] * 19, bad={"gone": "no file"}), inspections)
    assert (found.rows, list(found.bad)) == (20, ["gone", "n18"])
    refuse_bad(found.bad, found.rows, 0.1, "report.json")
    named = r"at most 0\.09 .* Got: 2 of 20, first gone: no file; n18: truncated\..*\(report\.json lists all"
    with pytest.raises(DataError, match=named):
        refuse_bad(found.bad, found.rows, 0.09, "report.json")
    with pytest.raises(DataError, match="1 of 1"):
        refuse_bad({"a": "truncated"}, 1, 1.0, "report.json")


def test_a_reason_that_holds_for_all_images_stands_alone() -> None:
    with pytest.raises(DataError) as error:
        refuse_bad({"a": "set data.x", "b": "set data.x"}, 2, 1.0, "report.json")
    message = "2 of 2, first a; the reason of all: set data.x. All images have this problem; report.json"
    assert str(error.value).endswith(f"{message} lists them.")
    with pytest.raises(
        DataError, match=r"Repair or replace them \(report\.json lists all\), or correct data"
    ):
        refuse_bad({"a": "truncated", "b": "empty"}, 2, 1.0, "report.json")


def catalogue(split: str, fold: list[int], targets: list[list[int]]) -> Catalogue:
    """One row per letter of ``split``: t(rain), v(al) or e(valuated last, test)."""
    ids = [f"n{n}" for n in range(len(split))]
    return Catalogue(
        ids=ids,
        uris=ids,
        targets_NK=np.array(targets, np.uint8),
        split=np.array([{"t": "train", "v": "val", "e": "test"}[letter] for letter in split]),
        fold=np.array(fold, np.int8),
        group=np.array(ids),
        labels=LabelSet(("mine", "road")),
    )


def test_a_label_that_no_model_could_learn_stops_the_run() -> None:
    never = catalogue("ttve", [0, 0, 0, -1], [[0, 1], [0, 1], [1, 1], [1, 1]])
    with pytest.raises(DataError, match=r"label mine must have a positive in train\. Got: 0 in 2 rows"):
        refuse_unlearnable(never)
    one_fold = catalogue("ttve", [0, 1, 0, -1], [[1, 1], [0, 1], [1, 1], [1, 1]])
    with pytest.raises(DataError, match="label mine must have a positive in train without fold 0"):
        refuse_unlearnable(one_fold)


@pytest.mark.parametrize(
    ("fold", "limit", "remedy"),
    [
        ([0, 0, 0, -1], None, "label, or delete it from the label table and data.labels."),
        ([0, 0, 0, -1], 64, "label, delete it from the label table and data.labels, or raise data.limit."),
        ([0, 1, 0, -1], None, "label, delete it from the label table and data.labels, or lower folds."),
    ],
)
def test_the_remedies_for_a_label_are_those_that_are_set(
    fold: list[int], limit: int | None, remedy: str
) -> None:
    targets = [[int(max(fold) > 0), 1], [0, 1], [1, 1], [1, 1]]
    with pytest.raises(DataError) as error:
        refuse_unlearnable(catalogue("ttve", fold, targets), limit)
    assert str(error.value).endswith(f"Add images with this {remedy}")


def test_a_label_that_cannot_be_scored_is_named() -> None:
    rare = catalogue("ttve", [0, 0, 0, -1], [[1, 1], [0, 1], [0, 1], [0, 1]])
    assert label_warnings(rare) == [
        "mine has no positive in val: its score there is undefined.",
        "mine has no positive in test: its score there is undefined.",
    ]


def test_a_label_too_rare_for_the_folds_is_named() -> None:
    targets = [[1, 1], [1, 1], [0, 1], [1, 1], [1, 1]]
    assert label_warnings(catalogue("tttve", [0, 1, 2, 0, -1], targets)) == [
        "mine has only 2 positives in train: some of the 3 folds hold out none and cannot be scored for it."
    ]


DEEP = Inspection("TIFF with 4 bands of 16 bits", 64, 64, bits=16)


def test_nearly_black_images_of_more_than_8_bits_are_named() -> None:
    thumbs_NSS = np.full((3, 32, 32), 12, np.float32)
    (note,) = level_warnings([DEEP, DEEP._replace(mode="PNG", bits=12), GOOD], thumbs_NSS)
    assert note.startswith(
        "2 of 2 images of 12 and 16 bits are nearly black, 12 of 255 at most: set data.sensor."
    )
    assert level_warnings([DEEP, DEEP, GOOD], 5 * thumbs_NSS) == []
    assert level_warnings([GOOD] * 3, thumbs_NSS) == []


def test_one_bright_image_does_not_hide_the_dark_ones() -> None:
    thumbs_NSS = np.full((200, 32, 32), 12, np.float32)
    thumbs_NSS[7, 0, 0] = 255
    (note,) = level_warnings([DEEP] * 200, thumbs_NSS)
    assert note.startswith("199 of 200 images of 16 bits are nearly black, 12 of 255 at most")
    few = np.full((200, 32, 32), 200, np.float32)
    few[:20] = 12  # water at night
    assert level_warnings([DEEP] * 200, few) == []


def test_duplicates_on_two_sides_of_a_split() -> None:
    sides = catalogue("ttve", [0, 1, 0, -1], [[1, 1]] * 4)
    found = Duplicates([["n0", "n3"]], [("n0", "n1", 0.95), ("n2", "left out", 0.99)], [], [])
    assert leakage_warnings(sides, found) == [
        "n0 (train 0) and n3 (test) are duplicates on two sides of a split.",
        "n0 (train 0) and n1 (train 1) are duplicates on two sides of a split.",
    ]


def test_a_scene_on_two_sides_of_a_split() -> None:
    scenes = replace(catalogue("ttvte", [0, 0, 0, 1, -1], [[1, 1]] * 5), group=np.array(list("aabcc")))
    assert leakage_warnings(scenes, Duplicates([], [], [], [])) == [
        "1 groups have images on two sides of a split: c."
    ]
    copies = Duplicates([["n3", "n4"]], [], [], [])
    assert leakage_warnings(scenes, copies) == [
        "n3 (train 1) and n4 (test) are duplicates on two sides of a split."
    ], "named once"


def test_the_report_names_all_and_a_note_counts_all() -> None:
    inspections = [GOOD] * 200 + [Inspection("CMYK", 64, 64)] * 130
    found = validate(listing([("road",)] * 330), inspections)
    assert list(found.unusual) == [f"n{n}" for n in range(200, 330)]
    assert any("n204 (CMYK) and 125 more" in note for note in found.warnings())
    targets_NK = np.zeros((20_000, 2), np.uint8)
    targets_NK[:10_000, 0] = targets_NK[9_960:, 1] = 1
    ids = [f"n{n}" for n in range(20_000)]
    (pair,) = exclusive_pairs(("clear", "cloudy"), targets_NK, ids)[1]
    assert pair[2] == ids[9_960:10_000]
