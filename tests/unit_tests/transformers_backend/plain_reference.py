"""The plain reference: one row at a time, all logits, no cache, sums written out; and models that are watched."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import wraps
from typing import Any

import torch
from models import QUESTION, plain_ids, text_of

from xl3m_integrations import Segment
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.certainty import get_measure

CONTEXT = text_of(240, seed=5)
LENGTHS = (7, 30, 64, 31, 30, 8, 61, 30, 1)  # tokens; some batches come out even, others padded
TOLERANCE = 1e-4
Row = tuple[float, ...]


def segments_of(lengths: Sequence[int] = LENGTHS, seed: int = 3) -> list[Segment]:
    ids = plain_ids(text_of(4_000, seed))
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


def prompt_ids(backend: TransformersBackend) -> list[int]:
    prompt = backend.prompt(QUESTION)
    return [*prompt.before, *plain_ids(CONTEXT), *prompt.after]


def memory_of(tokens: int) -> Callable[[torch.Tensor], None]:
    def refuse(ids: torch.Tensor) -> None:
        if ids.numel() > tokens:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to read {ids.numel()} tokens")

    return refuse
