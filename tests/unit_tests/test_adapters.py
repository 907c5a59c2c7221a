"""What the framework packages export, and what they say where the framework is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from xl3m_integrations import langchain, llama_index


def test_exported_names() -> None:
    assert sorted(langchain.__all__) == ["ChatXL3M", "XL3MCompressor", "XL3MLLM", "XL3MRetriever"]
    assert sorted(llama_index.__all__) == ["XL3MLLM", "XL3MPostprocessor", "XL3MRetriever"]


@pytest.mark.parametrize(
    ("package", "framework", "extra"),
    [("langchain", "langchain_core", "langchain"), ("llama_index", "llama_index.core", "llama-index")],
)
def test_a_missing_framework_is_named_with_its_install_command(package: str, framework: str, extra: str) -> None:
    code = f"import sys; sys.modules[{framework!r}] = None; import xl3m_integrations.{package}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f'pip install "xl3m-integrations[{extra}]"' in done.stderr.splitlines()[-1]
