"""`xl3m bench --shape`: the shapes are those they are named for, and the work is counted as torch counts it."""

from __future__ import annotations

import pytest
import torch
from command_line import run, run_json
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from xl3m_integrations import XL3M, ScoringError, SettingError
from xl3m_integrations.benchmarks import throughput
from xl3m_integrations.benchmarks.throughput import (
    LONG,
    SHAPES,
    config_of,
    counting_backend,
    flop_of,
    measure_throughput,
)


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [("0.5b", 494_032_768), ("7b", 6_738_415_616)],  # of Qwen2.5-0.5B and Llama-2-7B, as published
)
def test_shapes_are_those_they_are_named_for(shape: str, parameters: int):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(shape))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(("rows", "tokens", "before", "kept"), [(3, 40, 0, 1), (2, 7, 30, 5), (5, 1, 64, 1)])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_work_is_what_torch_counts_but_for_what_the_mask_hides(
    shape: str, rows: int, tokens: int, before: int, kept: int
):
    config = config_of(shape)
    config._attn_implementation = "eager"
    ids = torch.zeros(rows, tokens, dtype=torch.long, device="meta")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config).eval()
        past = model(ids.new_zeros(rows, before), use_cache=True).past_key_values if before else None
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(ids, past_key_values=past, logits_to_keep=kept, attention_mask=ids.new_ones(rows, before + tokens))
    heads = config.num_attention_heads * (config.hidden_size // config.num_attention_heads)
    hidden = 4 * config.num_hidden_layers * heads * rows * tokens * (tokens - 1) / 2  # later positions, not counted
    assert flop_of(model, rows, tokens, before, kept) + hidden == pytest.approx(counter.get_total_flops(), rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_figures_fit_together(dtype: str):
    found = measure_throughput("tiny", 1_000, 2, 5, device="cpu", dtype=dtype, measure="entropy")
    assert (found.shape, found.device, found.dtype, len(found.seconds)) == ("tiny", "cpu", dtype, 2)
    taken = sum(found.seconds) / 2
    assert found.flops == pytest.approx(found.flop / taken)
    assert found.read_tokens_per_second == pytest.approx(found.read_tokens / taken)
    assert found.long_seconds == pytest.approx(LONG / found.document_tokens_per_second)
    assert min(found.ratio, found.matmul_flops) > 0


def test_all_that_the_model_reads_is_counted():
    """Of one measure without a second look that is every row once."""
    backend = counting_backend("tiny", 3, device="cpu", dtype="float32")
    xl3m = XL3M(backend)
    text, question = "The ferry left on time. " * 300, "When did it leave?"
    segments = list(xl3m.segmenter.segments([text]))
    xl3m.select(text, question, measure="entropy")
    rows = [len(segment.ids) + backend.overhead(question) for segment in segments]
    assert sum(rows) <= backend.read_tokens <= sum(rows) * 1.07  # with padding
    expected = sum(flop_of(backend.model, 1, row, 0, 1) for row in rows)
    assert expected <= backend.flop <= expected * 1.07
    first = backend.read_tokens
    xl3m.select(text, question)
    assert backend.read_tokens > 2 * first  # the question alone, and the best segments again


def test_the_seed_fixes_the_weights():
    models = [counting_backend("tiny", seed, device="cpu").model for seed in (1, 1, 2)]
    weights = [model.get_input_embeddings().weight for model in models]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_as_json_and_for_people():
    fixed = ("--tokens", "1000", "--repeats", "1", "--seed", "4", "--device", "cpu", "--dtype", "float32")
    body = run_json("bench", "--shape", "tiny", *fixed)
    assert (body["shape"], body["seed"], body["dtype"]) == ("tiny", 4, "float32")
    assert body["tokens"] >= 1_000
    shown = " ".join(run("bench", "--shape", "tiny", *fixed).stdout.split())
    for said in (f"{body['parameters']:,} random parameters", "TFLOP/s", "selection / matrix product", "20 million"):
        assert said in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["8b"], "The shape '8b' is not known; choose one of tiny, 0.5b, 7b."),
        (["tiny", "--repeats", "0"], "repeats is 0"),
        (["tiny", "--tokens", "10"], "tokens is 10"),
        (["tiny", "--measure", "vibes"], "Unknown measure 'vibes'"),
        (["tiny", "--device", "abacus"], "device is 'abacus'"),
        (["tiny", "--model", "m"], "leave --model, --exit-layer and --peers out"),
        (["tiny", "--exit-layer", "1"], "leave --model, --exit-layer and --peers out"),
        (["tiny", "--peers"], "leave --model, --exit-layer and --peers out"),
        (["tiny", "--plots", "p"], "are for --peers"),
    ],
)
def test_what_is_refused(arguments: list[str], words: str):
    result = run("bench", "--shape", *arguments)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 14 bytes"),
            ScoringError,
            "shape 7b does not fit the memory of cpu; choose a smaller shape",
        ),
        (ValueError("something else"), ValueError, "something else"),
    ],
    ids=["memory", "another kind"],
)
def test_what_fails_while_the_model_is_made(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, expected: type[Exception], words: str
):
    """Only what speaks of memory is told as a model that does not fit the device."""

    def fail(*args: object, **kwargs: object) -> None:
        raise fault

    monkeypatch.setattr(AutoModelForCausalLM, "from_config", fail)
    with pytest.raises(expected, match=words):
        throughput.counting_backend("7b", 1, device="cpu")


def test_repeats_below_one_are_refused_before_the_model_is_made():
    with pytest.raises(SettingError, match="repeats is 0"):
        measure_throughput("7b", 1_000, 0, 1)
