"""The notebooks run from top to bottom, and are committed with what they show."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
import pytest

COOKBOOK = Path(__file__).parents[2] / "cookbook"
REFRESH = runpy.run_path(str(COOKBOOK / "refresh.py"))
NOTEBOOKS: list[Path] = REFRESH["NOTEBOOKS"]
SWITCH = '# a real model: XL3M.from_pretrained("'
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook: Any) -> Iterator[Any]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def kinds(cell: Any) -> list[str]:
    """What a cell shows. In how many pieces it prints depends on how fast the machine is."""
    return [kind for kind, _ in groupby(output.output_type for output in cell.outputs)]


def without_pictures(notebook: Any) -> str:
    """All that a notebook holds as text."""
    text = nbformat.writes(notebook)
    return re.sub(r'"image/png": "[^"]*"', "", text)


def test_there_are_seven() -> None:
    assert [path.stem[0] for path in NOTEBOOKS] == list("1234567")


@each
def test_it_is_committed_with_its_outputs_and_names_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = list(code_cells(notebook))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds
    assert not [o for cell in cells for o in cell.outputs if o.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    assert not re.search(r"/(home|root|tmp|Users|usr|work|opt)/|[A-Z]:\\\\", without_pictures(notebook))


@each
def test_one_line_switches_to_a_real_model(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert sum(SWITCH in cell.source for cell in code_cells(notebook)) == 1


@each
def test_links_lead_somewhere(path: Path) -> None:
    prose = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", "\n".join(prose)):
        assert (COOKBOOK / target).is_file()


@pytest.mark.slow
@pytest.mark.enable_socket  # the kernel is spoken to through local sockets
@each
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(COOKBOOK.parent))
    before = nbformat.read(path, as_version=4)
    after = REFRESH["executed"](path, str(tmp_path))
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert [kinds(cell) for cell in code_cells(after)] == [kinds(cell) for cell in code_cells(before)]
