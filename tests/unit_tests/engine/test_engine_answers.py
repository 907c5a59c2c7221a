"""The engine's answers: what of the text is read, and that the answer is what the reader says of it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from models import (
    QUESTION,
    TEXT,
    WINDOW,
    make_backend,
    make_model,
    make_tokenizer,
    plain_ids,
    shared_tokenizer,
    text_of,
)

from xl3m_integrations import XL3M, SettingError
from xl3m_integrations.backends.transformers import TransformersBackend


def prompt_tokens(reader: Any, context: str) -> int:
    prompt = reader.prompt(QUESTION)
    ids = reader.hf_tokenizer(context, add_special_tokens=False).input_ids
    return len([*prompt.before, *ids, *prompt.after])


def test_a_text_that_fits_is_read_whole(xl3m: XL3M):
    text = text_of(300, seed=4)
    answer = xl3m.answer(text, QUESTION)
    assert (answer.key_context.text, answer.key_context.spans) == (text, ((0, len(text)),))
    assert answer.selection is None
    assert answer.key_context.segments == answer.key_context.dropped == ()


def test_a_text_that_just_fits_is_read_whole_and_one_token_more_is_not(xl3m: XL3M):
    limit, used = 10, xl3m.scorer.overhead(QUESTION)
    encoding = shared_tokenizer()(TEXT, add_special_tokens=False, return_offsets_mapping=True)
    edge = WINDOW - limit - used
    fits, too_long = (TEXT[: encoding.offset_mapping[edge + more - 1][1]] for more in (0, 1))
    assert (len(plain_ids(fits)), len(plain_ids(too_long))) == (edge, edge + 1)
    answer = xl3m.answer(fits, QUESTION, max_new_tokens=limit)
    assert answer.selection is None
    assert answer.prompt_tokens == WINDOW - limit
    assert xl3m.answer(too_long, QUESTION, max_new_tokens=limit).selection is not None


def test_a_text_that_fits_is_still_selected_from_if_asked(xl3m: XL3M):
    answer = xl3m.answer(text_of(600, seed=4), QUESTION, top_k=1)
    assert answer.selection is not None
    assert answer.key_context == answer.selection.key_context
    assert len(answer.key_context.segments) == 1
    assert len(answer.key_context.text) < 600


def test_segments_that_do_not_fit_are_dropped_with_a_warning(xl3m: XL3M):
    with pytest.warns(UserWarning, match=r"of 20 kept segments do not fit.*least certain first"):
        answer = xl3m.answer(TEXT, QUESTION, top_k=20)
    read, dropped = answer.key_context.segments, answer.key_context.dropped
    assert read
    assert dropped
    assert sorted([*read, *dropped], key=lambda s: s.index) == list(answer.selection.segments)
    assert max(s.rank for s in read) < min(s.rank for s in dropped)
    assert [s.index for s in dropped] == sorted(s.index for s in dropped)
    assert answer.prompt_tokens + xl3m.max_new_tokens <= WINDOW


def test_by_default_there_is_no_warning_and_the_prompt_fits(xl3m: XL3M):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = xl3m.answer(TEXT, QUESTION)
    assert answer.prompt_tokens + xl3m.max_new_tokens <= WINDOW
    assert answer.prompt_tokens == prompt_tokens(xl3m.reader, answer.key_context.text)


def test_the_answer_is_what_the_reader_says_of_the_key_context(xl3m: XL3M):
    answer = xl3m.answer(TEXT, QUESTION, top_k=2, max_new_tokens=8)
    said = "".join(xl3m.reader.stream(answer.key_context.text, QUESTION, max_new_tokens=8))
    assert answer.text == said.strip() != ""
    assert answer.question == QUESTION


def test_the_stream_is_the_answer(xl3m: XL3M):
    how = {"top_k": 2, "max_new_tokens": 12}
    whole = xl3m.answer(TEXT, QUESTION, **how).text
    assert "".join(xl3m.stream(TEXT, QUESTION, **how)).strip() == whole
    stop = whole[len(whole) // 2]
    stopped = xl3m.answer(TEXT, QUESTION, stop=[stop], **how).text
    assert stopped == whole[: whole.index(stop)].strip()
    assert "".join(xl3m.stream(TEXT, QUESTION, stop=[stop], **how)).strip() == stopped


def test_one_stop_string_is_not_taken_for_its_letters(xl3m: XL3M):
    whole = xl3m.answer(TEXT, QUESTION, top_k=2, max_new_tokens=12)
    stop = whole.text[-1] + "\u2603"  # never said, but its first letter is
    assert xl3m.answer(TEXT, QUESTION, top_k=2, max_new_tokens=12, stop=stop).text == whole.text


def test_an_empty_stop_string_is_refused(xl3m: XL3M):
    with pytest.raises(SettingError, match="stop"):
        xl3m.answer(TEXT, QUESTION, stop=["x", ""])


def test_reader_options_reach_the_reader(xl3m: XL3M):
    drawn = set()
    for seed in range(3):
        torch.manual_seed(seed)
        options = {"do_sample": True, "temperature": 5.0}
        drawn.add(xl3m.answer(TEXT, QUESTION, top_k=1, max_new_tokens=8, reader_options=options).text)
    assert len(drawn) == 3


def test_scorer_and_reader_may_be_different_models():
    scorer = make_backend()
    reader_tokenizer = make_tokenizer(vocabulary=400)
    reader = TransformersBackend(make_model("gpt2", vocabulary=400, n_positions=200), reader_tokenizer)
    assert reader.count(TEXT) > scorer.count(TEXT)  # so that counting with the wrong one would show
    xl3m = XL3M(scorer, reader)
    answer = xl3m.answer(TEXT, QUESTION)
    assert answer.selection.tokens == len(plain_ids(TEXT))
    assert answer.prompt_tokens == prompt_tokens(reader, answer.key_context.text)
    assert answer.prompt_tokens + xl3m.max_new_tokens <= 200
    alone = XL3M(scorer, segment_tokens=xl3m.segmenter.segment_tokens).select(TEXT, QUESTION)
    assert answer.selection.scores == pytest.approx(alone.scores, abs=1e-4)
    said = "".join(reader.stream(answer.key_context.text, QUESTION, max_new_tokens=xl3m.max_new_tokens))
    assert answer.text == said.strip()


def test_the_ends_that_are_asked_for_are_read_before_better_segments(xl3m: XL3M):
    with pytest.warns(UserWarning, match="kept segments do not fit"):
        answer = xl3m.answer(TEXT, QUESTION, keep_first=6, keep_last=1)
    assert answer.selection is not None
    last = len(answer.selection.scores) - 1
    kept = {segment.index for segment in answer.key_context.segments}
    assert {*range(6), last} <= kept or kept <= {*range(6), last}
    assert answer.key_context.dropped


def test_the_certainty_of_a_short_text_is_the_measures(xl3m: XL3M):
    assert xl3m.answer("A short text.", QUESTION).certainty is not None
    assert xl3m.answer("A short text.", QUESTION, measure="entropy").certainty is None


def test_questions_may_come_from_an_iterator(xl3m: XL3M):
    asked = [QUESTION, "Who?"]
    for text in (TEXT, "A short text."):
        assert [a.text for a in xl3m.answer_many(text, iter(asked))] == [xl3m.answer(text, q).text for q in asked]
