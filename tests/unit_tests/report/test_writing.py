"""A page is written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xl3m_integrations import SettingError
from xl3m_integrations.report import require_writable, write


def test_a_file_that_is_there_is_replaced_and_nothing_else_is_left(tmp_path: Path):
    path = tmp_path / "map.html"
    path.write_text("old")
    write(path, "new “page”")
    assert path.read_text(encoding="utf-8") == "new “page”"
    assert os.listdir(tmp_path) == ["map.html"]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "map.html"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["map.html"]


def test_a_link_stays_a_link(tmp_path: Path):
    (tmp_path / "real.html").write_text("old")
    (tmp_path / "link.html").symlink_to("real.html")
    write(tmp_path / "link.html", "new")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").read_text() == "new"


def test_a_character_without_an_encoding_is_written_as_its_number(tmp_path: Path):
    write(tmp_path / "map.html", "\ud800")
    assert (tmp_path / "map.html").read_text() == "&#55296;"


def test_folders_are_refused(tmp_path: Path):
    with pytest.raises(SettingError, match="is a folder"):
        require_writable(tmp_path)
    with pytest.raises(SettingError, match="does not exist; make it first"):
        require_writable(tmp_path / "none" / "map.html")
    require_writable(tmp_path / "map.html")
    require_writable(Path("map.html"))
