"""What the engine relies on, of every backend: one suite for scorers, one for generators."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from completions_server import CompletionsServer

from xl3m_integrations import XL3M, InputError, Segment
from xl3m_integrations.backends.base import Fingerprinted
from xl3m_integrations.backends.journal import JournaledScorer
from xl3m_integrations.bundled import MODEL_FOLDER, corpus

pytestmark = [pytest.mark.slow, pytest.mark.enable_socket, pytest.mark.filterwarnings("ignore::ResourceWarning")]

RNG = random.Random(3)
FACT = corpus.register_fact(RNG)
TEXT = "".join(corpus.stream_document(RNG, [(0.4, FACT)], 9_000))
SETTINGS: dict[str, Any] = {"dtype": "float32", "device": "cpu", "batch_tokens": 160}


def make_transformers(_: Path) -> Iterator[XL3M]:
    yield XL3M.default(**SETTINGS)


def make_journaled(folder: Path) -> Iterator[XL3M]:
    made = XL3M.default(**SETTINGS)
    made.scorer = JournaledScorer(made.scorer, folder / "run.db")
    yield made


def make_openai(_: Path) -> Iterator[XL3M]:
    local = XL3M.default(dtype="float32", device="cpu")
    with CompletionsServer(local.scorer) as server:
        yield XL3M.from_pretrained("m", backend="openai", base_url=server.url, tokenizer=MODEL_FOLDER, concurrency=4)


def make_ray(_: Path) -> Iterator[XL3M]:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield XL3M.from_pretrained(MODEL_FOLDER, backend="ray", **SETTINGS)
    ray.shutdown()


MAKERS: dict[str, Callable[[Path], Iterator[XL3M]]] = {
    "transformers": make_transformers,
    "journal": make_journaled,
    "openai": make_openai,
    "ray": make_ray,
}


@pytest.fixture(scope="module", params=MAKERS)
def xl3m(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[XL3M]:
    yield from MAKERS[request.param](tmp_path_factory.mktemp("contract"))


@pytest.fixture(scope="module")
def segments(xl3m: XL3M) -> list[Segment]:
    return list(xl3m.segmenter.segments([TEXT]))


class TestScorer:
    def test_evidence_comes_in_order_one_row_of_the_measures_columns_each(self, xl3m: XL3M, segments: list[Segment]):
        measure = xl3m.measure
        found = list(xl3m.scorer.evidence(iter(segments), FACT.question, measure))
        assert [segment for segment, _ in found] == segments
        assert {len(evidence) for _, evidence in found} == {len(measure.columns)} or measure.name == "entropy"
        assert len({evidence for _, evidence in found}) > len(segments) // 2

    def test_nothing_gives_nothing(self, xl3m: XL3M):
        assert list(xl3m.scorer.evidence([], FACT.question, xl3m.measure)) == []

    def test_the_same_segments_give_the_same_numbers(self, xl3m: XL3M, segments: list[Segment]):
        first, again = (list(xl3m.scorer.evidence(segments, FACT.question, xl3m.measure)) for _ in range(2))
        assert first == again

    def test_a_document_without_end_streams(self, xl3m: XL3M, segments: list[Segment]):
        def endless() -> Iterator[Segment]:
            while True:
                yield from segments

        running = xl3m.scorer.evidence(endless(), FACT.question, xl3m.measure)
        assert [segment for segment, _ in islice(running, 3)] == segments[:3]
        running.close()

    def test_what_does_not_fit_is_refused(self, xl3m: XL3M):
        long = Segment(0, 0, 1, "x", xl3m.scorer.tokenizer.ids("word " * xl3m.scorer.window))
        with pytest.raises(InputError, match="horten the question"):
            list(xl3m.scorer.evidence([long], FACT.question, xl3m.measure))

    def test_overhead_is_what_a_sub_context_takes_beside_the_segment(self, xl3m: XL3M):
        short, long = (xl3m.scorer.overhead(question) for question in ("Who?", "Who on earth would keep it?"))
        assert 0 < short < long < xl3m.scorer.window

    def test_it_has_a_fingerprint(self, xl3m: XL3M):
        assert isinstance(xl3m.scorer, Fingerprinted)
        assert xl3m.scorer.fingerprint == xl3m.scorer.fingerprint != ""

    def test_the_right_passage_is_kept(self, xl3m: XL3M):
        selection = xl3m.select(TEXT, FACT.question, top_k=2)
        assert any(FACT.value in segment.text for segment in selection.segments)
        assert all(TEXT[s.start : s.end] == s.text for s in selection.segments)


class TestGenerator:
    def test_pieces_are_the_answer(self, xl3m: XL3M):
        context = TEXT[:600]
        pieces = list(xl3m.reader.stream(context, FACT.question, max_new_tokens=12))
        assert "".join(pieces) == "".join(xl3m.reader.stream(context, FACT.question, max_new_tokens=12))
        assert xl3m.reader.count("".join(pieces)) <= 12

    def test_a_stop_string_ends_the_answer_and_is_left_out(self, xl3m: XL3M):
        whole = "".join(xl3m.reader.complete("The harbour", max_new_tokens=16))
        stop = whole[4:6]
        assert (
            "".join(xl3m.reader.complete("The harbour", max_new_tokens=16, stop=(stop,))) == whole[: whole.find(stop)]
        )

    def test_many_are_as_one_by_one(self, xl3m: XL3M):
        prompts = ["The harbour", "In the morning the", "Who"]
        alone = ["".join(xl3m.reader.complete(prompt, max_new_tokens=6)) for prompt in prompts]
        assert xl3m.reader.complete_many(prompts, max_new_tokens=6) == alone
        assert xl3m.reader.complete_many([], max_new_tokens=6) == []

    def test_a_prompt_beyond_the_window_is_refused(self, xl3m: XL3M):
        with pytest.raises(InputError, match="max_new_tokens is 9"):
            list(xl3m.reader.complete("word " * xl3m.reader.window, max_new_tokens=9))

    def test_counts_add_up(self, xl3m: XL3M):
        reader = xl3m.reader
        assert reader.count("") == 0
        assert reader.count("word word") < reader.count("word word word word")
        assert reader.count_prompt(reader.render([("user", "Who?")])) > 0
