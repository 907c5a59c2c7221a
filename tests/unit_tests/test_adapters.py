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
from langchain_core.load import dumps
from langchain_core.runnables import ConfigurableField
from llama_index.core.schema import NodeWithScore, TextNode
from lockers import QUERY, rain_around_the_fact

from xl3m_integrations import XL3M, langchain, llama_index
from xl3m_integrations.bundled import MODEL_FOLDER
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


@pytest.mark.parametrize("make", [langchain.XL3MLLM, langchain.ChatXL3M, llama_index.XL3MLLM, langchain.XL3MCompressor])
def test_secrets_are_neither_shown_nor_serialized(make: Any) -> None:
    adapter = make(model=str(MODEL_FOLDER), model_options={"dtype": "float32", "model_options": {"token": "hf_abc"}})
    shown = [repr(adapter), dumps(adapter), repr(adapter.model_dump()), repr(adapter.engine_identity())]
    assert not any("hf_abc" in text for text in shown)
    assert adapter.model_dump()["model_options"]["dtype"] == "float32"
    assert adapter.model_options["model_options"]["token"] == "hf_abc"


def test_an_adapter_that_loaded_its_model_can_be_configured() -> None:
    llm = langchain.XL3MLLM(model=str(MODEL_FOLDER), max_tokens=4, model_options={"dtype": "float32"})
    configured = llm.configurable_fields(max_tokens=ConfigurableField(id="limit"))
    longer = configured.with_config(configurable={"limit": 8}).invoke(PROMPT)
    assert longer.startswith(llm.invoke(PROMPT).rstrip()) and len(longer) > 0
    with pytest.raises(ValueError, match="not both"):
        langchain.XL3MLLM(model=str(MODEL_FOLDER), xl3m=XL3M.default())


def test_models_that_may_differ_never_share_a_cache_entry() -> None:
    scorer: Any = XL3M.default().scorer
    loaded = [XL3M.from_pretrained(model=scorer.model, tokenizer=scorer.hf_tokenizer) for _ in range(2)]
    identities = [langchain.XL3MLLM(xl3m=engine).engine_identity() for engine in loaded]
    assert identities[0] != identities[1]
    assert langchain.XL3MLLM().engine_identity() == langchain.XL3MLLM().engine_identity()
