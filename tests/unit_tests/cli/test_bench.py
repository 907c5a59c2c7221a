"""`xl3m bench`: what it prints, and how its work is counted."""

from __future__ import annotations

import re
from functools import partialmethod

import pytest
from command_line import run, run_json
from models import make_model

from xl3m_integrations import XL3M
from xl3m_integrations.demo import make_haystack

BENCH_KEYS = {
    "tokens", "rows", "row_tokens", "read_tokens", "parameters", "exit_layer", "measure", "selection_tokens_per_second",
    "bare_tokens_per_second", "document_tokens_per_second", "ratio", "ratios",
    "asked_again", "kept", "many_cost", "seed",
}  # fmt: skip


def test_bench_as_json(model: str):
    body = run_json("bench", "--tokens", "1000", "--repeats", "2", "--seed", "4", "--model", model)
    assert body.keys() == BENCH_KEYS
    assert len(body["ratios"]) == 2
    assert min(body["ratios"]) <= body["ratio"] <= max(body["ratios"])
    assert body["asked_again"] > 0 and body["many_cost"] > 0 and body["kept"] == 1
    assert (body["seed"], body["measure"], body["exit_layer"]) == (4, "blend", None)
    xl3m = XL3M.from_pretrained(model)
    haystack = make_haystack(xl3m, 1_000, 16, seed=4)
    overheads = sorted(xl3m.scorer.overhead(fact.question) for _, fact in haystack.needles)
    segments = list(xl3m.segmenter.segments([haystack.text]))
    overhead = overheads[8]  # of middling length
    assert body["tokens"] == xl3m.scorer.tokenizer.count(haystack.text)
    assert body["rows"] == len(segments)
    assert body["row_tokens"] == max(len(segment.ids) for segment in segments) + overhead
    assert body["read_tokens"] == sum(len(segment.ids) + overhead for segment in segments)
    assert body["parameters"] == sum(parameter.numel() for parameter in make_model().parameters())


def test_bench_for_people(model: str):
    result = run("bench", "--tokens", "1000", "--repeats", "1", "--measure", "entropy", "--model", model)
    assert result.exit_code == 0, result.output
    assert "selection (entropy)" in result.stdout
    assert "selection / bare" in result.stdout
    assert "the next question of an index" in result.stdout and "16 questions in one pass" in result.stdout


def test_bench_of_the_first_layers(model: str):
    result = run("bench", "--tokens", "1000", "--repeats", "1", "--exit-layer", "1", "--model", model)
    assert result.exit_code == 0, result.output
    assert "parameters, first 1 layers" in " ".join(result.stdout.split())
    assert (
        run_json("bench", "--tokens", "1000", "--repeats", "1", "--exit-layer", "1", "--model", model)["exit_layer"]
        == 1
    )


def test_bench_says_how_much_an_index_could_keep(model: str, monkeypatch: pytest.MonkeyPatch):
    """With a budget for some of the segments it could keep some, with none nothing."""
    index = XL3M.index
    for budget, said in ((40_000, r" [1-9]\d?% of the segments kept"), (0, " 0% of the segments kept")):
        monkeypatch.setattr(XL3M, "index", partialmethod(index, cache_bytes=budget))
        result = run("bench", "--tokens", "1000", "--repeats", "1", "--measure", "entropy", "--model", model)
        assert re.search(said, " ".join(result.stdout.split())), result.output
