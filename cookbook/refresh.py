"""Run the notebooks and keep their outputs: `python cookbook/refresh.py [NOTEBOOK…]`, all of them if none is named."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 1_800  # that one cell may take


def executed(path: Path, folder: str) -> nbformat.NotebookNode:
    """A notebook with fresh outputs, run in `folder`, where it may write its files."""
    os.environ |= {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}  # bars are no output to keep
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": folder}}, record_timing=False
    ).execute()
    notebook.metadata["language_info"] = {"name": "python"}  # not of which version here
    return notebook


def main(names: list[str]) -> None:
    """Run the notebooks in place; one that fails stays as it was."""
    for path in [Path(name) for name in names] or NOTEBOOKS:
        print(path.name, flush=True)  # noqa: T201
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, folder)
        beside = path.with_name(f".{path.name}.part")
        nbformat.write(notebook, beside)
        os.replace(beside, path)


if __name__ == "__main__":
    main(sys.argv[1:])
