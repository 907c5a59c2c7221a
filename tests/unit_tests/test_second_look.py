"""The second look at the best segments, and certainty."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from statistics import mean, pstdev

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import make_backend, text_of

from xl3m_integrations import XL3M
from xl3m_integrations.backends.base import Evidence
from xl3m_integrations.certainty import (
    DOUBT_OF_REGRET,
    DOUBT_SCALE,
    EVEN_DOUBT,
    Blend,
    Entropy,
    Measure,
    Observation,
    SecondLook,
    SentenceLook,
    regret,
)
from xl3m_integrations.documents import Document
from xl3m_integrations.scoring import score
from xl3m_integrations.segmentation import Segmenter, sentences
from xl3m_integrations.selection import TopK
from xl3m_integrations.tokens import TextTokenizer
from xl3m_integrations.types import Segment

QUESTION = "Which?"
rows = st.lists(st.lists(st.floats(-20, 0), min_size=3, max_size=3), min_size=1, max_size=8)


# ---------------------------------------------------------------------------------------------- the mathematics
@settings(deadline=None)
@given(rows=rows, cap=st.floats(0.1, 10))
def test_regret_is_how_far_each_token_is_from_its_best_capped(rows, cap):
    seen = regret(torch.tensor(rows, dtype=torch.float64), cap)
    best = [max(column) for column in zip(*rows, strict=True)]
    expected = [sum(min(cap, top - own) for top, own in zip(best, row, strict=True)) / 3 for row in rows]
    assert seen.tolist() == pytest.approx(expected)


def test_evidence_counts_the_answer_up_to_its_end():
    def logs(*row: float) -> list[float]:
        return [math.log(p) for p in row]

    answer = torch.tensor([[logs(0.5, 0.5), logs(0.9, 0.1), logs(0.2, 0.8)]])
    seen = Observation(next=answer[:, 0], answer=answer, answered=torch.tensor([[True, True, False]]))
    [entropy] = SecondLook().evidence(seen)[0].tolist()
    nine = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert entropy == pytest.approx((math.log(2) + nine) / 2, abs=1e-6)


def test_a_sentence_is_looked_at_for_what_follows_it_and_for_the_questions_tokens():
    seen = Observation(next=torch.tensor([[math.log(0.5)] * 2]), question=torch.tensor([[-1.0, -2.0]]))
    assert SentenceLook().evidence(seen)[0].tolist() == pytest.approx([math.log(2), -1.0, -2.0])


@settings(deadline=None)
@given(entropy=st.floats(0, 5), worse=st.floats(0, 5))
def test_certainty_falls_with_doubt_and_is_even_where_it_says(entropy, worse):
    look = SecondLook()
    first, second, third = (
        look.certainty(entropy, 0.0),
        look.certainty(entropy + 1, 0.0),
        look.certainty(entropy, worse),
    )
    assert first.nats == pytest.approx(entropy)
    assert second.nats == pytest.approx(entropy + 1)
    assert third.nats == pytest.approx(entropy + DOUBT_OF_REGRET * worse)
    assert first.probability == pytest.approx(1 / (1 + math.exp((entropy - EVEN_DOUBT) / DOUBT_SCALE)))
    assert first.probability >= second.probability
    assert first.found == (entropy <= EVEN_DOUBT)
    assert float(first) == first.probability


def test_doubt_of_a_sentence_is_what_others_explain_better_and_a_share_of_its_entropy():
    evidence = torch.tensor([[1.0, -1.0, -3.0], [9.0, -1.5, -1.0]], dtype=torch.float64)
    assert SentenceLook().doubt(evidence).tolist() == pytest.approx([(0 + 2) / 2 + 1 / 4, (0.5 + 0) / 2 + 8 / 4])


@pytest.mark.parametrize(("doubt", "weight"), [(0.0, 0.0), (0.5, 0.5), (3.0, 0.5), (0.5, 3.0)])
def test_the_sentences_doubt_counts_against_certainty(doubt: float, weight: float):
    """The first of two is the more certain one in both looks, by z = 1 each; its sentences are the more doubtful."""
    against = weight if doubt else 0.0
    evidence = torch.tensor([[0.1], [0.5]], dtype=torch.float64)
    doubts = torch.tensor([1.0 + doubt, 1.0], dtype=torch.float64)
    look = SecondLook(sentence_weight=weight)
    first, second = look.combined(torch.tensor([2.0, 1.0], dtype=torch.float64), doubts, evidence).tolist()
    mean = (2 - against) / (2 + weight)
    assert (first, second) == pytest.approx((mean, -mean))


def test_those_are_read_again_that_are_near_the_best():
    scores = [0.0] * 95 + [9.0, 10.0, 10.5, 11.0, 12.0]
    deviation = pstdev(scores)
    for least, within, most in itertools.product((1, 4), (0.0, 1.4 / deviation, 3.1 / deviation), (2, 64)):
        near = sum(score >= 12.0 - within * deviation - 1e-9 for score in scores)
        look = SecondLook(segments=least, within=within, most=most)
        assert look.reads(torch.tensor(scores, dtype=torch.float64)) == min(most, max(least, near))
    assert SecondLook(segments=3).reads(torch.tensor([])) == 3
    assert SecondLook(segments=3, most=64).reads(torch.ones(50)) == 50


# ---------------------------------------------------------------------------------------------- in a scoring pass
@dataclass
class TwoLooks:
    """A scorer whose looks see `first(segment)`, `second(segment)` and, of a sentence, `by_sentence(sentence)`."""

    tokenizer: TextTokenizer
    first: Callable[[Segment], Evidence]
    second: Callable[[Segment], Evidence]
    by_sentence: Callable[[Segment], Evidence] = lambda sentence: (1.0, -1.0)
    window: int = 4096
    seen: list[tuple[str, list[int], list[str]]] = field(default_factory=list)

    def evidence(
        self, segments: Iterable[Segment], question: str, measure: Measure
    ) -> Iterator[tuple[Segment, Evidence]]:
        look = {"second_look": self.second, "sentence_look": self.by_sentence}.get(measure.name, self.first)
        self.seen.append((measure.name, [], []))
        for segment in segments:
            self.seen[-1][1].append(segment.index)
            self.seen[-1][2].append(self.tokenizer.decode(segment.ids))
            yield segment, look(segment)

    def overhead(self, question: str) -> int:
        return len(question)


@pytest.fixture
def run(byte_level_tokenizer):
    def scored(first, second, by_sentence=lambda sentence: (1.0, -1.0), looks=4, answers=9, window=4096, lines=12):
        scorer = TwoLooks(byte_level_tokenizer, first, second, by_sentence, window)
        text = "".join(f"line number {i:03d}\n" for i in range(lines))
        measure = Blend(second=SecondLook(looks, 0.0, sentence_weight=0.5, answers=answers))
        return score([Document(text)], QUESTION, measure, Segmenter(byte_level_tokenizer, 16, 0), scorer), scorer

    return scored


def test_the_best_are_looked_at_again_and_come_before_all_others(run):
    """The first look likes later segments, whose sentences explain the question worse; the second has its own mind.

    The sum of their z decides.
    """
    minds = (2.0, 9.0, 1.0, 4.0)
    scored, scorer = run(
        lambda segment: (-float(segment.index), 0.0),
        lambda segment: (minds[segment.index % 4],),
        lambda sentence: (2.0, -1.0 - sentence.index, -1.0),
    )
    (kept,) = scored.keep(TopK(99))
    assert [name for name, *_ in scorer.seen] == ["blend", "sentence_look", "second_look"]
    last = len(scored) - 1
    assert scorer.seen[2][1] == [last, last - 1, last - 2, last - 3]
    assert scorer.seen[2][2] == [kept[index].text for index in scorer.seen[2][1]]
    by_rank = [segment.index for segment in sorted(kept, key=lambda segment: segment.rank)]
    again = range(last - 3, last + 1)
    certain = {index: -minds[index % 4] for index in again}
    place = {index: (index - mean(again)) / pstdev(again) for index in again}
    total = {
        index: place[index] + (certain[index] - mean(certain.values())) / pstdev(certain.values()) - 0.5 * place[index]
        for index in again
    }
    assert by_rank == [*sorted(again, key=lambda index: -total[index]), *range(last - 4, -1, -1)]
    assert by_rank[:4] != sorted(again, reverse=True)
    ordered = [scored.scores(0)[index] for index in by_rank]
    assert ordered == sorted(ordered, reverse=True)
    assert kept[last].evidence == {
        "entropy": -last, "gain": 0.0, "answer_entropy": minds[last % 4], "sentence_entropy": 2.0,
        "regret": pytest.approx(3.0 / 2),
    }  # fmt: skip
    assert set(kept[0].evidence) == {"entropy", "gain"}
    best = by_rank[0]
    assert scored.certainty.nats == pytest.approx(minds[best % 4] + DOUBT_OF_REGRET * (best - again[0]) / 2)


def test_each_sentence_is_read_by_itself_and_the_best_one_counts(run):
    """Every line but one leaves all doubt: the segment that holds it comes first."""
    scored, scorer = run(
        lambda segment: (1.0, 1.0),
        lambda segment: (1.0,),
        lambda sentence: (0.0, -1.0) if sentence.text == "line number 002" else (4.0, -5.0),
    )
    (kept,) = scored.keep(TopK(1))
    assert "number 002" in kept[0].text and kept[0].evidence["regret"] == 0.0
    sentences = scorer.seen[1][2]
    assert len(sentences) == len(set(sentences)) and {"line number 000", "line number 002"} <= set(sentences)


def test_the_answer_is_looked_at_where_the_sentences_leave_least_doubt(run):
    """Of four segments whose sentences were read the two best are read up to the answer's end, and come first."""
    scored, scorer = run(
        lambda segment: (float(segment.index), 0.0),
        lambda segment: (1.0,),
        lambda sentence: (0.0, -1.0 - sentence.index % 2),
        answers=2,
    )
    (kept,) = scored.keep(TopK(99))
    assert scorer.seen[2][1] == [0, 2]
    assert {segment.index for segment in kept if "regret" in segment.evidence} == {0, 1, 2, 3}
    assert {segment.index for segment in kept if "answer_entropy" in segment.evidence} == {0, 2}
    assert [segment.index for segment in sorted(kept, key=lambda segment: segment.rank)[:4]] == [0, 2, 1, 3]


@pytest.mark.parametrize(("most", "expected"), [(None, 20), (20, 20), (19, 10), (7, 7), (1, 1)])
def test_where_there_are_too_many_sentences_neighbours_are_one(most: int | None, expected: int):
    text = "  " + " \n ".join(f"{number}!" for number in range(20)) + "\n\n"
    spans = sentences(text, most)
    assert len(spans) == expected
    assert [word for start, end in spans for word in text[start:end].split()] == text.split()


def test_one_look_where_the_measure_asks_for_no_second(byte_level_tokenizer):
    scorer = TwoLooks(byte_level_tokenizer, lambda segment: (1.0,), lambda segment: (1.0,))
    scored = score([Document("one line\n")], QUESTION, Entropy(), Segmenter(byte_level_tokenizer, 16, 0), scorer)
    assert [name for name, *_ in scorer.seen] == ["entropy"]
    assert scored.certainty is None


def test_the_second_look_is_as_long_as_the_window_allows(run):
    looks: list[int] = []

    def remember(segment: Segment) -> Evidence:
        looks.append(1)
        return (1.0,)

    scored, _ = run(lambda segment: (float(segment.index), 0.0), remember, window=16 + len(QUESTION))
    assert looks == [] and scored.certainty is None  # not one answer token would fit
    scored, _ = run(lambda segment: (float(segment.index), 0.0), remember, window=17 + len(QUESTION))
    assert len(looks) == 4 and scored.certainty is not None


# ---------------------------------------------------------------------------------------------- through the engine
@pytest.fixture(scope="module")
def xl3m() -> XL3M:
    return XL3M(*[make_backend("llama")] * 2, segment_tokens=32)


def test_an_answer_says_how_certain_it_is_whether_selected_or_read_whole(xl3m: XL3M):
    for text in ("The code is 7.", text_of(3_000, seed=7)):
        answer = xl3m.answer(text, "What is the code?")
        assert answer.certainty is not None
        assert 0.0 <= answer.certainty.probability <= 1.0 and answer.certainty.nats >= 0.0
        assert answer.found == (answer.certainty.probability >= 0.5)
    assert xl3m.answer("The code is 7.", "What?", measure="entropy", top_k=1).found is None


def test_certainty_is_higher_where_the_bundled_model_finds_the_answer():
    rng = random.Random()
    xl3m = XL3M.default()
    filler = "The grey harbor was quiet. " * 60
    sure = []
    for _ in range(12):
        code = rng.randint(10_000, 99_999)
        text = f"{filler}The access code of the amber falcon is {code}. {filler}"
        asked = xl3m.answer(text, "What is the access code of the amber falcon?")
        missing = xl3m.answer(text, "What is the access code of the wooden lantern?")
        sure.append((asked.certainty.probability, missing.certainty.probability))
    assert sum(there > absent for there, absent in sure) >= 10
