"""Indexes where memory ends, a pass is interrupted, or the input cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from indexes import ALL, QUESTIONS, TEXT, engine
from models import MEASURES, assert_same, make_model, make_tokenizer

from xl3m_integrations import XL3M, InputError, ScoringError, SettingError
from xl3m_integrations.backends.shared_pass import Sharing
from xl3m_integrations.backends.transformers import TransformersBackend


def failing(limit: int) -> tuple[XL3M, list[int]]:
    """An engine whose model has memory for so many rows at once, and the rows that were refused."""
    backend, refused = TransformersBackend(make_model(), make_tokenizer()), []
    assert backend.sharing is Sharing.PACKS
    forward = backend.scoring_model.forward

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        rows = len(kwargs["input_ids"])
        if rows > limit:
            refused.append(rows)
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to read {rows} rows")
        return forward(*args, **kwargs)

    backend.scoring_model.forward = wrapped
    return XL3M(backend), refused


@pytest.mark.parametrize("measure", MEASURES)
def test_out_of_memory_halves_the_batch(measure: str):
    xl3m, refused = failing(limit=3)
    index = xl3m.index(TEXT)
    for question in QUESTIONS:
        assert_same(
            index.select(question, measure=measure, top_k=ALL),
            engine().select(TEXT, question, measure=measure, top_k=ALL),
        )
    for many, question in zip(xl3m.select_many(TEXT, QUESTIONS, top_k=ALL), QUESTIONS, strict=True):
        assert_same(many, engine().select(TEXT, question, top_k=ALL))
    assert refused


def test_memory_too_small_for_one_row_names_the_segment():
    xl3m, _ = failing(limit=0)
    with pytest.raises(ScoringError, match=r"segment \d+ \(characters"):
        xl3m.index(TEXT).select(QUESTIONS[0], measure="entropy")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda xl3m: xl3m.index(""), "document is empty"),
        (lambda xl3m: xl3m.index(), "no document to index"),
        (lambda xl3m: xl3m.index(TEXT).select(" "), "question is empty"),
        (lambda xl3m: xl3m.select_many(TEXT, [QUESTIONS[0], " "]), "question is empty"),
        (lambda xl3m: xl3m.select_many(TEXT, QUESTIONS[0]), "questions is one string"),
        (lambda xl3m: xl3m.select_many(TEXT, ["Who?", "Why is it so? " * 256]), "Shorten the question"),
        (lambda xl3m: xl3m.index(TEXT).select("Why is it so? " * 256), "Shorten the question"),
    ],
)
def test_input_that_cannot_be_used(call: Callable[[XL3M], Any], words: str):
    with pytest.raises(InputError, match=words):
        call(engine())


def test_settings_that_cannot_be_used():
    with pytest.raises(SettingError, match="cache_bytes is -1"):
        engine().index(TEXT, cache_bytes=-1)
    with pytest.raises(SettingError, match="top_k is 0"):
        engine().index(TEXT).select("Who?", top_k=0)
    assert engine().select_many(TEXT, []) == []


@pytest.mark.usefixtures("unhurried")
def test_an_interrupted_pass_leaves_a_cache_that_serves():
    xl3m = engine(batch_tokens=100)
    index = xl3m.index(TEXT)

    def interrupt(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.select(QUESTIONS[0], progress=interrupt)
    assert_same(index.select(QUESTIONS[0], top_k=ALL), xl3m.select(TEXT, QUESTIONS[0], top_k=ALL))
