"""The backend against a plain reference: one row at a time, all logits, no cache, sums written out."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import wraps
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models import (
    ARCHITECTURES,
    WINDOW,
    make_backend,
    make_model,
    make_tokenizer,
    shared_model,
    shared_tokenizer,
    text_of,
)

from xl3m_integrations import InputError, ModelLoadError, ScoringError, Segment, SettingError
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.bundled.tokenizer import CHAT_TEMPLATE
from xl3m_integrations.certainty import AnswerEntropy, get_measure

QUESTION = "What is the special magic number for the harbour?"
CONTEXT = text_of(240, seed=5)
MEASURES = ("entropy", "question_likelihood", "answer_entropy", "blend")
LENGTHS = (7, 30, 64, 31, 30, 8, 61, 30, 1)  # tokens; some batches come out even, others padded
TOLERANCE = 1e-4
Row = tuple[float, ...]


def segments_of(lengths: Sequence[int] = LENGTHS, seed: int = 3) -> list[Segment]:
    ids = shared_tokenizer()(text_of(4_000, seed), add_special_tokens=False).input_ids
    rng = random.Random(seed)
    made, at = [], 0
    for index, length in enumerate(lengths):
        first = rng.randrange(len(ids) - length)
        made.append(Segment(index, at, at + 3 * length, "", ids[first : first + length]))
        at += 3 * length
    return made


def evidence_of(backend: TransformersBackend, segments: Sequence[Segment], measure: Any, question: str = QUESTION):
    chosen = get_measure(measure)
    return [evidence for _, evidence in backend.evidence(segments, question, chosen)]


# ---------------------------------------------------------------------------------------------- the plain reference
@torch.no_grad()
def log_probs(model: Any, row: Sequence[int]) -> list[list[float]]:
    """All positions' log-probabilities in double precision, as lists."""
    return model(torch.tensor([list(row)])).logits[0].double().log_softmax(-1).tolist()


def entropy(log_probs: Sequence[float]) -> float:
    return -math.fsum(math.exp(p) * p for p in log_probs)


def question_log_probs(model: Any, lead: Sequence[int], after: Sequence[int], question: slice) -> list[float]:
    said = log_probs(model, [*lead, *after])
    return [said[len(lead) + at - 1][after[at]] for at in range(question.start, question.stop)]


def greedy(model: Any, row: Sequence[int], tokens: int, eos: int | None) -> tuple[list[int], list[float]]:
    """Greedy tokens up to the end of the answer, which is left out, and the entropy at each step."""
    row, chosen, entropies = list(row), [], []
    for _ in range(tokens):
        last = log_probs(model, row)[-1]
        entropies.append(entropy(last))
        token = max(range(len(last)), key=last.__getitem__)
        if token == eos:
            break
        chosen.append(token)
        row.append(token)
    return chosen, entropies


def reference(backend: TransformersBackend, ids: Sequence[int], measure: str) -> Row:
    model, prompt, eos = backend.model, backend.prompt(QUESTION), backend.tokenizer.eos_id
    row = [*prompt.before, *ids, *prompt.after]
    if measure == "answer_entropy":
        entropies = greedy(model, row, 4, eos)[1]
        return (math.fsum(entropies) / len(entropies),)
    certain = entropy(log_probs(model, row)[-1])
    if measure == "entropy":
        return (certain,)
    asked = question_log_probs(model, [*prompt.before, *ids], prompt.after, prompt.question)
    if measure == "question_likelihood":
        return (-math.fsum(asked) / len(asked),)
    alone = question_log_probs(model, prompt.before or [eos or 0], prompt.after, prompt.question)
    return certain, math.fsum(max(0.0, a - b) for a, b in zip(asked, alone, strict=True)) / len(asked)


# ---------------------------------------------------------------------------------------------- scoring
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
class TestEveryArchitecture:
    def test_equals_the_plain_reference_in_the_order_of_the_segments(self, architecture: str, measure: str):
        backend, segments = make_backend(architecture), segments_of()
        found = list(backend.evidence(segments, QUESTION, get_measure(measure)))
        assert [segment for segment, _ in found] == segments
        expected = [reference(backend, segment.ids, measure) for segment in segments]
        for (_, evidence), row in zip(found, expected, strict=True):
            assert evidence == pytest.approx(row, abs=TOLERANCE)
        for column in zip(*expected, strict=True):  # else the comparison would prove nothing
            assert max(column) - min(column) > 100 * TOLERANCE

    def test_batched_equals_one_by_one(self, architecture: str, measure: str):
        segments = segments_of()
        batched = evidence_of(make_backend(architecture), segments, measure)
        single = make_backend(architecture, batch_tokens=1)
        for segment, together in zip(segments, batched, strict=True):
            (alone,) = evidence_of(single, [segment], measure)
            assert together == pytest.approx(alone, abs=TOLERANCE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_is_not_seen(architecture: str):
    """Rows of 60 to 64 segment tokens share one padded batch; each must come out as if it were alone."""
    segments = segments_of((60, 64, 62, 61, 64))
    shapes: list[tuple[int, ...]] = []
    backend = TransformersBackend(recorded(shared_model(architecture), shapes), shared_tokenizer())
    together = evidence_of(backend, segments, "blend")
    assert len(shapes) == 2  # the question alone, then all rows at once
    assert shapes[1] == (5, 64 + backend.overhead(QUESTION))
    for segment, row in zip(segments, together, strict=True):
        assert row == pytest.approx(reference(backend, segment.ids, "blend"), abs=TOLERANCE)


def recorded(model: Any, shapes: list[tuple[int, ...]]) -> Any:
    def note(ids: torch.Tensor) -> None:
        shapes.append(tuple(ids.shape))

    return hooked(model, note)


def hooked(model: Any, before: Callable[[torch.Tensor], None]) -> Any:
    """A copy of `model` that shows `before` the ids of each forward pass."""
    copy = deepcopy(model)
    forward = copy.forward

    @wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        before(kwargs["input_ids"] if "input_ids" in kwargs else args[0])
        return forward(*args, **kwargs)

    copy.forward = wrapped
    return copy


def test_logits_are_asked_for_at_the_needed_positions_only():
    """With a vocabulary of 150,000 the logits of all positions would not fit the memory."""
    backend = make_backend()
    kept = []
    forward = backend.logits

    def logits(ids: torch.Tensor, keep: Any, **cache: Any) -> Any:
        output = forward(ids, keep, **cache)
        kept.append(output.logits.shape[1])
        return output

    backend.logits = logits  # type: ignore[method-assign]
    evidence_of(backend, segments_of((40, 40)), "entropy")
    assert kept == [1]
    kept.clear()
    evidence_of(backend, segments_of((40, 40)), "question_likelihood")
    after = backend.prompt(QUESTION)
    assert kept == [1 + len(after.after) - after.question.start]


def test_the_answer_ends_at_the_end_token():
    """Steps after the greedy answer's end say nothing about it and do not count."""
    backend, segments = make_backend(), segments_of((20, 20, 25))
    prompt = backend.prompt(QUESTION)
    row = [*prompt.before, *segments[0].ids, *prompt.after]
    unbounded = reference(backend, segments[0].ids, "answer_entropy")
    backend.tokenizer.eos_id = greedy(backend.model, row, 2, None)[0][1]
    expected = [reference(backend, segment.ids, "answer_entropy") for segment in segments]
    assert abs(expected[0][0] - unbounded[0]) > 100 * TOLERANCE
    for evidence, row in zip(evidence_of(backend, segments, "answer_entropy"), expected, strict=True):
        assert evidence == pytest.approx(row, abs=TOLERANCE)


def test_the_sub_context_is_the_template_filled_in():
    backend = make_backend()
    prompt = backend.prompt(QUESTION)
    ids = backend.tokenizer.ids("\n".join(CONTEXT.split(". ")))
    whole = shared_tokenizer().decode([*prompt.before, *ids, *prompt.after], skip_special_tokens=False)
    context = "\n".join(CONTEXT.split(". "))
    assert whole == f"<|bos|>{context}\n\nQuestion: {QUESTION}\nAnswer:"
    assert shared_tokenizer().decode(prompt.after[prompt.question]).strip() == QUESTION


def prompt_ids(backend: TransformersBackend) -> list[int]:
    prompt = backend.prompt(QUESTION)
    return [*prompt.before, *shared_tokenizer()(CONTEXT, add_special_tokens=False).input_ids, *prompt.after]


def test_a_chat_template_is_taken_where_there_is_one():
    backend = TransformersBackend(shared_model(), make_tokenizer(chat=CHAT_TEMPLATE))
    whole = shared_tokenizer().decode(prompt_ids(backend), skip_special_tokens=False)
    assert whole == f"<|bos|><|user|>{CONTEXT}\n\nQuestion: {QUESTION}<|assistant|>"


def test_template_argument_goes_before_the_chat_template():
    tokenizer = make_tokenizer(chat=CHAT_TEMPLATE)
    backend = TransformersBackend(shared_model(), tokenizer, template="Read: {segment}\nAsk: {question}\nSay:")
    whole = tokenizer.decode(prompt_ids(backend), skip_special_tokens=False)
    assert whole == f"<|bos|>Read: {CONTEXT}\nAsk: {QUESTION}\nSay:"


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("bos", [True, False])
def test_bare_template(bos: bool, eos: bool, measure: str):
    """With no BOS the question's first token has nothing before it where no segment stands: something must."""
    tokenizer = make_tokenizer(bos=bos, eos=eos, pad=False)
    backend = TransformersBackend(shared_model(), tokenizer, template="{segment}{question}")
    prompt, segments = backend.prompt(QUESTION), segments_of()
    assert prompt.before == ((1,) if bos else ())
    assert tokenizer.decode(prompt.after) == QUESTION
    assert prompt.question == slice(0, len(prompt.after))
    for segment, evidence in zip(segments, evidence_of(backend, segments, measure), strict=True):
        assert evidence == pytest.approx(reference(backend, segment.ids, measure), abs=TOLERANCE)


@pytest.mark.parametrize("measure", MEASURES)
def test_no_pad_and_no_eos_token(measure: str):
    backend = TransformersBackend(shared_model(), make_tokenizer(eos=False, pad=False))
    segments = segments_of()
    for segment, evidence in zip(segments, evidence_of(backend, segments, measure), strict=True):
        assert evidence == pytest.approx(reference(backend, segment.ids, measure), abs=TOLERANCE)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_model_without_logits_to_keep(measure: str):
    model = deepcopy(shared_model())
    forward = model.forward

    def plain(input_ids: Any = None, use_cache: bool | None = None, past_key_values: Any = None) -> Any:
        return forward(input_ids=input_ids, use_cache=use_cache, past_key_values=past_key_values)

    model.forward = plain
    segments = segments_of()
    found = evidence_of(TransformersBackend(model, shared_tokenizer()), segments, measure)
    for evidence, expected in zip(found, evidence_of(make_backend(), segments, measure), strict=True):
        assert evidence == pytest.approx(expected, abs=TOLERANCE)


def test_answer_length_of_a_measure_object_is_honoured():
    backend, (segment,) = make_backend(), segments_of((30,))
    prompt = backend.prompt(QUESTION)
    entropies = greedy(backend.model, [*prompt.before, *segment.ids, *prompt.after], 2, 2)[1]
    (evidence,) = evidence_of(backend, [segment], AnswerEntropy(2))
    assert evidence[0] == pytest.approx(sum(entropies) / 2, abs=TOLERANCE)


# ---------------------------------------------------------------------------------------------- what goes wrong
def memory_of(tokens: int) -> Callable[[torch.Tensor], None]:
    def refuse(ids: torch.Tensor) -> None:
        if ids.numel() > tokens:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to read {ids.numel()} tokens")

    return refuse


@pytest.mark.parametrize("measure", MEASURES)
def test_out_of_memory_halves_the_batch_and_goes_on(measure: str):
    segments = segments_of((30, 31, 30, 30, 31, 30, 30))
    refused: list[int] = []
    limit = 2 * (31 + make_backend().overhead(QUESTION))

    def refuse(ids: torch.Tensor) -> None:
        refused.extend([ids.numel()] * (ids.numel() > limit))
        memory_of(limit)(ids)

    backend = TransformersBackend(hooked(shared_model(), refuse), shared_tokenizer())
    found = list(backend.evidence(segments, QUESTION, get_measure(measure)))
    assert refused
    assert [segment for segment, _ in found] == segments
    expected = evidence_of(make_backend(), segments, measure)
    for (_, evidence), row in zip(found, expected, strict=True):
        assert evidence == pytest.approx(row, abs=TOLERANCE)


def test_an_allocator_that_speaks_of_memory_counts_as_out_of_memory():
    def refuse(ids: torch.Tensor) -> None:
        if len(ids) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    segments = segments_of((30, 30, 30))
    backend = TransformersBackend(hooked(shared_model(), refuse), shared_tokenizer())
    for evidence, row in zip(
        evidence_of(backend, segments, "entropy"), evidence_of(make_backend(), segments, "entropy"), strict=True
    ):
        assert evidence == pytest.approx(row, abs=TOLERANCE)


@pytest.mark.parametrize("measure", MEASURES)
def test_memory_too_small_for_one_row_names_the_segment(measure: str):
    segments = segments_of((20, 20, 60))
    overhead = make_backend().overhead(QUESTION)
    backend = TransformersBackend(hooked(shared_model(), memory_of(overhead + 50)), shared_tokenizer())
    start, end = segments[2].start, segments[2].end
    with pytest.raises(ScoringError, match=rf"segment 2 \(characters {start} to {end}, 60 tokens\).*segment_tokens"):
        evidence_of(backend, segments, measure)


def test_memory_too_small_for_the_question_alone():
    backend = TransformersBackend(hooked(shared_model(), memory_of(5)), shared_tokenizer())
    with pytest.raises(ScoringError, match="question"):
        evidence_of(backend, segments_of((20,)), "blend")


@pytest.mark.parametrize("measure", MEASURES)
def test_a_model_that_fails_names_the_segment(measure: str):
    def refuse(ids: torch.Tensor) -> None:
        if ids.shape[1] > 90:
            raise IndexError("index out of range in self")

    segments = segments_of((20, 90, 20))
    backend = TransformersBackend(hooked(shared_model(), refuse), shared_tokenizer())
    start, end = segments[1].start, segments[1].end
    with pytest.raises(ScoringError, match=rf"segment 1 \(characters {start} to {end}.*index out of range"):
        evidence_of(backend, segments, measure)


@pytest.mark.parametrize("measure", MEASURES)
def test_nan_logits_name_segment_and_characters(measure: str):
    """float16 overflows in some models; the segment after which it did must be named, wherever it is in the batch."""
    segments = segments_of((30, 30, 31, 30))
    marker = segments[2].ids
    model = deepcopy(shared_model())
    forward = model.forward

    @wraps(forward)
    def broken(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        for row, ids in enumerate(kwargs["input_ids"].tolist()):
            if any(ids[at : at + len(marker)] == marker for at in range(len(ids))):
                output.logits[row] = math.nan
        return output

    model.forward = broken
    start, end = segments[2].start, segments[2].end
    with pytest.raises(ScoringError, match=rf"NaN.*segment 2 \(characters {start} to {end}.*float32"):
        evidence_of(TransformersBackend(model, shared_tokenizer()), segments, measure)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_question_longer_than_the_window(architecture: str, measure: str):
    """GPT-2 has no position to put such a question at, so it must be refused before anything is read."""
    backend = make_backend(architecture)
    with pytest.raises(InputError, match=f"window is {WINDOW} tokens.*[Ss]horten the question"):
        evidence_of(backend, segments_of((20,)), measure, "Why is it so? " * WINDOW)


def test_a_sub_context_may_fill_the_window_to_the_last_token():
    backend = make_backend("gpt2")
    room = WINDOW - backend.overhead(QUESTION)
    for measure, kept_free in (("blend", 0), ("answer_entropy", 4)):
        assert len(evidence_of(backend, segments_of((room - kept_free,)), measure)) == 1
        with pytest.raises(InputError, match="window"):
            evidence_of(backend, segments_of((room - kept_free + 1,)), measure)


def test_window_that_no_one_states():
    model, tokenizer = make_model(), make_tokenizer()
    model.config = SimpleNamespace(get_text_config=SimpleNamespace)
    tokenizer.model_max_length = int(1e30)
    with pytest.raises(ModelLoadError, match="window="):
        TransformersBackend(model, tokenizer)
    assert TransformersBackend(model, tokenizer, window=128).window == 128


def test_batch_tokens_below_one():
    with pytest.raises(SettingError, match="batch_tokens -1"):
        make_backend(batch_tokens=-1)


def test_a_tokenizer_without_a_fast_backend():
    class Slow:
        all_special_tokens = ()

    with pytest.raises(ModelLoadError, match="fast backend"):
        TransformersBackend(shared_model(), Slow())


# ---------------------------------------------------------------------------------------------- generation
def plain_answer(backend: TransformersBackend, tokens: int) -> str:
    chosen = greedy(backend.model, prompt_ids(backend), tokens, backend.model.generation_config.eos_token_id)[0]
    return backend.hf_tokenizer.decode(chosen, skip_special_tokens=True)


def streamed(backend: TransformersBackend, tokens: int, **options: Any) -> list[str]:
    return list(backend.stream(CONTEXT, QUESTION, max_new_tokens=tokens, **options))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_stream_is_the_greedy_answer(architecture: str):
    backend = make_backend(architecture)
    expected = plain_answer(backend, 20)
    assert expected
    pieces = streamed(backend, 20)
    assert "".join(pieces) == expected
    assert not writers()


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "xl3m-generate"]


def test_the_stream_comes_in_pieces():
    backend = make_backend("gpt2", template="{segment} {question} ")
    assert len(streamed(backend, 40)) > 2


def test_generation_without_pad_and_eos():
    model = make_model()
    model.generation_config.pad_token_id = model.generation_config.eos_token_id = None
    model.config.pad_token_id = model.config.eos_token_id = None
    backend = TransformersBackend(model, make_tokenizer(eos=False, pad=False))
    assert "".join(streamed(backend, 12)) == plain_answer(backend, 12)


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_stop_strings_end_the_answer_and_are_left_out(architecture: str, length: int):
    backend = make_backend(architecture)
    whole = plain_answer(backend, 20)
    at = next(at for at in range(len(whole) // 3, len(whole)) if whole[at : at + length].isascii())
    stop = whole[at : at + length]
    expected = whole[: whole.index(stop)]
    assert "".join(streamed(backend, 20, stop=("not in it", stop))) == expected
    assert not writers()


def test_a_stop_string_that_never_comes_holds_nothing_back():
    backend = make_backend()
    assert "".join(streamed(backend, 12, stop=("a string that never comes",))) == plain_answer(backend, 12)


def test_closing_the_stream_stops_the_work():
    passes: list[tuple[int, ...]] = []
    backend = TransformersBackend(recorded(shared_model(), passes), shared_tokenizer())
    stream = backend.stream("Hello.", "Why?", max_new_tokens=150)
    assert next(stream)
    assert writers()
    stream.close()
    assert not writers()
    done = len(passes)
    assert list(islice(stream, 1)) == []
    assert len(passes) == done


def test_sampling_options_reach_the_model():
    backend = make_backend()
    drawn = set()
    for seed in range(3):
        torch.manual_seed(seed)
        drawn.add("".join(streamed(backend, 8, do_sample=True, temperature=5.0)))
    assert len(drawn) == 3


def test_a_generation_config_that_samples_is_overruled():
    """Many published models sample by default; an answer read from a text should be the same each time."""
    model = make_model()
    model.generation_config.update(do_sample=True, temperature=3.0, top_p=0.9, top_k=20)
    backend = TransformersBackend(model, shared_tokenizer())
    assert "".join(streamed(backend, 12)) == plain_answer(make_backend(), 12)


def test_a_prompt_too_long_is_refused():
    backend = make_backend()
    used = backend.overhead(QUESTION) + backend.count(CONTEXT)
    assert streamed(backend, WINDOW - used)
    with pytest.raises(InputError, match=f"has {used} tokens.*window is {WINDOW} tokens.*max_new_tokens"):
        streamed(backend, WINDOW - used + 1)


def test_a_model_that_fails_while_writing():
    def refuse(ids: torch.Tensor) -> None:
        if ids.shape[1] == 1:
            raise RuntimeError("the plug was pulled")

    backend = TransformersBackend(hooked(shared_model(), refuse), shared_tokenizer())
    with pytest.raises(ScoringError, match="the plug was pulled"):
        streamed(backend, 5)
    assert not writers()


PROMPTS = [text_of(size, seed=size) for size in (40, 200, 90)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_prompt_is_completed_as_it_stands(architecture: str):
    backend = make_backend(architecture)
    expected = []
    for prompt in PROMPTS:
        ids = shared_tokenizer()(prompt).input_ids  # with the beginning marked, as for any text
        assert backend.count_prompt(prompt) == len(ids)
        chosen = greedy(backend.model, ids, 10, backend.model.generation_config.eos_token_id)[0]
        expected.append(shared_tokenizer().decode(chosen, skip_special_tokens=True))
    assert ["".join(backend.complete(prompt, max_new_tokens=10)) for prompt in PROMPTS] == expected
    assert backend.complete_many(PROMPTS, max_new_tokens=10) == expected


def test_many_prompts_stop_at_stop_strings():
    backend = make_backend()
    whole = backend.complete_many(PROMPTS, max_new_tokens=10)
    stop = whole[1][len(whole[1]) // 2]
    expected = [text.partition(stop)[0] for text in whole]
    assert backend.complete_many(PROMPTS, max_new_tokens=10, stop=(stop,)) == expected


def test_special_tokens_of_a_whole_prompt_count():
    backend = make_backend()
    assert backend.count_prompt("<|bos|>Hi<|eos|>") == 2 + len(
        shared_tokenizer()("Hi", add_special_tokens=False).input_ids
    )


def test_many_prompts_of_which_one_is_too_long():
    backend = make_backend()
    with pytest.raises(InputError, match=f"window is {WINDOW} tokens"):
        backend.complete_many([*PROMPTS, text_of(4_000)], max_new_tokens=4)
    assert backend.complete_many([], max_new_tokens=4) == []


def test_many_prompts_on_a_model_that_fails():
    backend = TransformersBackend(hooked(shared_model(), memory_of(5)), shared_tokenizer())
    with pytest.raises(ScoringError, match="out of memory"):
        backend.complete_many(PROMPTS, max_new_tokens=4)


# ---------------------------------------------------------------------------------------------- the caller's objects
def test_model_and_tokenizer_are_left_as_they_were():
    model, tokenizer = make_model(), make_tokenizer(chat=CHAT_TEMPLATE)
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=50)

    def state() -> tuple[Any, ...]:
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        settings = (model.config.to_dict(), model.generation_config.to_dict(), tokenizer.backend_tokenizer.to_str())
        sides = (tokenizer.padding_side, tokenizer.truncation_side, tokenizer.pad_token, tokenizer.chat_template)
        return weights, settings, sides

    weights, settings, sides = state()
    backend = TransformersBackend(model, tokenizer, template="{segment}\n{question}\n")
    for measure in MEASURES:
        evidence_of(backend, segments_of(), measure)
    streamed(backend, 4, stop=("x",))
    assert backend.count(CONTEXT) == len(shared_tokenizer()(CONTEXT, add_special_tokens=False).input_ids) > 5
    new_weights, new_settings, new_sides = state()
    assert (new_settings, new_sides) == (settings, sides)
    assert all(torch.equal(new_weights[name], tensor) for name, tensor in weights.items())
    assert new_weights.keys() == weights.keys()
