"""`backend="ray"` on a local cluster: the numbers of one process, whatever happens to the replicas."""

from __future__ import annotations

import json
import os
import random
import re
import signal
from collections.abc import Iterator
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from xl3m_integrations import XL3M, InputError, ModelLoadError, ScoringError, Segment, SettingError, fit_lens
from xl3m_integrations.bundled import MODEL_FOLDER, corpus
from xl3m_integrations.cli import app

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.enable_socket,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.xdist_group("ray"),  # one cluster at a time
]

RNG = random.Random(3)
FACT = corpus.register_fact(RNG)
TEXT = "".join(corpus.stream_document(RNG, [(0.4, FACT)], 40_000))
SETTINGS: dict[str, Any] = {"dtype": "float32", "device": "cpu", "batch_tokens": 200}  # so that there are many groups


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module", autouse=True)
def threads_of_a_replica() -> Iterator[None]:
    """Sums are split among threads, so the last bits depend on how many there are: a replica with one CPU has one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.mark.parametrize("own_lens", [False, True])
def test_replicas_that_leave_the_model_early_give_them_too(serial: XL3M, tmp_path: Path, own_lens: bool):
    settings = {**SETTINGS, "exit_layer": 2}
    if own_lens:
        passages = (TEXT[start : start + 300] for start in range(0, 9_000, 300))
        settings["lens"] = tmp_path / "lens.safetensors"
        fit_lens(serial, ((FACT.question, passage) for passage in passages)).save(settings["lens"])
    here = XL3M.default(**settings)
    there = XL3M.from_pretrained(MODEL_FOLDER, backend="ray", **settings)
    assert alone(there).scores == alone(here).scores != alone(serial).scores
    assert there.select(TEXT, FACT.question).settings["exit_layer"] == 2
    assert there.scorer.fingerprint == here.scorer.fingerprint != serial.scorer.fingerprint
    there.scorer.close()


def test_the_command_line_runs_replicas(serial: XL3M, tmp_path: Path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    how = ["-q", FACT.question, "--json", "--backend", "ray", "--num-replicas", "2", "--num-cpus-per-replica", "0.25"]
    done = CliRunner().invoke(app, ["select", str(tmp_path / "text.txt"), *how, "--dtype", "float32"])
    assert done.exit_code == 0, done.output
    expected = XL3M.default(dtype="float32").select(TEXT, FACT.question)
    assert [one["score"] for one in json.loads(done.stdout)["segments"]] == [one.score for one in expected.segments]


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


def test_runs_left_early_lose_nothing_of_the_next(serial: XL3M, replicated: XL3M):
    expected = alone(serial).scores
    for taken in RNG.sample(range(1, 80), 5):
        segments = replicated.segmenter.segments(repeat(TEXT))
        running = replicated.scorer.evidence(segments, FACT.question, replicated.measure)
        assert len(list(islice(running, taken))) == taken
        running.close()
        writing = replicated.scorer.complete("The harbour was", max_new_tokens=taken, min_new_tokens=taken)
        next(writing)
        writing.close()
        assert alone(replicated).scores == expected


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


@pytest.mark.parametrize("victim", ["reader", "writer"])
def test_a_replica_that_dies_and_finds_no_place_again_ends_the_run_and_hangs_nothing(
    replicated: XL3M, serial: XL3M, victim: str
):
    """Something else waits for the CPU that the dead replica leaves; once it is gone the replica comes back."""

    class Blocker:
        def ready(self) -> bool:
            return True

    scorer = replicated.scorer
    blockers = [ray.remote(num_cpus=1)(Blocker).remote() for _ in range(2)]
    ray.wait([one.ready.remote() for one in blockers], num_returns=1)  # one has the third CPU, the other waits
    pids = [ray.get(scorer._replicas[0].about.remote())["pid"]]

    def kill(progress: Any = None) -> None:
        while pids:
            os.kill(pids.pop(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xl3m_integrations.scoring._SECONDS_BETWEEN_REPORTS", 0.0)
        patch.setattr("xl3m_integrations.backends.ray.PATIENCE", 0.5)
        patch.setattr(scorer, "start_timeout", 1.0)
        with pytest.raises(ScoringError, match="1 of 2 replicas died and did not start again within 1 seconds"):
            if victim == "reader":
                replicated.select(TEXT, FACT.question, progress=kill)
            else:
                for _ in scorer.complete("The harbour was", max_new_tokens=400, min_new_tokens=400):
                    kill()
    for blocker in blockers:
        ray.kill(blocker)
    assert alone(replicated).scores == alone(serial).scores


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense", "ray://127.0.0.1:9"])
def test_an_address_without_a_cluster_is_refused(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(SettingError, match=re.escape(repr(address))):
        XL3M.from_pretrained(MODEL_FOLDER, backend="ray", address=address)


def test_no_cluster_of_this_machine_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch):
    """What Ray itself says where it finds none: another test's cluster must not be found here."""

    def init(**options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(SettingError, match=r"address='auto': Could not find.*`ray start --head`"):
        XL3M.from_pretrained(MODEL_FOLDER, backend="ray", address="auto")


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
