"""What an index saves: which tokens are read, and within how much memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from indexes import ALL, QUESTIONS, TEXT, engine, passes
from models import assert_same

from xl3m_integrations import XL3M
from xl3m_integrations.backends.shared_pass import Sharing
from xl3m_integrations.index import Index


def tokens_read(xl3m: XL3M, work: Callable[[], Any]) -> int:
    """Tokens that the model reads while `work` runs."""
    return sum(shape.numel() for shape in passes(xl3m, work))


def test_the_next_question_costs_its_own_tokens():
    xl3m = engine()
    index = xl3m.index(TEXT)
    index.select(QUESTIONS[0], measure="entropy")
    read = tokens_read(xl3m, lambda: index.select(QUESTIONS[1], measure="entropy"))
    backend: Any = xl3m.scorer
    assert read <= len(index) * len(backend.prompt(QUESTIONS[1]).after)


def test_many_questions_read_the_segments_once():
    xl3m = engine()
    segments = xl3m.select(TEXT, "Who?", top_k=ALL).segments
    assert xl3m.scorer.sharing is Sharing.PACKS  # tried, so that what is counted is the pass alone
    own = sum(xl3m.scorer.overhead(question) for question in QUESTIONS)
    for many in (xl3m, xl3m.index(TEXT)):
        text = () if many is not xl3m else (TEXT,)
        read = tokens_read(xl3m, lambda m=many, t=text: m.select_many(*t, QUESTIONS, measure="entropy"))
        assert read <= sum(s.tokens for s in segments) + len(segments) * own


def test_what_questions_begin_with_alike_is_read_once():
    xl3m = engine()
    assert xl3m.scorer.sharing is Sharing.PACKS
    asked = [f"What does the old harbour say of number {n}?" for n in range(5)]
    index = xl3m.index(TEXT)
    index.select("Who?", measure="entropy")
    read = tokens_read(xl3m, lambda: index.select_many(asked, measure="entropy"))
    apart = sum(tokens_read(xl3m, lambda q=question: index.select(q, measure="entropy")) for question in asked)
    twice = tokens_read(xl3m, lambda: index.select_many([asked[0]] * 2, measure="entropy"))
    assert read < apart / 2
    assert twice == tokens_read(xl3m, lambda: index.select(asked[0], measure="entropy"))


@pytest.mark.parametrize("kept", [True, False])
def test_a_short_question_is_asked_of_several_blocks_at_a_time(kept: bool):
    """Also where they were not kept and must be read again."""
    xl3m = engine(batch_tokens=100)
    assert xl3m.scorer.sharing is Sharing.PACKS  # tried, so that only the passes are counted
    text = TEXT * 3
    expected = xl3m.select(text, "Who?", measure="entropy", top_k=ALL)
    index = xl3m.index(text, **({} if kept else {"cache_bytes": 0}))
    first = passes(xl3m, lambda: assert_same(index.select("Who?", measure="entropy", top_k=ALL), expected))
    again = passes(xl3m, lambda: assert_same(index.select("Who?", measure="entropy", top_k=ALL), expected))
    own = len(xl3m.scorer.prompt("Who?").after)
    blocks = sum(tokens > own for _, tokens in first)
    assert blocks > 4 and len(first) - blocks <= len(index) / 2  # blocks of one segment
    assert len(again) == (len(first) - blocks if kept else len(first))
    assert all(rows * tokens <= 100 for rows, tokens in first + again)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_what_does_not_fit_the_budget_is_computed_again(share: float):
    xl3m = engine(batch_tokens=100)
    whole = xl3m.index(TEXT)

    def read(index: Index) -> int:
        return tokens_read(xl3m, lambda: index.select(QUESTIONS[0], measure="entropy"))

    assert xl3m.scorer.sharing is Sharing.PACKS  # tried, so that only the passes are counted
    everything = read(whole)
    budget = int(share * whole.cache.nbytes)
    index = xl3m.index(TEXT, cache_bytes=budget)
    assert read(index) == everything
    for question in QUESTIONS:
        assert_same(index.select(question, top_k=ALL), xl3m.select(TEXT, question, top_k=ALL))
        assert index.cache.nbytes <= budget
    # A text read from front to back must not push out what is needed next: the share that fits is saved, or most of it.
    assert everything - read(index) >= 0.6 * share * (everything - read(whole))
    assert (index.cache.nbytes > 0) == (share > 0)


def test_clearing_lets_go_of_everything_and_the_next_question_is_answered():
    xl3m = engine()
    index = xl3m.index(TEXT)
    before = index.select(QUESTIONS[0])
    index.cache.clear()
    assert index.cache.nbytes == 0
    assert_same(index.select(QUESTIONS[0]), before)


def test_after_memory_ran_short_questions_are_answered_as_before():
    """What was put out is computed again, by the second look too, also in a text that repeats itself."""
    xl3m = engine(batch_tokens=100)
    text = TEXT + "The ferry left. " * 100 + TEXT
    index = xl3m.index(text)
    for question in (*QUESTIONS, *QUESTIONS):
        assert_same(index.select(question, top_k=ALL), xl3m.select(text, question, top_k=ALL))
        index.cache.shrink()


@pytest.mark.parametrize("chosen", [range(0, 40, 3), range(1, 40, 3), range(5)])
def test_what_a_prefilter_keeps_adds_nothing_to_the_cache(chosen: range):
    xl3m = engine(batch_tokens=100)
    index = xl3m.index(TEXT * 3)
    index.select(QUESTIONS[0])
    held = index.cache.nbytes
    found = index.select(QUESTIONS[1], prefilter=lambda _, segments: [s for s in segments if s.index in chosen])
    assert index.cache.nbytes == held and {segment.index for segment in found.segments} <= set(chosen)
