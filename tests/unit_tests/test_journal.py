"""The journal: what it gives back is what was computed, for the same model and settings only, and no file is lost."""

from __future__ import annotations

import math
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from models import make_model, make_tokenizer, shared_model, shared_tokenizer, text_of

from xl3m_integrations import XL3M, JournalError, ScoringError, Segment, Selection, SettingError
from xl3m_integrations.backends import journal as journals
from xl3m_integrations.backends.base import Evidence, Reused
from xl3m_integrations.backends.journal import Journal, JournaledScorer
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.certainty import AnswerEntropy, Blend, Entropy, Measure, QuestionLikelihood

QUESTION = "What is the special magic number for the harbour?"
TEXT = text_of(6_000, seed=4)


@dataclass
class LoggingScorer:
    """Takes `ahead` segments at a time and says of each a number that tells its tokens and when it was asked."""

    ahead: int = 3
    fails_at: int | None = None
    fingerprint: str = "model a"
    window: int = 4096
    tokenizer: Any = None
    asked: list[tuple[int, ...]] = field(default_factory=list)

    def evidence(
        self, segments: Iterable[Segment], question: str, measure: Measure
    ) -> Iterator[tuple[Segment, Evidence]]:
        source = iter(segments)
        while group := list(islice(source, self.ahead)):
            for segment in group:
                self.asked.append(tuple(segment.ids))
            for segment in group:
                if segment.index == self.fails_at:
                    raise ScoringError(f"segment {segment.index}")
                yield segment, tuple(sum(segment.ids) / 7 + column for column in range(len(measure.columns)))

    def overhead(self, question: str) -> int:
        return 5


def segments_of(ids: Iterable[int]) -> list[Segment]:
    return [Segment(index, index, index + 1, "x", [number, number + 1]) for index, number in enumerate(ids)]


def scored(scorer: JournaledScorer, segments: list[Segment], measure: Measure | None = None, question: str = QUESTION):
    return list(scorer.evidence(segments, question, measure or Entropy()))


def reused(found: list[tuple[Segment, Evidence]]) -> int:
    return sum(isinstance(evidence, Reused) for _, evidence in found)


def engine(model: Any = None, tokenizer: Any = None, **options: Any) -> XL3M:
    loaded = {"model": model or shared_model(), "tokenizer": tokenizer or shared_tokenizer()}
    return XL3M.from_pretrained(**loaded, segment_tokens=24, overlap_tokens=4, **options)


# ---------------------------------------------------------------------------------------------- what comes back
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


@pytest.mark.parametrize("measure", ["entropy", "question_likelihood", "answer_entropy", "blend"])
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
    expected = work(quiet, None)
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


# ---------------------------------------------------------------------------------------------- what is never reused
CHANGES: dict[str, Callable[[], tuple[dict[str, Any], str, Any]]] = {
    "weights": lambda: ({"model": make_model(seed=1)}, QUESTION, "blend"),
    "architecture": lambda: ({"model": make_model("mistral")}, QUESTION, "blend"),
    "dtype": lambda: ({"model": make_model().bfloat16()}, QUESTION, "blend"),
    "tokenizer": lambda: ({"tokenizer": make_tokenizer(bos=False)}, QUESTION, "blend"),
    "template": lambda: ({"template": "{segment}\n{question}"}, QUESTION, "blend"),
    "question": lambda: ({}, QUESTION + " ", "blend"),
    "measure": lambda: ({}, QUESTION, "entropy"),
    "setting of the measure": lambda: ({}, QUESTION, Blend(gain_weight=0.5)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_model_or_setting_reuses_nothing(tmp_path: Path, change: str):
    path = tmp_path / "run.db"
    engine().select(TEXT, QUESTION, journal=path)
    changed, question, measure = CHANGES[change]()
    other = engine(**changed)
    selection = other.select(TEXT, question, measure=measure, journal=path)
    assert selection.reused == 0
    quiet = engine(**changed).select(TEXT, question, measure=measure)
    # A second look of the same settings is the same look, at segments that may have been read in other batches.
    assert selection.scores == pytest.approx(quiet.scores, abs=1e-5 if change == "setting of the measure" else 0)
    assert other.select(TEXT, question, measure=measure, journal=path).reused == len(selection.scores)


@pytest.mark.parametrize(
    ("one", "other"),
    [(AnswerEntropy(2), AnswerEntropy(3)), (QuestionLikelihood(), QuestionLikelihood("Really.")), (Entropy(), Blend())],
    ids=repr,
)
def test_settings_of_every_measure_count(tmp_path: Path, one: Measure, other: Measure):
    scored(JournaledScorer(LoggingScorer(), tmp_path / "run.db"), segments_of(range(3)), one)
    again = JournaledScorer(LoggingScorer(), tmp_path / "run.db")
    assert reused(scored(again, segments_of(range(3)), other)) == 0
    assert reused(scored(again, segments_of(range(3)), one)) == 3


class TestFingerprint:
    @staticmethod
    def of(model: Any, **options: Any) -> str:
        return TransformersBackend(model, shared_tokenizer(), **options).fingerprint

    def test_is_the_same_for_the_same_model_loaded_again(self, tmp_path: Path):
        shared_model().save_pretrained(tmp_path)
        shared_tokenizer().save_pretrained(tmp_path)
        loaded = [XL3M.from_pretrained(tmp_path, dtype="float32", device="cpu").scorer for _ in range(2)]
        assert len({one.fingerprint for one in loaded}) == 1

    def test_batches_do_not_count(self):
        assert self.of(shared_model(), batch_tokens=100) == self.of(shared_model(), batch_tokens=900)

    @pytest.mark.parametrize("architecture", ["llama", "gpt2"])
    def test_any_single_weight_counts(self, architecture: str):
        model = make_model(architecture)
        seen = {self.of(model)}
        with torch.no_grad():
            for number, parameter in enumerate(model.parameters(), 2):
                flat = parameter.view(-1)
                at = number * 37 % len(flat)
                flat[at] = torch.nextafter(flat[at], torch.tensor(9.0))
                seen.add(self.of(model))
                assert len(seen) == number

    def test_moved_rows_count(self):
        model = make_model()
        before = self.of(model)
        with torch.no_grad():
            table = model.get_input_embeddings().weight
            table.copy_(table.flip(0))
        assert self.of(model) != before


def test_a_scorer_without_a_fingerprint_is_refused(tmp_path: Path):
    class Nameless:
        window, tokenizer = 4096, None

    with pytest.raises(SettingError, match="no fingerprint"):
        JournaledScorer(Nameless(), tmp_path / "run.db")
    assert not list(tmp_path.iterdir())


def test_a_measure_whose_settings_are_not_known_is_refused(tmp_path: Path):
    class Homemade:
        name, columns = "homemade", ("a",)

    with pytest.raises(SettingError, match="frozen dataclass"):
        scored(JournaledScorer(LoggingScorer(), tmp_path / "run.db"), segments_of([1]), Homemade())


# ---------------------------------------------------------------------------------------------- files
def foreign_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE evidence (a)")
    connection.close()


FOREIGN: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: path.write_text("precious notes"),
    "another program's database": foreign_database,
    "a database's beginning": lambda path: path.write_bytes(b"SQLite format 3\x00"),
    "zeros": lambda path: path.write_bytes(bytes(10_000)),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused_and_left_as_it_is(tmp_path: Path, kind: str):
    path = tmp_path / "precious"
    FOREIGN[kind](path)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="no journal of this program"):
        engine().select(TEXT, QUESTION, journal=path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]


def test_a_journal_of_another_version_is_refused(tmp_path: Path):
    path = tmp_path / "run.db"
    Journal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError, match="version 99"):
        JournaledScorer(LoggingScorer(), path)


@pytest.mark.parametrize("place", ["missing/run.db", "."])
def test_a_place_that_cannot_hold_a_journal_is_named(tmp_path: Path, place: str):
    with pytest.raises(JournalError, match="cannot be"):
        JournaledScorer(LoggingScorer(), tmp_path / place)


def written(path: Path) -> bytes:
    scored(JournaledScorer(LoggingScorer(), path), segments_of(range(400)))
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@example(at=0.5625, length=22, fill=11)  # makes text of what was bytes
@given(at=st.floats(0, 1, exclude_max=True), length=st.integers(1, 64), fill=st.integers(0, 255))
def test_damage_anywhere_is_refused_or_harmless_but_never_a_wrong_number(
    tmp_path_factory: pytest.TempPathFactory, at: float, length: int, fill: int
):
    path = tmp_path_factory.mktemp("journal") / "run.db"
    data = bytearray(written(path))
    start = int(at * len(data))
    data[start : start + length] = bytes([fill]) * len(data[start : start + length])
    path.write_bytes(data)
    try:
        found = scored(JournaledScorer(LoggingScorer(), path), segments_of(range(400)))
    except JournalError as error:
        assert str(path) in str(error)
    else:
        assert [evidence for _, evidence in found] == [((2 * number + 1) / 7,) for number in range(400)]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_journal_cut_short_is_refused_and_left_as_it_is(tmp_path: Path, share: float):
    path = tmp_path / "run.db"
    data = written(path)
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(JournalError, match="damaged"):
        scored(JournaledScorer(LoggingScorer(), path), segments_of(range(400)))
    assert path.read_bytes() == data[: int(share * len(data))]


def test_a_locked_journal_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.db"
    monkeypatch.setattr("xl3m_integrations.backends.journal_file.BUSY_SECONDS", 0.0)
    Journal(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="locked"):
        scored(JournaledScorer(LoggingScorer(), path), segments_of([1]))
    other.close()
