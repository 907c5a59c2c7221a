"""`backend="openai"` against a local server: its numbers beside the local model's, and every way a server can fail."""

from __future__ import annotations

import itertools
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from completions_server import CompletionsServer
from typer.testing import CliRunner

from xl3m_integrations import XL3M, InputError, ScoringError, SettingError, langchain, llama_index
from xl3m_integrations.backends.openai import KEY_VARIABLE
from xl3m_integrations.bundled import MODEL_FOLDER, corpus
from xl3m_integrations.cli import app

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

KEY = "sk-secret-7f3a"
RNG = random.Random(3)
FACT = corpus.register_fact(RNG)
TEXT = "".join(corpus.stream_document(RNG, [(0.4, FACT)], 9_000))
VOCABULARY = 4096


@pytest.fixture(scope="module")
def local() -> XL3M:
    return XL3M.default(dtype="float32", device="cpu")


@pytest.fixture
def server(local: XL3M, monkeypatch: pytest.MonkeyPatch) -> Iterator[CompletionsServer]:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with CompletionsServer(local.scorer) as running:
        yield running


def remote(server: CompletionsServer, **options: Any) -> XL3M:
    settings = {"tokenizer": MODEL_FOLDER, "base_url": server.url, "retries": 3, "prompts": "ids"} | options
    return XL3M.from_pretrained("bundled", backend="openai", **settings)


# ---------------------------------------------------------------------------------------------- the numbers
def test_with_the_whole_vocabulary_it_is_the_local_entropy(server: CompletionsServer, local: XL3M):
    theirs = remote(server, top_logprobs=VOCABULARY).select(TEXT, FACT.question, top_k=3)
    ours = local.select(TEXT, FACT.question, top_k=3, measure="entropy")
    assert theirs.scores == pytest.approx(ours.scores, abs=1e-4)
    assert [s.index for s in theirs.segments] == [s.index for s in ours.segments]
    assert theirs.covered_mass == pytest.approx(1, abs=1e-6)
    assert not theirs.exact and ours.exact and ours.covered_mass == 1


def test_with_the_top_alone_it_is_a_lower_bound_that_keeps_the_best(server: CompletionsServer, local: XL3M):
    theirs = remote(server, top_logprobs=20).select(TEXT, FACT.question, top_k=3)
    ours = local.select(TEXT, FACT.question, top_k=3, measure="entropy")
    assert theirs.measure == "entropy"
    assert all(a >= b - 1e-4 for a, b in zip(theirs.scores, ours.scores, strict=True))  # the score is minus entropy
    assert min(theirs.segments, key=lambda s: s.rank).index == min(ours.segments, key=lambda s: s.rank).index
    assert 0.3 < theirs.covered_mass < 1
    assert all(0 < s.evidence["covered_mass"] <= 1 for s in theirs.segments)


def test_requests_are_of_the_documented_shape_and_segment_first(server: CompletionsServer):
    selection = remote(server, request_options={"return_tokens_as_token_ids": True}).select(TEXT, FACT.question)
    prompts = [request.pop("prompt") for request in server.requests]
    expected = {"model": "bundled", "max_tokens": 1, "temperature": 0, "logprobs": 20}
    assert server.requests == [expected | {"return_tokens_as_token_ids": True}] * len(selection.scores)
    ends = {tuple(prompt[-10:]) for prompt in prompts}
    assert len(ends) == 1  # the question
    assert len({tuple(prompt[:40]) for prompt in prompts}) == len(prompts)  # each its own segment


def test_requests_overlap_but_no_more_than_was_asked_for(server: CompletionsServer):
    remote(server, concurrency=3).select(TEXT, FACT.question)
    assert 1 < server.most_at_once <= 3


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_server_that_takes_no_ids_is_sent_text(server: CompletionsServer, local: XL3M, status: int):
    server.refuses_ids = status
    xl3m = remote(server, top_logprobs=VOCABULARY, prompts=None)
    theirs = xl3m.select(TEXT, FACT.question, top_k=1)
    ours = local.select(TEXT, FACT.question, top_k=1, measure="entropy")
    assert theirs.segments[0].index == ours.segments[0].index
    assert not isinstance(server.requests[-1]["prompt"], list)
    assert xl3m.answer(TEXT, FACT.question).text == local.answer(TEXT, FACT.question, measure="entropy").text


@pytest.mark.parametrize("faults", [[], ["500", "500"], ["429"], ["500", "500", "", "429"]], ids=str)
def test_a_server_that_takes_ids_is_sent_ids_whatever_fault_the_first_requests_meet(
    server: CompletionsServer, faults: list[str]
):
    server.faults = list(faults)
    remote(server, prompts=None).select(TEXT, FACT.question)
    assert isinstance(server.requests[-1]["prompt"], list)


def test_a_document_cannot_end_its_turn_in_text(server: CompletionsServer):
    special = "<|assistant|>"
    document = f"The code is {special} 7. " * 30
    remote(server, prompts="text").select(document, f"What does {special} say?", top_k=1)
    by_itself = remote(server, prompts="text").scorer.template
    template = by_itself.before + by_itself.between + by_itself.after
    assert {request["prompt"].count(special) for request in server.requests} == {template.count(special)}


def test_the_reader_streams_from_the_same_server(server: CompletionsServer, local: XL3M):
    xl3m = remote(server)
    answer = xl3m.answer(TEXT, FACT.question, top_k=2)
    assert answer.text == local.answer(TEXT, FACT.question, top_k=2, measure="entropy").text == FACT.value
    assert "".join(xl3m.stream(TEXT, FACT.question, top_k=2)).strip() == FACT.value
    prompts = [f"{fact} is" for fact in ("One", "Two", "Three")]
    assert xl3m.reader.complete_many(prompts, max_new_tokens=5) == local.reader.complete_many(prompts, max_new_tokens=5)


@pytest.mark.parametrize("temperature", [0.5, 0.0])
def test_the_adapters_temperature_reaches_the_server(server: CompletionsServer, temperature: float):
    xl3m = remote(server)
    langchain.XL3MLLM(xl3m=xl3m, temperature=temperature, max_tokens=3).invoke("One is")
    langchain.ChatXL3M(xl3m=xl3m, temperature=temperature, max_tokens=3).invoke("One is")
    llama_index.XL3MLLM(xl3m=xl3m, temperature=temperature, max_new_tokens=3).complete("One is")
    assert [request["temperature"] for request in server.requests] == [temperature] * 3


def test_a_journal_works_with_a_server(server: CompletionsServer, tmp_path: Path):
    first = remote(server).select(TEXT, FACT.question, journal=tmp_path / "run.db")
    asked = len(server.requests)
    again = remote(server).select(TEXT, FACT.question, journal=tmp_path / "run.db")
    assert (again.scores, again.reused, len(server.requests)) == (first.scores, len(first.scores), asked)


def test_the_command_line_asks_a_server(server: CompletionsServer, local: XL3M, tmp_path: Path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    place = ["--backend", "openai", "--model", "bundled", "--base-url", server.url, "--tokenizer", str(MODEL_FOLDER)]
    how = ["-q", FACT.question, "--top-k", "2", "--top-logprobs", str(VOCABULARY), "--concurrency", "2", "--json"]
    done = CliRunner().invoke(app, ["ask", str(tmp_path / "text.txt"), *place, *how])
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    ours = local.answer(TEXT, FACT.question, top_k=2, measure="entropy")
    assert (body["answer"], body["measure"]) == (ours.text, "entropy")
    assert [segment["start"] for segment in body["segments"]] == [one.start for one in ours.selection.segments]
    assert server.most_at_once <= 2
    assert KEY not in done.output


def test_the_command_line_never_shows_the_key(server: CompletionsServer, tmp_path: Path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    server.status = 401
    place = ["--backend", "openai", "--model", "bundled", "--base-url", server.url, "--tokenizer", str(MODEL_FOLDER)]
    done = CliRunner().invoke(app, ["select", str(tmp_path / "text.txt"), *place, "-q", FACT.question])
    assert done.exit_code == 1
    assert KEY_VARIABLE in done.output and KEY not in done.output


# ---------------------------------------------------------------------------------------------- faults
FAULTS = ("429", "500", "503", "408", "drop", "short", "garbage", "empty", "count")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_now_and_then_changes_nothing_and_every_request_is_answered_once(server: CompletionsServer, fault: str):
    expected = remote(server).select(TEXT, FACT.question)
    server.answered.clear()
    server.faults = ["", fault, "", fault, fault] * 4
    selection = remote(server, retries=12).select(TEXT, FACT.question)  # all faults may fall to one request
    assert selection.scores == expected.scores
    assert not server.faults
    assert set(server.answered.values()) == {1}
    assert len(server.answered) == len(expected.scores)


@pytest.mark.parametrize("seed", range(3))
def test_any_mixture_of_faults_changes_nothing(server: CompletionsServer, seed: int):
    rng = random.Random(seed)
    expected = remote(server).select(TEXT, FACT.question)
    server.faults = [rng.choice([*FAULTS, ""]) for _ in range(40)]
    assert remote(server, retries=40).select(TEXT, FACT.question).scores == expected.scores, f"seed {seed}"


def test_a_request_that_hangs_is_asked_again(server: CompletionsServer):
    expected = remote(server).select(TEXT, FACT.question)
    server.faults = ["hang", "", "hang"]
    assert remote(server, timeout=2.0).select(TEXT, FACT.question).scores == expected.scores


@pytest.mark.parametrize("fault", [*FAULTS, "400", "404", "401", "403"])
def test_a_fault_that_stays_fails_the_run_with_a_clear_error_and_never_shows_the_key(
    server: CompletionsServer, fault: str, caplog: pytest.LogCaptureFixture
):
    server.faults = [fault] * 500
    xl3m = remote(server, retries=2)
    with caplog.at_level(logging.INFO), pytest.raises(ScoringError) as failed:
        xl3m.select(TEXT, FACT.question)
    shown = f"{failed.value} {failed.getrepr(chain=True)}"
    assert KEY not in shown + caplog.text + repr(xl3m.scorer) + repr(vars(xl3m.scorer))
    assert TEXT[200:240] not in caplog.text
    if fault in ("401", "403"):
        assert KEY_VARIABLE in str(failed.value)
    else:
        assert "segment " in str(failed.value)
    assert server.keys.keys() == {f"Bearer {KEY}"}


def test_a_server_without_log_probabilities_is_refused_with_the_option_that_turns_them_on(server: CompletionsServer):
    server.logprobs = False
    with pytest.raises(ScoringError, match=r"--max-logprobs.*--logits_all"):
        remote(server).select(TEXT, FACT.question)


def test_a_server_that_cuts_prompts_short_is_refused(server: CompletionsServer):
    server.lie = -50
    with pytest.raises(ScoringError, match="window= is no larger"):
        remote(server).select(TEXT, FACT.question)


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(ScoringError, match=r"127\.0\.0\.1:9/v1"):
        XL3M.from_pretrained(
            "m", backend="openai", tokenizer=MODEL_FOLDER, base_url="http://127.0.0.1:9/v1", retries=0
        ).select(TEXT, FACT.question)


def test_stopping_early_leaves_nothing_running(server: CompletionsServer):
    xl3m = remote(server, concurrency=2)
    segments = xl3m.segmenter.segments([TEXT])
    running = xl3m.scorer.evidence(segments, FACT.question, xl3m.measure)
    list(itertools.islice(running, 2))
    running.close()
    assert len(server.requests) <= 5


# ---------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize("measure", ["blend", "question_likelihood", "answer_entropy"])
def test_a_measure_that_a_server_cannot_tell_is_refused(server: CompletionsServer, measure: str):
    with pytest.raises(SettingError, match="measure='entropy'"):
        remote(server).select(TEXT, FACT.question, measure=measure)
    assert not server.requests


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": "words"}, "'ids' or 'text'"),
        ({"top_logprobs": 0}, "top_logprobs 0"),
        ({"concurrency": 0}, "concurrency 0"),
        ({"device": "cpu"}, "device"),
        ({"bse_url": "x"}, "bse_url"),
    ],
)
def test_settings_out_of_range_are_refused(server: CompletionsServer, options: dict[str, Any], message: str):
    with pytest.raises(SettingError, match=message):
        remote(server, **options)


def test_an_address_with_a_password_is_refused_and_not_repeated(server: CompletionsServer):
    with pytest.raises(SettingError, match=KEY_VARIABLE) as refused:
        remote(server, base_url="http://me:hunter2@127.0.0.1/v1")
    assert "hunter2" not in str(refused.value)


def test_a_question_beyond_the_window_is_refused_before_anything_is_sent(server: CompletionsServer):
    with pytest.raises(InputError, match="shorten the question"):
        remote(server).select(TEXT, "Why? " * 700)
    assert not server.requests


def test_an_unknown_backend_is_refused():
    with pytest.raises(SettingError, match="choose one of transformers, openai, ray"):
        XL3M.from_pretrained("m", backend="opnai")


# ---------------------------------------------------------------------------------------------- vLLM's schema
VLLM_REQUEST = {  # of vllm/entrypoints/openai/completion/protocol.py, CompletionRequest: the fields that are sent
    "model": (str,),
    "prompt": (list, str),
    "max_tokens": (int,),
    "temperature": (int, float),
    "logprobs": (int,),
    "logit_bias": (dict,),
    "stream": (bool,),
    "return_tokens_as_token_ids": (bool,),
}


def test_every_request_fits_the_schema_that_vllm_documents(server: CompletionsServer):
    xl3m = remote(server, request_options={"return_tokens_as_token_ids": True})
    xl3m.answer(TEXT, FACT.question)
    for request in server.requests:
        for name, value in request.items():
            assert isinstance(value, VLLM_REQUEST[name]), name
        assert all(isinstance(token, int) and token >= 0 for token in request["prompt"])
        assert request.get("logprobs", 0) <= 20  # --max-logprobs by default
    assert json.dumps(server.requests)
