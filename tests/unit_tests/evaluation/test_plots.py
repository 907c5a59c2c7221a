"""Plots: files that can be looked at, with the n behind every field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from xl3m_integrations import MissingExtraError, SettingError
from xl3m_integrations.evaluation import Evaluation, by_length, heat_map, rankers, write_plots

pytest.importorskip("matplotlib")


def test_files(evaluation: Evaluation, tmp_path: Path):
    files = write_plots(evaluation, tmp_path / "new" / "plots")
    names = {file.name for file in files}
    assert {"recall-1-by-length.png", "contains-by-length.png", "heat-map-xl3m.png"} <= names
    assert "heat-map-full.png" not in names
    assert {file.name for file in (tmp_path / "new" / "plots").iterdir()} == names
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_a_heat_map_tells_every_mean_and_n(evaluation: Evaluation):
    (axes, _) = heat_map(evaluation, "recall@4", "head", bins=2).axes
    cells = [c for c in evaluation.cells(by=("method", "length", "depth"), bins=2) if c.key["method"] == "head"]
    expected = {(cell.key["length"] == 600, cell.key["depth"]): cell for cell in cells}
    assert len(axes.texts) == len(expected)
    for text in axes.texts:
        cell = expected[bool(text.get_position()[0]), text.get_position()[1]]
        assert text.get_text() == f"{cell.figures['recall@4'].value:.2f}\nn={cell.n}"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["300", "600"]


def test_curves_have_a_line_for_every_method_that_has_the_figure(evaluation: Evaluation):
    (axes,) = by_length(evaluation, "recall@1").axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [f"{method} (n=4)" for method in evaluation.settings["methods"] if method != "full"]


def test_nothing_to_draw(evaluation: Evaluation, tmp_path: Path):
    nothing = replace(evaluation, records=())
    with pytest.raises(SettingError, match="nothing to draw"):
        write_plots(nothing, tmp_path)
    with pytest.raises(SettingError, match="no map"):
        heat_map(nothing)


def test_without_matplotlib(evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rankers, "find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match=r"xl3m-integrations\[eval\]"):
        write_plots(evaluation, tmp_path)
