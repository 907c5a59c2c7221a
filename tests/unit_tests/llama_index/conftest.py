"""One engine for all, and LlamaIndex counting with its tokens, so that nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from llama_index.core import Settings

from xl3m_integrations import XL3M


@pytest.fixture(scope="session")
def xl3m() -> XL3M:
    return XL3M.default(dtype="float32")


@pytest.fixture(autouse=True)
def counting(xl3m: XL3M) -> Iterator[None]:
    before = Settings._tokenizer
    Settings.tokenizer = lambda text: [0] * xl3m.scorer.tokenizer.count(text)
    yield
    Settings._tokenizer = before
