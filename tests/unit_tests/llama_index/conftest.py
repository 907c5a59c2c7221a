"""One engine for all, an LLM on it, and LlamaIndex counting with its tokens, so that nothing is downloaded."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import Settings

from xl3m_integrations import XL3M
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.llama_index import XL3MLLM


@pytest.fixture(scope="session")
def xl3m() -> XL3M:
    return XL3M.default(dtype="float32")


@pytest.fixture(autouse=True)
def counting(xl3m: XL3M) -> Iterator[None]:
    before = Settings._tokenizer
    Settings.tokenizer = lambda text: [0] * xl3m.scorer.tokenizer.count(text)
    yield
    Settings._tokenizer = before


@pytest.fixture(autouse=True)
def loop_of_llama_index(request: pytest.FixtureRequest) -> Iterator[None]:
    """Its synchronous calls take the thread's event loop, or make one that they never close: let it be this one."""
    if inspect.iscoroutinefunction(request.function):
        yield
        return
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


@pytest.fixture
def llm(xl3m: XL3M) -> XL3MLLM:
    return XL3MLLM(xl3m=xl3m, max_new_tokens=6)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the own model is given to complete, and with which options."""
    seen: list[tuple[str, dict[str, Any]]] = []
    complete = TransformersBackend.complete

    def spy(self: Any, prompt: str, **options: Any) -> Any:
        seen.append((prompt, options))
        return complete(self, prompt, **options)

    monkeypatch.setattr(TransformersBackend, "complete", spy)
    return seen
