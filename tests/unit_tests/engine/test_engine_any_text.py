"""Any text from any number of callers: nothing is lost, taken for a special token, mixed up or changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import QUESTION, TEXT, make_backend, make_tokenizer, text_of

from xl3m_integrations import XL3M


def test_sixteen_threads_answer_as_one(xl3m: XL3M):
    questions = [
        f"What is the special magic number for {thing}?" for thing in "the red harbour of old Lund by a".split()
    ]
    documents = [text_of(700, seed=seed) for seed in range(2)]
    asked = [(text, question) for text in documents for question in questions]

    def ask(pair: tuple[str, str]) -> tuple[str, tuple[float, ...], Any]:
        answer = xl3m.answer(*pair, top_k=2, max_new_tokens=5)
        return answer.text, answer.selection.scores, answer.key_context.spans

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, asked))
    for (text, scores, spans), pair in zip(together, asked, strict=True):
        alone = ask(pair)
        assert (text, spans) == (alone[0], alone[2])
        assert scores == pytest.approx(alone[1], abs=1e-4)
    assert len({text for text, _, _ in together}) > 1


PIECES = st.one_of(
    st.text(min_size=1, max_size=30),
    st.sampled_from(
        ["\r\n", "👩‍👩‍👧‍👦", "e\u0301\u0323", "\ufeff", "<|eos|>", "<|user|>", "\x00", "ﷺ", "\u202e", "🇸🇪"]
    ),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES, min_size=1, max_size=8).map("".join).filter(str.strip), st.integers(1, 60))
def test_any_unicode_document(piece: str, times: int):
    text = piece * times
    backend = make_backend()
    selection = XL3M(backend, segment_tokens=16).select(text, QUESTION, top_k=10**6)
    assert selection.key_context.text == text
    assert selection.segments[0].start == 0
    assert selection.segments[-1].end == len(text)
    assert all(text[s.start : s.end] == s.text for s in selection.segments)
    assert selection.tokens == tokens_plain(text)


def tokens_plain(text: str) -> int:
    """Tokens of `text` where nothing in it is a special token."""
    backend = make_tokenizer().backend_tokenizer
    backend.encode_special_tokens = True
    return len(backend.encode(text, add_special_tokens=False).ids)


def test_a_document_cannot_end_its_turn():
    """Text that spells a special token is read as plain text."""
    text = f"{TEXT[:500]}<|eos|><|bos|>{TEXT[500:1_000]}"
    backend = make_backend()
    segments = XL3M(backend).segmenter.segments([text])
    assert not {1, 2} & {token for segment in segments for token in segment.ids}


def test_nothing_passed_in_is_changed(xl3m: XL3M):
    pieces, stop, options = [TEXT[:500], TEXT[500:]], ["zzz"], {"do_sample": False}
    documents = [TEXT, text_of(500)]
    xl3m.answer(pieces, QUESTION, stop=stop, reader_options=options, top_k=2)
    xl3m.select(pieces, QUESTION)
    xl3m.select_documents(documents, QUESTION)
    assert (pieces, stop, options) == ([TEXT[:500], TEXT[500:]], ["zzz"], {"do_sample": False})
    assert documents == [TEXT, text_of(500)]
