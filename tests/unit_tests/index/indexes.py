"""What the tests of indexes share: a text, questions, an engine, and what its model reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import QUESTION, make_backend, text_of

from xl3m_integrations import XL3M

TEXT = text_of(1_500, seed=1)
QUESTIONS = [
    QUESTION,
    "Who?",
    "And why is it that the ferry left before the rain had begun to fall on the old town?",
]
ALL = 10**6


def engine(architecture: str = "llama", **settings: Any) -> XL3M:
    backend = make_backend(architecture, **settings)
    return XL3M(backend, backend)


def passes(xl3m: XL3M, work: Callable[[], Any]) -> list[torch.Size]:
    """The shapes, (rows, tokens), that the model reads while `work` runs."""
    read: list[torch.Size] = []
    backend: Any = xl3m.scorer
    forward = backend.logits

    def logits(ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        read.append(ids.shape)
        return forward(ids, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "logits", logits)
        work()
    return read
