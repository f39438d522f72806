"""The token: from the environment or a file, never short; compared with what a request brings."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from canopy.errors import ConfigError
from canopy.inference.service.settings import ServiceOptions
from canopy.inference.service.tokens import is_authorized, token_digest

TOKEN = "a-token-of-24-characters"


def test_it_comes_from_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    monkeypatch.setenv("CANOPY_SERVE_TOKEN", TOKEN)
    assert token_digest(ServiceOptions()) == digest
    monkeypatch.delenv("CANOPY_SERVE_TOKEN")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert token_digest(ServiceOptions(token_file=str(tmp_path / "token"))) == digest
    assert token_digest(ServiceOptions(auth=False)) is None


def test_without_a_good_token_there_is_no_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CANOPY_SERVE_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=r"CANOPY_SERVE_TOKEN must hold a token.*Got: none.*--auth False"):
        token_digest(ServiceOptions())
    for short in ("short", "x" * 15, "ü" * 20, "a b\x00c" * 9):
        (tmp_path / "token").write_text(short)
        with pytest.raises(ConfigError, match="must hold a token of at least 16") as error:
            token_digest(ServiceOptions(token_file=str(tmp_path / "token")))
        assert short not in str(error.value)
    (tmp_path / "binary").write_bytes(b"\xff" * 30)
    for place in (str(tmp_path / "none"), str(tmp_path), str(tmp_path / "binary")):
        with pytest.raises(ConfigError, match="must be a readable text file"):
            token_digest(ServiceOptions(token_file=place))


@pytest.mark.parametrize(
    ("header", "right"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (f"Bearer  {TOKEN} ", True),
        (f"Basic {TOKEN}", False),
        (TOKEN, False),
        (f"Bearer {TOKEN}x", False),
        (f"Bearer {TOKEN[:-1]}", False),
        ("Bearer", False),
        ("", False),
        (None, False),
        ("Bearer \udcff", False),
    ],
)
def test_only_the_token_is_let_in(header: str | None, right: bool) -> None:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    assert is_authorized(digest, header) is right
    assert is_authorized(None, header)
