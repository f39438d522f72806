"""Names of labels from lists and texts; endings and sizes of images."""

from __future__ import annotations

import pytest

from canopy.data.shard_samples import BadSampleError, fitting_image, image_ending, label_names
from canopy.errors import DataError


@pytest.mark.parametrize(
    ("cell", "names", "labels"),
    [
        (["a", "b", "a"], (), ("a", "b")),
        ("a, tall trees", (), ("a", "tall trees")),
        ("a\r\nb\n", (), ("a", "b")),
        ("['a', 'b']", (), ("a", "b")),
        ("0 1", ("u", "v"), ("u", "v")),
        ("(1)", ("u", "v"), ("v",)),
        (1, ("u", "v"), ("v",)),
        (["1"], ("u", "v"), ("v",)),
        (["1"], ("1", "2"), ("1",)),
        (None, (), ()),
        ("", (), ()),
        ([None], (), ()),
    ],
)
def test_labels_in_every_form(cell: object, names: tuple[str, ...], labels: tuple[str, ...]) -> None:
    assert label_names("row 1", cell, names) == labels


@pytest.mark.parametrize("cell", [[1.5], [True], [""], [["a"]], [2], [-1], "-1"])
def test_what_is_no_label_is_named(cell: object) -> None:
    with pytest.raises(BadSampleError, match=r"no label|none of the 2"):
        label_names("row 1", cell, ("u", "v"))


def test_a_long_text_of_digits_is_read_at_once() -> None:
    with pytest.raises(DataError, match="must have names for numbers"):
        label_names("row 1", "1" * 200 + " 2", ())
    assert label_names("row 1", "1" * 5000 + "x", ()) == ("1" * 5000 + "x",)


def test_images_have_a_size_and_an_ending() -> None:
    assert fitting_image(b"123", 3) == b"123"
    for content in (b"1234", 4):
        with pytest.raises(BadSampleError, match=r"more than data\.max_image_mb"):
            fitting_image(content, 3)
    with pytest.raises(BadSampleError, match="its image is empty"):
        fitting_image(b"", 3)
    assert [image_ending(name) for name in ("a/b.JPG", "rgb.tif", "jpg", "a.txt", "")] == (
        [".jpg", ".tif", ".jpg", "", ""]
    )
