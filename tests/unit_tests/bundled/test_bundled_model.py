"""The bundled model answers, stays uncertain where there is no answer, and is as small as promised."""

from __future__ import annotations

import random

import pytest

from xl3m_integrations import XL3M
from xl3m_integrations.bundled import MODEL_FOLDER, card, corpus
from xl3m_integrations.demo import same_answer


@pytest.fixture(scope="module")
def xl3m() -> XL3M:
    return XL3M.default()


def test_model_tokenizer_and_card_take_8_mb_at_most() -> None:
    assert sum(path.stat().st_size for path in MODEL_FOLDER.iterdir()) <= 8_000_000
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        p.name for p in MODEL_FOLDER.iterdir()
    }


def test_it_answers_in_its_window(xl3m: XL3M) -> None:
    results = list(card.in_window(xl3m, tuple(corpus.FAMILIES), 90, random.Random().randrange(10**6), None))
    right = sum(same_answer(answer, fact.value) for fact, answer, _ in results)
    assert right >= 76, card.by_family(results)  # a share of 0.93 falls below this once in 1,000 runs


def test_it_is_less_certain_where_the_answer_is_absent(xl3m: XL3M) -> None:
    rng = random.Random(11)
    lower = 0
    for _ in range(20):
        fact = corpus.register_fact(rng)
        others = [other for other in corpus.unambiguous(rng, [fact], 4) if other is not fact]
        present, absent = ("\n".join(one.statement for one in facts) for facts in ([fact, *others], others))
        entropies = [
            xl3m.select(text, fact.question, measure="entropy").segments[0].evidence["entropy"]
            for text in (present, absent)
        ]
        lower += entropies[0] < entropies[1]
    assert lower >= 18


def test_answers_end(xl3m: XL3M) -> None:
    rng = random.Random(12)
    facts = [corpus.register_fact(rng) for _ in range(10)]
    ended = [len(xl3m.answer(fact.statement, fact.question).text) <= 2 * len(fact.value) for fact in facts]
    assert sum(ended) >= 9


@pytest.mark.slow
def test_through_xl3m_it_answers_from_texts_far_beyond_its_window(xl3m: XL3M) -> None:
    results = list(card.through_xl3m(xl3m, corpus.DEMO_FAMILIES, 8_000, 21, 13))
    assert sum(same_answer(answer, fact.value) for fact, answer, _ in results) >= 17
