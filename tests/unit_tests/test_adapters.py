"""What all adapters share: their names, what they say without their framework, and the engine's choices."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from lockers import QUERY, rain_around_the_fact

from xl3m_integrations import XL3M, langchain, llama_index
from xl3m_integrations.types import Segment


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


LONG = rain_around_the_fact(60)
PROMPT = f"{LONG}\n\nQuestion: {QUERY}\nAnswer:"

ADAPTERS: dict[str, Callable[..., object]] = {
    "langchain.XL3MCompressor": lambda **how: langchain.XL3MCompressor(**how).compress_documents(
        [Document(LONG)], QUERY
    ),
    "langchain.XL3MRetriever": lambda **how: langchain.XL3MRetriever.from_texts([LONG], k=1, **how).invoke(QUERY),
    "langchain.XL3MLLM": lambda **how: langchain.XL3MLLM(**how).invoke(PROMPT),
    "langchain.ChatXL3M": lambda **how: langchain.ChatXL3M(**how).invoke(PROMPT),
    "llama_index.XL3MPostprocessor": lambda **how: llama_index.XL3MPostprocessor(**how).postprocess_nodes(
        [NodeWithScore(node=TextNode(text=LONG))], query_str=QUERY
    ),
    "llama_index.XL3MRetriever": lambda **how: llama_index.XL3MRetriever.from_texts([LONG], **how).retrieve(QUERY),
    "llama_index.XL3MLLM": lambda **how: llama_index.XL3MLLM(**how).complete(PROMPT),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_hops_and_prefilter_reach_the_engine(adapter: str) -> None:
    asked: list[str] = []

    def the_first_two(question: str, segments: Iterable[Segment]) -> Iterable[Segment]:
        asked.append(question)
        return islice(segments, 2)

    ADAPTERS[adapter](xl3m=XL3M.default(), hops=2, prefilter=the_first_two)
    first, second = asked
    assert QUERY in first and second.endswith(first) and "ferry" in second.removesuffix(first)


RETRIEVERS = ["langchain.XL3MRetriever", "llama_index.XL3MRetriever"]


@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_a_retriever_reads_again_what_another_has_computed(retriever: str, tmp_path: Path) -> None:
    xl3m = XL3M.default()
    read: list[int] = []
    logits = xl3m.scorer.logits

    def counted(ids: Any, *rest: Any, **cache: Any) -> Any:
        read.append(ids.numel())
        return logits(ids, *rest, **cache)

    xl3m.scorer.logits = counted

    def scores(**how: Any) -> list[float]:
        found: Any = ADAPTERS[retriever](xl3m=xl3m, **how)
        return [one.score if isinstance(one, NodeWithScore) else one.metadata["relevance_score"] for one in found]

    expected = scores()
    costs = []
    for _ in range(2):
        read.clear()
        assert scores(cache_dir=tmp_path) == expected
        costs.append(sum(read))
    assert costs[1] < costs[0] / 2


@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_a_cache_that_cannot_be_is_refused_before_anything_is_read(retriever: str) -> None:
    with pytest.raises(ValueError, match="cache_dir_bytes is 10, but there is no cache_dir"):
        ADAPTERS[retriever](cache_dir_bytes=10)
