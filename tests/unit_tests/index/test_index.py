"""What is kept from one question to the next, and many questions in one pass: always what `select` gives."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from indexes import ALL, QUESTIONS, TEXT, engine
from models import (
    ARCHITECTURES,
    MEASURES,
    assert_same,
    make_backend,
    make_model,
    make_tokenizer,
    shared_model,
    shared_tokenizer,
    text_of,
)

from xl3m_integrations import XL3M, Selection, SettingError
from xl3m_integrations.backends.base import Scorer, SharingScorer
from xl3m_integrations.backends.shared_pass import Sharing
from xl3m_integrations.backends.transformers import TransformersBackend


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kept_and_shared_equal_plain(architecture: str, measure: str):
    xl3m = engine(architecture)
    how: Any = {"measure": measure, "top_k": ALL}
    expected = [xl3m.select(TEXT, question, **how) for question in QUESTIONS]
    index = xl3m.index(TEXT)
    for _ in range(2):
        for question, plain in zip(QUESTIONS, expected, strict=True):
            assert_same(index.select(question, **how), plain)
    for found in (xl3m.select_many(TEXT, QUESTIONS, **how), index.select_many(QUESTIONS, **how)):
        for many, plain in zip(found, expected, strict=True):
            assert_same(many, plain)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_of_the_suite_packs_questions(architecture: str):
    """Else the tests above would compare one path with itself."""
    assert make_backend(architecture).sharing is Sharing.PACKS


@pytest.mark.parametrize("template", ["{segment}{question}", "Read: {segment}\nAsk: {question}\nSay:"])
@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("measure", ["blend", "entropy"])
def test_any_template(template: str, bos: bool, measure: str):
    """With nothing between segment and question the segment's last token must be read again for its prediction."""
    backend = TransformersBackend(shared_model(), make_tokenizer(bos=bos), template=template)
    xl3m = XL3M(backend)
    index = xl3m.index(TEXT)
    for question, many in zip(QUESTIONS, index.select_many(QUESTIONS, measure=measure, top_k=ALL), strict=True):
        assert_same(many, xl3m.select(TEXT, question, measure=measure, top_k=ALL))
        assert_same(index.select(question, measure=measure, top_k=ALL), many)


def test_a_question_that_begins_unlike_all_others():
    """What the cut between segment and question looks like may depend on the question's first characters."""
    backend = TransformersBackend(shared_model(), shared_tokenizer(), template="{segment}\n\n{question}\n\nSay:")
    xl3m = XL3M(backend)
    questions = ["\n\n\nWhat?", "What?", " \n What?"]
    for question, many in zip(questions, xl3m.index(TEXT).select_many(questions, top_k=ALL), strict=True):
        assert_same(many, xl3m.select(TEXT, question, top_k=ALL))


def test_answers_to_many_questions_are_those_to_each():
    """Also where the text fits the window beside a short question, but not beside a long one."""
    xl3m = engine()
    room = xl3m.window - xl3m.max_new_tokens - xl3m.reader.overhead(QUESTIONS[0])
    fitting = next(TEXT[:n] for n in range(len(TEXT), 0, -1) if xl3m.reader.count(TEXT[:n]) == room)
    questions = [QUESTIONS[0], "And now for a rather long question: " + QUESTIONS[1], *QUESTIONS[1:]]
    for text in (TEXT, fitting):
        index = xl3m.index(text)
        one_by_one = [xl3m.answer(text, question) for question in questions]
        for found in (xl3m.answer_many(text, questions), xl3m.answer_many(iter([text]), questions)):
            assert [answer.text for answer in found] == [answer.text for answer in one_by_one]
            assert [answer.key_context.spans for answer in found] == [a.key_context.spans for a in one_by_one]
        assert [answer.text for answer in index.answer_many(questions)] == [answer.text for answer in one_by_one]
    assert [answer.selection is None for answer in one_by_one][:2] == [True, False]
    assert xl3m.answer_many(TEXT, []) == []


def test_more_questions_than_one_row_holds():
    xl3m = engine()
    questions = [f"What is the special magic number for {n} old harbours by the sea?" for n in range(23)]
    for question, many in zip(questions, xl3m.select_many(TEXT, questions, top_k=ALL), strict=True):
        assert_same(many, xl3m.select(TEXT, question, top_k=ALL))


def test_several_documents():
    xl3m = engine()
    texts = [text_of(size, seed=size) for size in (400, 900, 30)]
    index = xl3m.index(*texts)
    for question in QUESTIONS:
        together = index.select_documents(question, top_k=5)
        for found, plain in zip(together, xl3m.select_documents(texts, question, top_k=5), strict=True):
            assert_same(found, plain)
    assert len(index) == sum(len(one.scores) for one in together)
    for call in (index.select, index.answer):
        with pytest.raises(SettingError, match=r"holds 3 documents; use select_documents"):
            call(QUESTIONS[0])


def test_a_streamed_text():
    xl3m = engine()
    index = xl3m.index(TEXT[at : at + 100] for at in range(0, len(TEXT), 100))
    assert_same(index.select(QUESTIONS[0], top_k=3), xl3m.select(TEXT, QUESTIONS[0], top_k=3))
    assert [index.answer(QUESTIONS[0]).text for _ in range(2)] == [xl3m.answer(TEXT, QUESTIONS[0]).text] * 2
    short = xl3m.index(iter(["The code ", "is 7."]))
    assert short.answer(QUESTIONS[0]).key_context.text == "The code is 7."


def test_answers_are_the_engines():
    xl3m = engine()
    index = xl3m.index(TEXT)
    for question in QUESTIONS:
        plain = xl3m.answer(TEXT, question, max_new_tokens=8)
        assert index.answer(question, max_new_tokens=8).text == plain.text
        assert "".join(index.stream(question, max_new_tokens=8)).strip() == plain.text


def test_hops_and_second_looks_change_nothing_and_keep_nothing_more():
    """What a second look reads depends on the question; kept, it would push out what the next question needs."""
    xl3m = engine()
    index = xl3m.index(TEXT)
    index.select(QUESTIONS[0])
    held = index.cache.nbytes
    for question, many in zip(QUESTIONS, xl3m.select_many(TEXT, QUESTIONS, hops=2, top_k=ALL), strict=True):
        assert_same(index.select(question, hops=2, top_k=ALL), many)
        assert_same(xl3m.select(TEXT, question, hops=2, top_k=ALL), many)
    assert index.cache.nbytes == held


def test_threads_share_an_index():
    xl3m = engine(batch_tokens=300)
    whole = xl3m.index(TEXT)
    whole.select("Who?")
    index = xl3m.index(TEXT, cache_bytes=whole.cache.nbytes // 2)
    barrier = threading.Barrier(6)

    def ask(number: int) -> Selection:
        barrier.wait()
        return index.select(QUESTIONS[number % 3], top_k=ALL)

    with ThreadPoolExecutor(6) as pool:
        for number, found in enumerate(pool.map(ask, range(6))):
            assert_same(found, xl3m.select(TEXT, QUESTIONS[number % 3], top_k=ALL))


def test_a_journal_keeps_what_an_index_scores(tmp_path: Path):
    xl3m = engine()
    index, journal = xl3m.index(TEXT), tmp_path / "run.journal"
    first = index.select(QUESTIONS[0], journal=journal)
    assert index.select(QUESTIONS[0], journal=journal).reused == len(index) > first.reused == 0
    assert xl3m.select(TEXT, QUESTIONS[0], journal=journal).scores == first.scores
    many = index.select_many(QUESTIONS, journal=journal)
    assert many[0].scores == first.scores
    for found, question in zip(many, QUESTIONS, strict=True):
        assert_same(found, xl3m.select(TEXT, question))
    assert [one.reused for one in index.select_many(QUESTIONS, journal=journal)] == [len(index)] * 3


def test_a_model_that_only_lets_questions_continue_one_by_one():
    backend = make_backend()
    backend.sharing = Sharing.QUESTIONS
    xl3m = XL3M(backend)
    for question, many in zip(QUESTIONS, xl3m.select_many(TEXT, QUESTIONS, top_k=ALL), strict=True):
        assert_same(many, xl3m.select(TEXT, question, top_k=ALL))


def test_a_model_that_ignores_what_was_kept_reads_everything_anew():
    """Recurrent models, and wrappers around models, may take keys and values and not use them."""
    model = make_model()
    forward = model.forward
    model.forward = lambda input_ids, logits_to_keep=0, use_cache=None, past_key_values=None: forward(
        input_ids=input_ids, logits_to_keep=logits_to_keep
    )
    backend = TransformersBackend(model, make_tokenizer())
    assert backend.sharing is Sharing.NOTHING
    xl3m = XL3M(backend)
    index = xl3m.index(TEXT)
    for question, many in zip(QUESTIONS, xl3m.select_many(TEXT, QUESTIONS, measure="entropy"), strict=True):
        plain = engine().select(TEXT, question, measure="entropy")
        assert_same(many, plain)
        assert_same(index.select(question, measure="entropy"), plain)


class Plain:
    """A scorer with nothing but the protocol's methods, as wrappers are."""

    def __init__(self, inner: Scorer) -> None:
        self.window, self.tokenizer = inner.window, inner.tokenizer
        self.overhead, self.evidence = inner.overhead, inner.evidence


def test_a_scorer_that_shares_nothing_is_asked_question_by_question():
    plain = Plain(make_backend())
    assert isinstance(make_backend(), SharingScorer)
    assert not isinstance(plain, SharingScorer)
    xl3m = XL3M(plain)
    index = xl3m.index(TEXT)
    for question, many in zip(QUESTIONS, xl3m.select_many(TEXT, QUESTIONS), strict=True):
        assert_same(many, engine().select(TEXT, question))
        assert_same(index.select(question), many)
