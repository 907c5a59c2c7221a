"""The journal gives back what was computed, and a run that was stopped ends as one that was not."""

from __future__ import annotations

import math
import random
import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journaling import TEXT, LoggingScorer, engine, reused, scored, segments_of
from models import MEASURES, QUESTION, text_of

from xl3m_integrations import XL3M, ScoringError, Segment, Selection
from xl3m_integrations.backends import journal as journals
from xl3m_integrations.backends.journal import JournaledScorer
from xl3m_integrations.certainty import Entropy


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.integers(0, 12)),
    now=st.lists(st.integers(0, 12), max_size=40),
    ahead=st.integers(1, 9),
    skip=st.integers(1, 4),
)
def test_any_mixture_of_known_and_unknown_comes_in_order_and_unknown_ones_alone_are_scored(
    tmp_path_factory: pytest.TempPathFactory, before: list[int], now: list[int], ahead: int, skip: int
):
    path = tmp_path_factory.mktemp("journal") / "run.db"
    scored(JournaledScorer(LoggingScorer(), path), segments_of(before))
    inner = LoggingScorer(ahead)
    again = JournaledScorer(inner, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "LONGEST_SKIP", skip)
        found = scored(again, segments_of(now))
    assert [segment for segment, _ in found] == segments_of(now)
    assert [evidence for _, evidence in found] == [((2 * number + 1) / 7,) for number in now]
    assert {ids[0] for ids in inner.asked} == set(now) - set(before)
    assert reused(found) == len(now) - len(inner.asked)


def test_a_long_known_stretch_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A finished document streams through: each known segment is handed on before the next is cut."""
    monkeypatch.setattr(journals, "LONGEST_SKIP", 5)
    path = tmp_path / "run.db"
    numbers = list(range(100))
    scored(JournaledScorer(LoggingScorer(), path), segments_of(numbers))
    cut: list[int] = []

    def source() -> Iterator[Segment]:
        for segment in segments_of([1_000, *numbers, 2_000]):
            cut.append(segment.index)
            yield segment

    for segment, _ in JournaledScorer(LoggingScorer(ahead=50), path).evidence(source(), QUESTION, Entropy()):
        assert len(cut) - segment.index <= 7


@pytest.mark.parametrize("measure", MEASURES)
def test_a_selection_is_the_same_with_an_empty_and_with_a_full_journal(tmp_path: Path, measure: str):
    how = {"top_k": 4, "measure": measure}
    plain = engine().select(TEXT, QUESTION, **how)
    first = engine().select(TEXT, QUESTION, journal=tmp_path / "run.db", **how)
    again = engine().select(TEXT, QUESTION, journal=tmp_path / "run.db", **how)
    assert first.scores == plain.scores == again.scores
    assert first.segments == plain.segments == again.segments
    assert (first.reused, again.reused) == (0, len(plain.scores))


SHORT = TEXT[:2_000]
WORK: dict[str, Callable[[XL3M, Path | None], list[Selection]]] = {
    "two looks": lambda made, path: [made.select(SHORT, QUESTION, journal=path)],
    "two hops": lambda made, path: [made.select(SHORT, QUESTION, hops=2, journal=path)],
    "several questions": lambda made, path: made.select_many(SHORT, [QUESTION, "Who?", "And why?"], journal=path),
    "a prefilter": lambda made, path: made.select_many(
        SHORT, [QUESTION, "Who?"], prefilter=lambda _, segments: list(segments)[::3], journal=path
    ),
}


@pytest.fixture(params=WORK)
def work(request: pytest.FixtureRequest) -> Callable[[XL3M, Path | None], list[Selection]]:
    return WORK[request.param]


def stopping(made: XL3M, after: int) -> list[int]:
    """Let the model be interrupted at some forward pass; how many rows each of its passes had."""
    passes: list[int] = []
    forward = made.scorer.logits

    def logits(ids: torch.Tensor, *rest: Any, **cache: Any) -> Any:
        if len(passes) == after:
            raise KeyboardInterrupt
        passes.append(len(ids))
        return forward(ids, *rest, **cache)

    made.scorer.logits = logits
    return passes


def told(selections: list[Selection]) -> list[Any]:
    return [(s.scores, s.segments, s.certainty, s.lead, s.covered_mass) for s in selections]


def test_a_full_journal_needs_no_model(tmp_path: Path, work: Callable[[XL3M, Path | None], list[Selection]]):
    path = tmp_path / "run.db"
    expected = work(engine(), path)
    idle = engine()
    passes = stopping(idle, after=0)
    again = work(idle, path)
    assert told(again) == told(expected)
    assert passes == []
    read = [sum(score > -math.inf for score in selection.scores) for selection in again]
    assert [selection.reused for selection in again] == read
    assert not any(selection.reused for selection in expected)


def test_a_run_stopped_at_any_point_ends_as_one_that_was_not(
    tmp_path: Path, work: Callable[[XL3M, Path | None], list[Selection]]
):
    quiet = engine(batch_tokens=100)
    passes = stopping(quiet, after=-1)
    expected = work(quiet, tmp_path / "quiet.db")
    for at in sorted(random.Random(7).sample(range(len(passes)), 6)):
        path = tmp_path / f"{at}.db"
        stopped = engine(batch_tokens=100)
        stopping(stopped, after=at)
        with pytest.raises(KeyboardInterrupt):
            work(stopped, path)
        assert told(work(engine(batch_tokens=100), path)) == told(expected), f"stopped at pass {at} of {len(passes)}"


def test_questions_are_kept_each_by_itself(tmp_path: Path):
    """What a pass over several questions left serves one of them alone, and the other way round."""
    together = engine().select_many(TEXT, [QUESTION, "Who?"], journal=tmp_path / "together.db")
    alone = engine().select(TEXT, "Who?", journal=tmp_path / "together.db")
    assert told([alone]) == told(together[1:])
    assert alone.reused == len(alone.scores)
    first = engine().select(TEXT, "Who?", journal=tmp_path / "alone.db")
    joined = engine().select_many(TEXT, [QUESTION, "Who?"], journal=tmp_path / "alone.db")
    assert told(joined[1:]) == told([first])
    assert [one.reused for one in joined] == [0, len(first.scores)]


def test_a_question_that_is_asked_twice_has_the_same_numbers_twice(tmp_path: Path):
    one, _, other = engine().select_many(TEXT, [QUESTION, "Who?", QUESTION], journal=tmp_path / "run.db")
    assert told([one]) == told([other])


def test_reused_segments_are_counted_by_document(tmp_path: Path):
    made = engine()
    made.select(TEXT, QUESTION, journal=tmp_path / "run.db")
    known, new = made.select_documents([TEXT, TEXT[::-1]], QUESTION, journal=tmp_path / "run.db")
    assert (known.reused, new.reused) == (len(known.scores), 0)


def test_a_text_that_has_grown_is_scored_where_it_is_new(tmp_path: Path):
    made = engine()
    made.select(TEXT, QUESTION, journal=tmp_path / "run.db")
    grown = made.select(TEXT + text_of(1_000, seed=9), QUESTION, journal=tmp_path / "run.db")
    assert 0 < len(grown.scores) - grown.reused < len(grown.scores) // 3


@pytest.mark.parametrize("stop", ["error", "closed"])
def test_what_was_computed_before_a_stop_is_kept(tmp_path: Path, stop: str):
    segments = segments_of(range(10))
    inner = LoggingScorer(ahead=2, fails_at=7 if stop == "error" else None)
    running = JournaledScorer(inner, tmp_path / "run.db").evidence(segments, QUESTION, Entropy())
    assert len(list(islice(running, 7))) == 7
    if stop == "error":
        with pytest.raises(ScoringError, match="segment 7"):
            next(running)
    else:
        running.close()
    rest = LoggingScorer()
    assert len(scored(JournaledScorer(rest, tmp_path / "run.db"), segments)) == 10
    assert [ids[0] for ids in rest.asked] == [7, 8, 9]


def test_rows_are_committed_between_groups(tmp_path: Path):
    """So that a process that is killed has lost one group at most, and goes on where a group begins."""
    path = tmp_path / "run.db"
    running = JournaledScorer(LoggingScorer(ahead=4), path).evidence(segments_of(range(20)), QUESTION, Entropy())
    kept = []
    for _ in running:
        with sqlite3.connect(path) as watching:
            kept.append(watching.execute("SELECT count(*) FROM evidence").fetchone()[0])
        watching.close()
    assert kept == [4 * (number // 4) for number in range(20)]
