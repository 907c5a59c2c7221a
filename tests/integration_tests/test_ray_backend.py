"""`backend="ray"` on a local cluster: the numbers of one process, whatever happens to the replicas."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from xl3m_integrations import XL3M, InputError, ModelLoadError, ScoringError, Segment, SettingError
from xl3m_integrations.bundled import MODEL_FOLDER, corpus

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.enable_socket, pytest.mark.filterwarnings("ignore::ResourceWarning")]

RNG = random.Random(3)
FACT = corpus.register_fact(RNG)
TEXT = "".join(corpus.stream_document(RNG, [(0.4, FACT)], 40_000))
SETTINGS: dict[str, Any] = {"dtype": "float32", "device": "cpu", "batch_tokens": 200}  # so that there are many groups


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def serial() -> XL3M:
    return XL3M.default(**SETTINGS)


@pytest.fixture(scope="module")
def replicated() -> Iterator[XL3M]:
    """An engine on two replicas."""
    made = XL3M.from_pretrained(MODEL_FOLDER, backend="ray", num_replicas=2, **SETTINGS)
    yield made
    made.scorer.close()


def alone(xl3m: XL3M, measure: str = "blend") -> Any:
    return xl3m.select(TEXT, FACT.question, measure=measure)


@pytest.mark.parametrize("measure", ["blend", "entropy", "question_likelihood", "answer_entropy"])
def test_two_replicas_give_the_very_numbers_of_one_process(serial: XL3M, replicated: XL3M, measure: str):
    ours, theirs = alone(serial, measure), alone(replicated, measure)
    assert theirs.scores == ours.scores
    assert theirs.segments == ours.segments


def test_one_replica_gives_them_too(serial: XL3M):
    one = XL3M.from_pretrained(MODEL_FOLDER, backend="ray", num_cpus_per_replica=0.5, **SETTINGS)
    assert alone(one).scores == alone(serial).scores
    one.scorer.close()


def test_replicas_that_leave_the_model_early_give_them_too(serial: XL3M):
    here = XL3M.default(**SETTINGS, exit_layer=2)
    there = XL3M.from_pretrained(MODEL_FOLDER, backend="ray", **SETTINGS, exit_layer=2)
    assert alone(there).scores == alone(here).scores != alone(serial).scores
    assert there.select(TEXT, FACT.question).settings["exit_layer"] == 2
    assert there.scorer.fingerprint == here.scorer.fingerprint != serial.scorer.fingerprint
    there.scorer.close()


def test_answers_and_streams_are_those_of_one_process(serial: XL3M, replicated: XL3M):
    assert replicated.answer(TEXT, FACT.question).text == serial.answer(TEXT, FACT.question).text
    assert "".join(replicated.stream(TEXT, FACT.question)) == "".join(serial.stream(TEXT, FACT.question))
    prompts = ["One is", "Two is"]
    assert replicated.reader.complete_many(prompts, max_new_tokens=4) == serial.reader.complete_many(
        prompts, max_new_tokens=4
    )


def test_a_stream_is_cut_no_further_than_the_replicas_need(replicated: XL3M):
    """Of a document without end only what is under way is read."""
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield TEXT

    segments = replicated.segmenter.segments(endless())
    running = replicated.scorer.evidence(segments, FACT.question, replicated.measure)
    assert [segment.index for segment, _ in islice(running, 60)] == list(range(60))
    running.close()
    assert read < 60


def test_a_replica_killed_again_and_again_changes_nothing(serial: XL3M, replicated: XL3M):
    expected = alone(serial)
    reports = 0
    victims: set[int] = set()

    def kill(progress: Any) -> None:
        nonlocal reports
        reports += 1
        if reports in (1, 40, 90):
            pid = ray.get(replicated.scorer._replicas[reports % 2].about.remote())["pid"]
            victims.add(pid)
            os.kill(pid, signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xl3m_integrations.scoring._SECONDS_BETWEEN_REPORTS", 0.0)
        found = replicated.select(TEXT, FACT.question, progress=kill)
    assert len(victims) == 3
    assert found.scores == expected.scores
    assert found.segments == expected.segments


def test_a_segment_at_which_the_model_fails_is_named(replicated: XL3M):
    ids = replicated.scorer.tokenizer.ids(TEXT)[:640]
    segments = [Segment(index, 8 * index, 8 * index + 8, "", ids[8 * index : 8 * index + 8]) for index in range(6)]
    poisoned = Segment(6, 48, 56, "", [10**6] * 8)  # no such token
    with pytest.raises(ScoringError, match=r"segment 6 \(characters 48 to 56"):
        list(replicated.scorer.evidence([*segments, poisoned], FACT.question, replicated.measure))
    assert len(list(replicated.scorer.evidence(segments, FACT.question, replicated.measure))) == 6


def test_an_error_of_the_input_is_the_same_error(replicated: XL3M):
    with pytest.raises(InputError, match="Shorten the question"):
        replicated.select(TEXT, "Why? " * 700, top_k=1)


@pytest.mark.parametrize(("asked", "named"), [({"num_gpus_per_replica": 1}, "GPU"), ({"num_replicas": 99}, "99 CPU")])
def test_a_cluster_that_cannot_give_the_resources_says_so(asked: dict[str, Any], named: str):
    with pytest.raises(SettingError, match=f"cannot give.*{named}"):
        XL3M.from_pretrained(MODEL_FOLDER, backend="ray", **asked)


def test_replicas_that_find_no_place_say_so(replicated: XL3M):
    with pytest.raises(ModelLoadError, match="did not start within 1 seconds"):
        XL3M.from_pretrained(MODEL_FOLDER, backend="ray", num_replicas=3, start_timeout=1.0)


def test_a_model_that_is_not_there_is_the_loaders_error(tmp_path: Path):
    with pytest.raises(ModelLoadError, match=r"config\.json"):
        XL3M.from_pretrained(tmp_path, backend="ray", tokenizer=MODEL_FOLDER, num_cpus_per_replica=0.1)
