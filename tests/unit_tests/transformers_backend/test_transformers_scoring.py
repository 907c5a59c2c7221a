"""What the backend scores against the plain reference."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from models import (
    ARCHITECTURES,
    MEASURES,
    QUESTION,
    make_backend,
    make_model,
    make_tokenizer,
    plain_ids,
    shared_model,
    shared_tokenizer,
)
from plain_reference import CONTEXT, TOLERANCE, evidence_of, greedy, prompt_ids, recorded, reference, segments_of

from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.bundled.tokenizer import CHAT_TEMPLATE
from xl3m_integrations.certainty import AnswerEntropy, get_measure


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


@pytest.mark.parametrize("tile", [1, 16])  # it depends on the processor
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_is_not_seen(architecture: str, tile: int):
    """Rows of 60 to 64 segment tokens share one padded batch; each must come out as if it were alone."""
    segments = segments_of((60, 64, 62, 61, 64))
    shapes: list[tuple[int, ...]] = []
    backend = TransformersBackend(recorded(shared_model(architecture), shapes), shared_tokenizer())
    backend.tile = tile
    together = evidence_of(backend, segments, "blend")
    assert len(shapes) == 2  # the question alone, then all rows at once
    rows, tokens = shapes[1]
    assert rows == 5 and tokens % tile == 0 and 0 <= tokens - (64 + backend.overhead(QUESTION)) < tile
    for segment, row in zip(segments, together, strict=True):
        assert row == pytest.approx(reference(backend, segment.ids, "blend"), abs=TOLERANCE)


@pytest.mark.parametrize("asked", [1, 3])
def test_rows_are_not_padded_beyond_the_models_positions(asked: int):
    """GPT-2 has an embedding for each of its positions, and fails beyond them."""
    window = 111  # rows of 111 tokens, and those of 97 before a question, would be padded to 112
    backend = TransformersBackend(make_model("gpt2", n_positions=window), shared_tokenizer())
    backend.tile = 16
    questions = ["Which?", "Who?", "a"][:asked]
    longest = window - max(map(backend.overhead, questions))
    segments = segments_of((longest, longest, longest - 1))
    many = [row for _, row in backend.evidence_many(segments, questions, get_measure("blend"))]
    for segment, rows in zip(segments, many, strict=True):
        for question, row in zip(questions, rows, strict=True):
            ((_, alone),) = backend.evidence([segment], question, get_measure("blend"))
            assert row == pytest.approx(alone, abs=TOLERANCE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("measure", MEASURES)
def test_questions_of_segments_of_their_own_are_read_together(architecture: str, measure: str):
    """Questions of many lengths, segments of many: each row is what it is alone, and there are fewer passes."""
    overhead = make_backend(architecture).overhead
    asked = [
        (question, segments_of([total - overhead(question) for total in totals]))
        for question, totals in (
            ("Which?", (90, 81, 80)),
            (QUESTION, (90, 81)),
            ("Who wrote to whom about the lamps of the harbour, and when?", (90,)),
            ("Who else?", ()),
        )
    ]
    shapes: list[tuple[int, ...]] = []
    backend = TransformersBackend(recorded(shared_model(architecture), shapes), shared_tokenizer())
    found = backend.evidence_each(asked, get_measure(measure))
    together = len(shapes)
    alone = [[row for _, row in backend.evidence(own, q, get_measure(measure))] for q, own in asked]
    assert together < len(shapes) - together
    for rows, expected in zip(found, alone, strict=True):
        assert len(rows) == len(expected)
        for row, other in zip(rows, expected, strict=True):
            assert row == pytest.approx(other, abs=TOLERANCE)


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
    list(backend.stream(CONTEXT, QUESTION, max_new_tokens=4, stop=("x",)))
    assert backend.count(CONTEXT) == len(plain_ids(CONTEXT)) > 5
    new_weights, new_settings, new_sides = state()
    assert (new_settings, new_sides) == (settings, sides)
    assert all(torch.equal(new_weights[name], tensor) for name, tensor in weights.items())
    assert new_weights.keys() == weights.keys()
