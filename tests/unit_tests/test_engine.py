"""The engine on a tiny model: what it keeps, what it reads, what it refuses."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import WINDOW, make_backend, make_model, make_tokenizer, shared_model, shared_tokenizer, text_of

from xl3m_integrations import XL3M, AdaptiveGap, Entropy, InputError, Progress, SettingError, TopK, scoring
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.certainty import Blend, Needs, Observation

TEXT = text_of(3_000, seed=1)
QUESTION = "What is the special magic number for the harbour?"
LONG_QUESTION = "Why is it so? " * WINDOW
SURROGATE = "Good morning \ud83d, everyone. " * 3


@pytest.fixture(scope="module")
def xl3m() -> XL3M:
    backend = make_backend()
    return XL3M(backend, backend)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is reported after every segment."""
    monkeypatch.setattr(scoring, "_SECONDS_BETWEEN_REPORTS", 0)


def tokens_of(text: str) -> int:
    return len(shared_tokenizer()(text, add_special_tokens=False).input_ids)


def prompt_tokens(reader: Any, context: str) -> int:
    prompt = reader.prompt(QUESTION)
    ids = reader.hf_tokenizer(context, add_special_tokens=False).input_ids
    return len([*prompt.before, *ids, *prompt.after])


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
    assert everything.tokens == tokens_of(TEXT)
    assert (everything.question, everything.measure) == (QUESTION, "blend")
    assert all(segment.tokens == tokens_of(segment.text) for segment in everything.segments[:1])


def test_spans_are_merged_and_spell_the_key_context(xl3m: XL3M):
    selection = xl3m.select(TEXT, QUESTION, top_k=12)
    covered = sorted({at for s in selection.segments for at in range(s.start, s.end)})
    in_spans = [at for start, end in selection.key_context.spans for at in range(start, end)]
    assert in_spans == covered
    spans = selection.key_context.spans
    assert len(spans) < 12  # some neighbours were among the twelve, or this test shows nothing
    assert all(left[1] < right[0] for left, right in pairwise(spans))
    assert selection.key_context.text == "\n\n".join(TEXT[start:end] for start, end in spans)


@pytest.mark.parametrize("measure", ["entropy", "question_likelihood", "answer_entropy", "blend"])
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
    row = [*prompt.before, *shared_tokenizer()(best.text, add_special_tokens=False).input_ids, *prompt.after]
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


# ---------------------------------------------------------------------------------------------- what is refused
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


# ---------------------------------------------------------------------------------------------- what is read
def test_a_text_that_fits_is_read_whole(xl3m: XL3M):
    text = text_of(300, seed=4)
    answer = xl3m.answer(text, QUESTION)
    assert (answer.key_context.text, answer.key_context.spans) == (text, ((0, len(text)),))
    assert answer.selection is None
    assert answer.key_context.segments == answer.key_context.dropped == ()


def test_a_text_that_just_fits_is_read_whole_and_one_token_more_is_not(xl3m: XL3M):
    limit, used = 10, xl3m.scorer.overhead(QUESTION)
    encoding = shared_tokenizer()(TEXT, add_special_tokens=False, return_offsets_mapping=True)
    edge = WINDOW - limit - used
    fits, too_long = (TEXT[: encoding.offset_mapping[edge + more - 1][1]] for more in (0, 1))
    assert (tokens_of(fits), tokens_of(too_long)) == (edge, edge + 1)
    answer = xl3m.answer(fits, QUESTION, max_new_tokens=limit)
    assert answer.selection is None
    assert answer.prompt_tokens == WINDOW - limit
    assert xl3m.answer(too_long, QUESTION, max_new_tokens=limit).selection is not None


def test_a_text_that_fits_is_still_selected_from_if_asked(xl3m: XL3M):
    answer = xl3m.answer(text_of(600, seed=4), QUESTION, top_k=1)
    assert answer.selection is not None
    assert answer.key_context == answer.selection.key_context
    assert len(answer.key_context.segments) == 1
    assert len(answer.key_context.text) < 600


def test_segments_that_do_not_fit_are_dropped_with_a_warning(xl3m: XL3M):
    with pytest.warns(UserWarning, match=r"of 20 kept segments do not fit.*least certain first"):
        answer = xl3m.answer(TEXT, QUESTION, top_k=20)
    read, dropped = answer.key_context.segments, answer.key_context.dropped
    assert read
    assert dropped
    assert sorted([*read, *dropped], key=lambda s: s.index) == list(answer.selection.segments)
    assert max(s.rank for s in read) < min(s.rank for s in dropped)
    assert [s.index for s in dropped] == sorted(s.index for s in dropped)
    assert answer.prompt_tokens + xl3m.max_new_tokens <= WINDOW


def test_by_default_there_is_no_warning_and_the_prompt_fits(xl3m: XL3M):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = xl3m.answer(TEXT, QUESTION)
    assert answer.prompt_tokens + xl3m.max_new_tokens <= WINDOW
    assert answer.prompt_tokens == prompt_tokens(xl3m.reader, answer.key_context.text)


def test_the_answer_is_what_the_reader_says_of_the_key_context(xl3m: XL3M):
    answer = xl3m.answer(TEXT, QUESTION, top_k=2, max_new_tokens=8)
    said = "".join(xl3m.reader.stream(answer.key_context.text, QUESTION, max_new_tokens=8))
    assert answer.text == said.strip() != ""
    assert answer.question == QUESTION


def test_the_stream_is_the_answer(xl3m: XL3M):
    how = {"top_k": 2, "max_new_tokens": 12}
    whole = xl3m.answer(TEXT, QUESTION, **how).text
    assert "".join(xl3m.stream(TEXT, QUESTION, **how)).strip() == whole
    stop = whole[len(whole) // 2]
    stopped = xl3m.answer(TEXT, QUESTION, stop=[stop], **how).text
    assert stopped == whole[: whole.index(stop)].strip()
    assert "".join(xl3m.stream(TEXT, QUESTION, stop=[stop], **how)).strip() == stopped


def test_one_stop_string_is_not_taken_for_its_letters(xl3m: XL3M):
    whole = xl3m.answer(TEXT, QUESTION, top_k=2, max_new_tokens=12)
    stop = whole.text[-1] + "\u2603"  # never said, but its first letter is
    assert xl3m.answer(TEXT, QUESTION, top_k=2, max_new_tokens=12, stop=stop).text == whole.text


def test_an_empty_stop_string_is_refused(xl3m: XL3M):
    with pytest.raises(SettingError, match="stop"):
        xl3m.answer(TEXT, QUESTION, stop=["x", ""])


def test_reader_options_reach_the_reader(xl3m: XL3M):
    drawn = set()
    for seed in range(3):
        torch.manual_seed(seed)
        options = {"do_sample": True, "temperature": 5.0}
        drawn.add(xl3m.answer(TEXT, QUESTION, top_k=1, max_new_tokens=8, reader_options=options).text)
    assert len(drawn) == 3


def test_scorer_and_reader_may_be_different_models():
    scorer = make_backend()
    reader_tokenizer = make_tokenizer(vocabulary=400)
    reader = TransformersBackend(make_model("gpt2", vocabulary=400, n_positions=200), reader_tokenizer)
    assert reader.count(TEXT) > scorer.count(TEXT)  # so that counting with the wrong one would show
    xl3m = XL3M(scorer, reader)
    answer = xl3m.answer(TEXT, QUESTION)
    assert answer.selection.tokens == tokens_of(TEXT)
    assert answer.prompt_tokens == prompt_tokens(reader, answer.key_context.text)
    assert answer.prompt_tokens + xl3m.max_new_tokens <= 200
    alone = XL3M(scorer, segment_tokens=xl3m.segmenter.segment_tokens).select(TEXT, QUESTION)
    assert answer.selection.scores == pytest.approx(alone.scores, abs=1e-4)
    said = "".join(reader.stream(answer.key_context.text, QUESTION, max_new_tokens=xl3m.max_new_tokens))
    assert answer.text == said.strip()


# ---------------------------------------------------------------------------------------------- progress
@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("streamed", [False, True])
def test_progress_rises_to_the_end(xl3m: XL3M, streamed: bool):
    seen: list[Progress] = []
    selection = xl3m.select(iter([TEXT]) if streamed else TEXT, QUESTION, progress=seen.append)
    assert len(seen) > len(selection.scores)
    characters = [progress.characters for progress in seen]
    assert characters == sorted(characters)
    assert characters[0] > 0
    assert characters[-1] == seen[-1].total == len(TEXT)
    assert {progress.total for progress in seen[:-1]} <= {None if streamed else len(TEXT), len(TEXT)}
    assert seen[-1].segments == len(selection.scores)
    everything = xl3m.select(TEXT, QUESTION, top_k=10**6).segments
    assert seen[-1].tokens == sum(s.tokens + xl3m.scorer.overhead(QUESTION) for s in everything)


@pytest.mark.usefixtures("unhurried")
def test_progress_over_several_documents(xl3m: XL3M):
    texts, seen = [text_of(size, seed=size) for size in (400, 900, 200)], []
    xl3m.select_documents(texts, QUESTION, progress=seen.append)
    characters = [progress.characters for progress in seen]
    assert characters == sorted(characters)
    assert all(progress.total == 1_500 for progress in seen)
    assert characters[-1] == 1_500


# ---------------------------------------------------------------------------------------------- many callers, any text
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


def test_a_streamed_document_is_read_once_and_as_it_is_needed(xl3m: XL3M):
    """Memory must not grow with the document: it is not drained before the first segments are scored."""
    handed_out = 0

    def pieces() -> Iterator[str]:
        nonlocal handed_out
        for _ in range(400):
            handed_out += 1
            yield TEXT

    class Enough(Exception):
        pass

    def stop(progress: Progress) -> None:
        raise Enough

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_SECONDS_BETWEEN_REPORTS", 0)
        with pytest.raises(Enough):
            xl3m.select(pieces(), QUESTION, progress=stop)
    assert 0 < handed_out < 200
