"""Where memory ends, a model fails or says no number, or the window is too short."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import wraps
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models import MEASURES, QUESTION, WINDOW, make_backend, make_model, make_tokenizer, shared_model, shared_tokenizer
from plain_reference import TOLERANCE, evidence_of, hooked, memory_of, segments_of

from xl3m_integrations import InputError, ModelLoadError, ScoringError, SettingError
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.certainty import get_measure


@pytest.mark.parametrize("measure", MEASURES)
def test_out_of_memory_halves_the_batch_and_goes_on(measure: str):
    segments = segments_of((30, 31, 30, 30, 31, 30, 30))
    refused: list[int] = []
    limit = 2 * (31 + make_backend().overhead(QUESTION))

    def refuse(ids: torch.Tensor) -> None:
        refused.extend([ids.numel()] * (ids.numel() > limit))
        memory_of(limit)(ids)

    backend = TransformersBackend(hooked(shared_model(), refuse), shared_tokenizer())
    found = list(backend.evidence(segments, QUESTION, get_measure(measure)))
    assert refused
    assert [segment for segment, _ in found] == segments
    expected = evidence_of(make_backend(), segments, measure)
    for (_, evidence), row in zip(found, expected, strict=True):
        assert evidence == pytest.approx(row, abs=TOLERANCE)


def test_an_allocator_that_speaks_of_memory_counts_as_out_of_memory():
    def refuse(ids: torch.Tensor) -> None:
        if len(ids) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    segments = segments_of((30, 30, 30))
    backend = TransformersBackend(hooked(shared_model(), refuse), shared_tokenizer())
    for evidence, row in zip(
        evidence_of(backend, segments, "entropy"), evidence_of(make_backend(), segments, "entropy"), strict=True
    ):
        assert evidence == pytest.approx(row, abs=TOLERANCE)


@pytest.mark.parametrize("measure", MEASURES)
def test_memory_too_small_for_one_row_names_the_segment(measure: str):
    segments = segments_of((20, 20, 60))
    overhead = make_backend().overhead(QUESTION)
    backend = TransformersBackend(hooked(shared_model(), memory_of(overhead + 50)), shared_tokenizer())
    start, end = segments[2].start, segments[2].end
    with pytest.raises(ScoringError, match=rf"segment 2 \(characters {start} to {end}, 60 tokens\).*segment_tokens"):
        evidence_of(backend, segments, measure)


def test_memory_too_small_for_the_question_alone():
    backend = TransformersBackend(hooked(shared_model(), memory_of(5)), shared_tokenizer())
    with pytest.raises(ScoringError, match="question"):
        evidence_of(backend, segments_of((20,)), "blend")


@pytest.mark.parametrize("measure", MEASURES)
def test_a_model_that_fails_names_the_segment(measure: str):
    def refuse(ids: torch.Tensor) -> None:
        if ids.shape[1] > 90:
            raise IndexError("index out of range in self")

    segments = segments_of((20, 90, 20))
    backend = TransformersBackend(hooked(shared_model(), refuse), shared_tokenizer())
    start, end = segments[1].start, segments[1].end
    with pytest.raises(ScoringError, match=rf"segment 1 \(characters {start} to {end}.*index out of range"):
        evidence_of(backend, segments, measure)


@pytest.mark.parametrize("measure", MEASURES)
def test_nan_logits_name_segment_and_characters(measure: str):
    """float16 overflows in some models; the segment after which it did must be named, wherever it is in the batch."""
    segments = segments_of((30, 30, 31, 30))
    marker = segments[2].ids
    model = deepcopy(shared_model())
    forward = model.forward

    @wraps(forward)
    def broken(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        for row, ids in enumerate(kwargs["input_ids"].tolist()):
            if any(ids[at : at + len(marker)] == marker for at in range(len(ids))):
                output.logits[row] = math.nan
        return output

    model.forward = broken
    start, end = segments[2].start, segments[2].end
    with pytest.raises(ScoringError, match=rf"NaN.*segment 2 \(characters {start} to {end}.*float32"):
        evidence_of(TransformersBackend(model, shared_tokenizer()), segments, measure)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_question_longer_than_the_window(architecture: str, measure: str):
    """GPT-2 has no position to put such a question at, so it must be refused before anything is read."""
    backend = make_backend(architecture)
    with pytest.raises(InputError, match=f"window is {WINDOW} tokens.*[Ss]horten the question"):
        evidence_of(backend, segments_of((20,)), measure, "Why is it so? " * WINDOW)


def test_a_sub_context_may_fill_the_window_to_the_last_token():
    backend = make_backend("gpt2")
    room = WINDOW - backend.overhead(QUESTION)
    for measure, kept_free in (("blend", 0), ("answer_entropy", 4)):
        assert len(evidence_of(backend, segments_of((room - kept_free,)), measure)) == 1
        with pytest.raises(InputError, match="window"):
            evidence_of(backend, segments_of((room - kept_free + 1,)), measure)


def test_window_that_no_one_states():
    model, tokenizer = make_model(), make_tokenizer()
    model.config = SimpleNamespace(get_text_config=SimpleNamespace)
    tokenizer.model_max_length = int(1e30)
    with pytest.raises(ModelLoadError, match="window="):
        TransformersBackend(model, tokenizer)
    assert TransformersBackend(model, tokenizer, window=128).window == 128


def test_batch_tokens_below_one():
    with pytest.raises(SettingError, match="batch_tokens -1"):
        make_backend(batch_tokens=-1)


def test_a_tokenizer_without_a_fast_backend():
    class Slow:
        all_special_tokens = ()

    with pytest.raises(ModelLoadError, match="fast backend"):
        TransformersBackend(shared_model(), Slow())
