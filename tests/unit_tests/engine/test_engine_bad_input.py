"""What the engine refuses: texts, questions and settings that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from models import QUESTION, TEXT, WINDOW, make_backend

from xl3m_integrations import XL3M, InputError, SettingError, TopK
from xl3m_integrations.certainty import Entropy

LONG_QUESTION = "Why is it so? " * WINDOW
SURROGATE = "Good morning \ud83d, everyone. " * 3

Call = Callable[[XL3M, Any, Any], Any]
CALLS: dict[str, Call] = {
    "select": lambda xl3m, text, question: xl3m.select(text, question),
    "answer": lambda xl3m, text, question: xl3m.answer(text, question),
    "stream": lambda xl3m, text, question: list(xl3m.stream(text, question)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("text", "question", "words"),
    [
        ("", QUESTION, "document is empty: it has 0 characters"),
        (" \n\t ", QUESTION, "document is empty: it has 4 characters, none of them visible"),
        ("\u3000\u2028" * 4_000, QUESTION, "document is empty: it has 8000 characters"),
        ([], QUESTION, "document is empty"),
        (["", " "], QUESTION, "document is empty"),
        (TEXT, "", "question is empty"),
        (TEXT, " \n", "question is empty"),
        (TEXT, LONG_QUESTION, rf"question takes \d+ tokens.*window is {WINDOW} tokens.*[Ss]horten the question"),
        ("Short text.", LONG_QUESTION, rf"question takes \d+ tokens.*window is {WINDOW} tokens"),
        (SURROGATE, QUESTION, r"lone surrogate, '\\ud83d', at character 13"),
        ([TEXT, SURROGATE], QUESTION, rf"lone surrogate, '\\ud83d', at character {len(TEXT) + 13}"),
        (TEXT, f"{SURROGATE}?", r"lone surrogate.*errors='replace'"),
        (b"bytes", QUESTION, "document is a bytes; pass a str"),
        (17, QUESTION, "document is a int; pass a str"),
        (None, QUESTION, "document is a NoneType; pass a str"),
        ([TEXT, b"bytes"], QUESTION, "pieces must be str, but one is a bytes"),
    ],
)
def test_input_that_cannot_be_used(xl3m: XL3M, call: Call, text: Any, question: str, words: str):
    with pytest.raises(InputError, match=words):
        call(xl3m, text, question)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"top_k": -3}, "top_k is -3"),
        ({"token_budget": 0}, "token_budget is 0"),
        ({"token_budget": 5}, r"token_budget is 5 tokens, but the best segment has 4\d; raise token_budget"),
        ({"measure": "vibes"}, "Unknown measure 'vibes'; choose one of answer_entropy, blend, entropy, hybrid, quest"),
        ({"keep_first": -1}, "keep_first is -1"),
        ({"keep_last": -1}, "keep_last is -1"),
        ({"keep_last": 1.5}, "keep_last is 1.5"),
        ({"keep_first": "2"}, "keep_first is '2'"),
        ({"measure": 5}, "The measure 5 has no name, needs"),
        ({"top_k": 2, "token_budget": 100}, "top_k and token_budget.*alternatives"),
        ({"top_k": 2, "selection": TopK(2)}, "top_k and selection.*alternatives"),
        ({"token_budget": 100, "selection": TopK(2)}, "token_budget and selection.*alternatives"),
        ({"top_k": 1, "token_budget": 100, "selection": TopK(2)}, "top_k and token_budget and selection"),
    ],
)
def test_settings_that_cannot_be_used(xl3m: XL3M, how: dict[str, Any], words: str):
    for call in (xl3m.select, xl3m.answer, lambda *args, **how: list(xl3m.stream(*args, **how))):
        with pytest.raises(SettingError, match=words):
            call(TEXT, QUESTION, **how)


@pytest.mark.parametrize("how", [{"measure": "vibes"}, {"keep_first": -1}])
def test_a_setting_is_refused_even_where_the_text_fits(xl3m: XL3M, how: dict[str, Any]):
    """A misspelt measure that passes on short texts would surprise on the first long one."""
    with pytest.raises(SettingError, match=next(iter(how))):
        xl3m.answer("A short text.", QUESTION, **how)


@pytest.mark.parametrize("text", [TEXT, "A short text."])
def test_a_misspelt_argument_is_not_swallowed(xl3m: XL3M, text: str):
    with pytest.raises(TypeError, match="topk"):
        xl3m.answer(text, QUESTION, topk=3)


@pytest.mark.parametrize("limit", [0, -1])
def test_an_answer_of_no_tokens(xl3m: XL3M, limit: int):
    with pytest.raises(SettingError, match=f"max_new_tokens is {limit}; it must be at least 1"):
        xl3m.answer(TEXT, QUESTION, max_new_tokens=limit)


def test_an_answer_as_long_as_the_window(xl3m: XL3M):
    with pytest.raises(InputError, match=f"answer up to {WINDOW}, but the reader's window is {WINDOW}.*max_new_tokens"):
        xl3m.answer(TEXT, QUESTION, max_new_tokens=WINDOW)


def test_a_window_with_no_room_for_one_segment(xl3m: XL3M):
    limit = WINDOW - xl3m.scorer.overhead(QUESTION) - 20
    with pytest.raises(SettingError, match=r"no room for one segment.*segment_tokens or max_new_tokens"):
        xl3m.answer(TEXT, QUESTION, max_new_tokens=limit)


def test_an_engine_without_reader_selects_only():
    xl3m = XL3M(make_backend())
    assert xl3m.select(TEXT, QUESTION).segments
    with pytest.raises(SettingError, match="no reader"):
        xl3m.answer(TEXT, QUESTION)
    with pytest.raises(SettingError, match="no reader"):
        next(xl3m.stream(TEXT, QUESTION))


@dataclass(frozen=True)
class Odd(Entropy):
    """The paper's measure, but for what a test changes."""

    shape: tuple[int, ...] = ()
    scored: float | None = None

    def evidence(self, seen: Any) -> torch.Tensor:
        found = super().evidence(seen)
        return found.expand(len(found), *self.shape) if self.shape else found[:, 0]

    def score(self, evidence: torch.Tensor) -> torch.Tensor:
        scores = super().score(evidence)
        return scores[:1] if self.scored is None else torch.where(scores == scores.max(), self.scored, scores)


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (Odd(), "gave evidence of shape"),
        (Odd(shape=(2,)), r"gave evidence of shape \[\d+, 2\]"),
        (Odd(shape=(1,)), r"gave scores of shape \[1\]"),
        (Odd(shape=(1,), scored=float("nan")), "1 of them not finite"),
    ],
)
def test_a_measure_of_ones_own_that_gives_no_numbers_to_rank_by(xl3m: XL3M, measure: Odd, words: str):
    with pytest.raises(SettingError, match=f"The measure 'entropy'.*{words}"):
        xl3m.select(TEXT, QUESTION, measure=measure)


def test_a_mapping_is_no_text(xl3m: XL3M):
    text: Any = {"a": "b"}
    with pytest.raises(InputError, match="dict"):
        xl3m.select(text, QUESTION)
