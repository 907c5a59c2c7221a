"""The engine on a tiny model: which segments it keeps, by which measure, and what it does unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from models import MEASURES, QUESTION, TEXT, WINDOW, make_backend, plain_ids, shared_model, text_of

from xl3m_integrations import XL3M, AdaptiveGap, Entropy, TopK
from xl3m_integrations.certainty import Blend, Needs, Observation


# ---------------------------------------------------------------------------------------------- what is kept
def test_kept_segments_stand_in_document_order_and_are_its_text(xl3m: XL3M):
    selection = xl3m.select(TEXT, QUESTION, top_k=6)
    assert len(selection.segments) == 6
    assert [s.start for s in selection.segments] == sorted(s.start for s in selection.segments)
    assert [s.index for s in selection.segments] == sorted({s.index for s in selection.segments})
    for segment in selection.segments:
        assert TEXT[segment.start : segment.end] == segment.text


def test_ranks_follow_the_scores(xl3m: XL3M):
    selection = xl3m.select(TEXT, QUESTION, top_k=6)
    by_score = sorted(range(len(selection.scores)), key=lambda index: -selection.scores[index])
    assert [s.index for s in sorted(selection.segments, key=lambda s: s.rank)] == by_score[:6]
    assert sorted(s.rank for s in selection.segments) == [1, 2, 3, 4, 5, 6]
    best = min(selection.segments, key=lambda s: s.rank)
    assert best.score == max(selection.scores)
    assert all(s.score == selection.scores[s.index] for s in selection.segments)


def test_there_is_one_score_per_segment_and_the_document_is_measured(xl3m: XL3M):
    everything = xl3m.select(TEXT, QUESTION, top_k=10**6)
    assert len(everything.scores) == len(everything.segments) == everything.segments[-1].index + 1
    assert everything.key_context.spans == ((0, len(TEXT)),)
    assert everything.key_context.text == TEXT
    assert everything.characters == len(TEXT)
    assert everything.tokens == len(plain_ids(TEXT))
    assert (everything.question, everything.measure) == (QUESTION, "blend")
    assert all(segment.tokens == len(plain_ids(segment.text)) for segment in everything.segments[:1])


def test_spans_are_merged_and_spell_the_key_context(xl3m: XL3M):
    selection = xl3m.select(TEXT, QUESTION, top_k=12)
    covered = sorted({at for s in selection.segments for at in range(s.start, s.end)})
    in_spans = [at for start, end in selection.key_context.spans for at in range(start, end)]
    assert in_spans == covered
    spans = selection.key_context.spans
    assert len(spans) < 12  # some neighbours were among the twelve, or this test shows nothing
    assert all(left[1] < right[0] for left, right in pairwise(spans))
    assert selection.key_context.text == "\n\n".join(TEXT[start:end] for start, end in spans)


@pytest.mark.parametrize("measure", MEASURES)
def test_scores_are_made_from_the_evidence(xl3m: XL3M, measure: str):
    chosen = Blend(second=None) if measure == "blend" else measure
    selection = xl3m.select(TEXT, QUESTION, top_k=10**6, measure=chosen)
    rows = [tuple(s.evidence.values()) for s in selection.segments]
    if measure != "blend":
        assert selection.scores == pytest.approx([-row[0] for row in rows])
        return
    columns = list(zip(*rows, strict=True))
    means = [sum(column) / len(column) for column in columns]
    spreads = [
        (sum((x - mean) ** 2 for x in column) / len(column)) ** 0.5 for column, mean in zip(columns, means, strict=True)
    ]
    expected = [(gain - means[1]) / spreads[1] - (certain - means[0]) / spreads[0] for certain, gain in rows]
    assert selection.scores == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [1, 7, 1_000, 10**6])
def test_an_iterable_of_strings_is_the_string(xl3m: XL3M, size: int):
    pieces = (TEXT[at : at + size] for at in range(0, len(TEXT), size))
    streamed, whole = xl3m.select(pieces, QUESTION, top_k=5), xl3m.select(TEXT, QUESTION, top_k=5)
    assert replace(streamed, seconds=0.0) == replace(whole, seconds=0.0)


def test_a_file_is_its_text(xl3m: XL3M, tmp_path: Path):
    path = tmp_path / "report.txt"
    path.write_bytes(TEXT.encode())
    streamed, whole = xl3m.select(path, QUESTION, top_k=5), xl3m.select(TEXT, QUESTION, top_k=5)
    assert replace(streamed, seconds=0.0) == replace(whole, seconds=0.0)
    assert xl3m.answer(path, QUESTION).text == xl3m.answer(TEXT, QUESTION).text


def test_an_iterable_is_answered_like_the_string(xl3m: XL3M):
    assert xl3m.answer(iter([TEXT[:900], "", TEXT[900:]]), QUESTION).text == xl3m.answer(TEXT, QUESTION).text
    short = xl3m.answer(iter(["The code ", "is 7."]), QUESTION)
    assert short.key_context.text == "The code is 7."


def test_a_token_budget_keeps_the_best_that_fit(xl3m: XL3M):
    everything = xl3m.select(TEXT, QUESTION, top_k=10**6)
    best_first = sorted(everything.segments, key=lambda s: s.rank)
    budget = sum(s.tokens for s in best_first[:5]) + 3
    kept = xl3m.select(TEXT, QUESTION, token_budget=budget).segments
    assert {s.rank for s in kept} == {1, 2, 3, 4, 5}


def test_a_strategy_object_decides(xl3m: XL3M):
    assert len(xl3m.select(TEXT, QUESTION, selection=TopK(3)).segments) == 3
    gap = xl3m.select(TEXT, QUESTION, selection=AdaptiveGap(low=2, high=5))
    ordered = sorted(gap.scores, reverse=True)
    widest = max(range(2, 6), key=lambda k: ordered[k - 1] - ordered[k])
    assert len(gap.segments) == widest


def test_first_and_last_segments_are_kept_if_asked(xl3m: XL3M):
    selection = xl3m.select(TEXT, QUESTION, top_k=1, keep_first=2, keep_last=3)
    last = len(selection.scores) - 1
    best = max(range(last + 1), key=selection.scores.__getitem__)
    assert {s.index for s in selection.segments} == {0, 1, last - 2, last - 1, last, best}
    by_score = sorted(selection.scores, reverse=True)
    assert all(by_score[s.rank - 1] == s.score for s in selection.segments)


def test_more_first_segments_than_there_are(xl3m: XL3M):
    selection = xl3m.select(TEXT, QUESTION, top_k=1, keep_first=10**6)
    assert len(selection.segments) == len(selection.scores)
    assert xl3m.select(TEXT, QUESTION, top_k=1, keep_last=10**6).segments == selection.segments


def test_several_documents_compete(xl3m: XL3M):
    texts = [text_of(1_200, seed=seed) for seed in (1, 2, 3)]
    together = xl3m.select_documents(texts, QUESTION, top_k=7, measure="entropy")
    alone = [xl3m.select(text, QUESTION, top_k=10**6, measure="entropy") for text in texts]
    for one, many in zip(alone, together, strict=True):
        assert many.scores == pytest.approx(one.scores, abs=1e-4)
        assert (many.tokens, many.characters) == (one.tokens, one.characters)
    ranked = sorted(
        ((score, d, i) for d, one in enumerate(together) for i, score in enumerate(one.scores)), reverse=True
    )
    kept = {(s.rank, d, s.index) for d, one in enumerate(together) for s in one.segments}
    assert kept == {(rank, d, i) for rank, (_, d, i) in enumerate(ranked[:7], 1)}
    for text, one in zip(texts, together, strict=True):
        assert all(text[s.start : s.end] == s.text for s in one.segments)
        assert one.key_context.segments == one.segments


def test_a_document_of_which_nothing_is_kept(xl3m: XL3M):
    selections = xl3m.select_documents([text_of(900, seed=seed) for seed in range(3)], QUESTION, top_k=1)
    assert sorted(len(one.segments) for one in selections) == [0, 0, 1]
    for one in selections:
        assert bool(one.key_context.text) == bool(one.segments) == bool(one.key_context.spans)


# ---------------------------------------------------------------------------------------------- measures
@dataclass(frozen=True)
class Shortest:
    """A measure of one's own: how flat the model's distribution is at its top."""

    name: str = "top"
    needs: Needs = Needs()  # noqa: RUF009
    columns: tuple[str, ...] = ("top",)

    def asks(self, question: str) -> str:
        return f"{question} Say it."

    def evidence(self, seen: Observation) -> torch.Tensor:
        return seen.next.max(1, keepdim=True).values

    def score(self, evidence: torch.Tensor) -> torch.Tensor:
        return evidence[:, 0]


def test_a_measure_object_is_accepted(xl3m: XL3M):
    selection = xl3m.select(TEXT, QUESTION, top_k=2, measure=Shortest())
    assert selection.measure == "top"
    best = min(selection.segments, key=lambda s: s.rank)
    backend: Any = xl3m.scorer
    prompt = backend.prompt(f"{QUESTION} Say it.")
    row = [*prompt.before, *plain_ids(best.text), *prompt.after]
    with torch.no_grad():
        top = shared_model()(torch.tensor([row])).logits[0, -1].softmax(-1).max().log().item()
    assert best.evidence == {"top": pytest.approx(top, abs=1e-4)}


def test_the_engines_measure_is_the_default(xl3m: XL3M):
    backend = make_backend()
    for measure in ("entropy", Entropy()):
        assert XL3M(backend, measure=measure).select(TEXT, QUESTION).measure == "entropy"


# ---------------------------------------------------------------------------------------------- defaults
@pytest.mark.parametrize("window", [128, 256, 1_000, 4_096, 32_768])
def test_defaults_follow_the_window(window: int):
    xl3m = XL3M(make_backend(window=window))
    length = xl3m.segmenter.segment_tokens
    assert 4 * length < window
    assert length <= 512
    assert xl3m.segmenter.overlap_tokens == length // 4
    assert xl3m.max_new_tokens == min(256, max(16, window // 10))
    assert length >= window // 8 or length == 512  # not needlessly short either


def test_by_default_the_cut_is_where_the_scores_drop_most_and_what_is_kept_fits_the_window():
    xl3m = XL3M(make_backend())
    for seed in range(4):
        selection = xl3m.select(text_of(2_000, seed=seed), QUESTION)
        best = sorted(selection.scores, reverse=True)
        drops = [best[k - 1] - best[k] for k in range(1, 5)]
        assert len(selection.segments) == drops.index(max(drops)) + 1
        assert sum(s.tokens for s in selection.segments) + xl3m.scorer.overhead(QUESTION) < WINDOW


def test_the_shorter_window_of_scorer_and_reader_counts():
    assert XL3M(make_backend(window=2_048), make_backend(window=200)).window == 200
    assert XL3M(make_backend(window=200), make_backend(window=2_048)).window == 200
