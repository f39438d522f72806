"""Parts of paths and URIs."""

from __future__ import annotations

import pytest

from canopy.storage import files, paths


def test_a_name_may_have_a_question_mark() -> None:
    assert (
        files.join("s3://b/images?region=x", "forest/what?.jpg") == "s3://b/images/forest/what?.jpg?region=x"
    )
    assert files.parent("s3://b/forest/what?.jpg?region=x") == ("s3://b/forest?region=x", "what?.jpg")
    assert files.parent("s3://b/forest/what?.jpg") == ("s3://b/forest", "what?.jpg")
    assert files.suffix("s3://b/labels.PARQUET?scheme=http&endpoint_override=host:9000") == ".parquet"
    assert files.suffix("a/b.c/labels") == ""


@pytest.mark.parametrize("name", ["what?", "what?region=x", "a?b=c&d=e", "plain.jpg", "a?b"])
@pytest.mark.parametrize("root", ["s3://b/images", "s3://b/images?region=x", "file:///images", "/images"])
def test_a_joined_name_is_found_again(root: str, name: str) -> None:
    directory, last = paths.parent(paths.join(root, name))
    assert last == name
    assert paths.parent(paths.join(directory, "x")) == (directory, "x")
    assert paths.join(directory, last) == paths.join(root, name)


def test_suffix_and_stem_leave_the_query_out() -> None:
    assert paths.suffix("s3://b/a.b/c.Tif?region=x.y") == ".tif"
    assert paths.stem("s3://b/a.b/c.d.Tif?region=x.y") == "c.d"
    assert paths.suffix("/data/what?x=1.jpg") == ".jpg"
    assert paths.suffix("file:///data/run#2/a.parquet") == ".parquet"
    assert paths.suffix(".hidden") == paths.suffix("a.b/c") == ""


def test_only_a_path_with_a_scheme_is_a_uri() -> None:
    assert paths.is_uri("s3://b/x")
    assert not paths.is_uri("C:/x")
    assert not paths.is_uri("a:b")
