"""What the subpackage exports, how it is listed, and what it says where LlamaIndex is missing."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import xl3m_integrations.llama_index as package
from xl3m_integrations import MissingExtraError

NAMES = ["XL3MLLM", "XL3MPostprocessor", "XL3MRetriever"]


def test_the_public_names_are_these() -> None:
    assert sorted(package.__all__) == NAMES
    assert all(hasattr(package, name) for name in NAMES)


def test_llamahub_lists_every_class() -> None:
    project = Path(__file__).parents[3].joinpath("pyproject.toml").read_text(encoding="utf-8")
    _, _, table = project.partition("[tool.llamahub]\n")
    assert f'import_path = "{package.__name__}"' in table
    _, _, authors = table.partition("[tool.llamahub.class_authors]\n")
    assert [line.split(" = ")[0] for line in authors.partition("\n\n")[0].splitlines()] == NAMES


def test_a_missing_extra_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_index.core", None)
    monkeypatch.delitem(sys.modules, package.__name__)
    with pytest.raises(MissingExtraError, match=r'pip install "xl3m-integrations\[llama-index\]"'):
        importlib.import_module(package.__name__)
