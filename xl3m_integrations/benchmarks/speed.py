"""The benchmark behind `xl3m bench`: selection, everything included, beside the bare forward pass on the same rows.

The bare pass is as fast as we can make it: batches of our size, rows padded where that makes attention faster, and the
layers fused where selection's are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from xl3m_integrations.backends.batching import packed, tiled
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.demo import make_haystack
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import SettingError

MANY = 16  # questions that are asked in one pass, each of a fact of its own


@dataclass(frozen=True, slots=True)
class Speed:
    """What the benchmark measured. Rates are in tokens that the model reads, question and template included.

    Attributes:
        tokens: Tokens of the document.
        rows: Sub-contexts read, one per segment.
        row_tokens: Tokens of a full sub-context.
        read_tokens: Tokens read in one pass.
        parameters: Parameters of the model.
        exit_layer: How many of its layers read the segments, in the bare pass too; None means all.
        measure: The measure that selection used.
        selection_tokens_per_second: Of selection end to end: tokenising, segmenting, scoring, selecting.
        bare_tokens_per_second: Of the model's forward pass alone, rows made beforehand, one position through the head.
        document_tokens_per_second: Tokens of the document that selection gets through.
        ratio: Selection's rate over the bare rate, median of the repeats.
        ratios: The ratio of each repeat.
        asked_again: How many times faster the next question of an index is than `select`, median of the repeats; what
            does not fit the index's budget is computed again.
        kept: Share of the segments whose keys and values fit the index's budget.
        many_cost: Time of a pass with `MANY` questions over that of one question.
    """

    tokens: int
    rows: int
    row_tokens: int
    read_tokens: int
    parameters: int
    exit_layer: int | None
    measure: str
    selection_tokens_per_second: float
    bare_tokens_per_second: float
    document_tokens_per_second: float
    ratio: float
    ratios: tuple[float, ...]
    asked_again: float
    kept: float
    many_cost: float


def measure_speed(xl3m: XL3M, tokens: int, repeats: int, seed: int) -> Speed:
    """Time selection and the bare forward pass in turn, `repeats` times each, after one warm-up.

    Raises:
        SettingError: The engine's scorer is not a local model, or `repeats` is below 1.
    """
    backend = local_model(xl3m)
    if repeats < 1:
        raise SettingError(f"repeats is {repeats}; it must be at least 1.")
    haystack = make_haystack(xl3m, tokens, MANY, seed)
    questions = sorted((fact.question for _, fact in haystack.needles), key=backend.overhead)
    question = questions[MANY // 2]  # of middling length, so that its time compares with that of all
    batches = _batches(xl3m, backend, haystack.text, question)
    read = sum(length * len(batch) for length, batch in batches)
    padded = [batch for _, batch in batches]
    xl3m.select(haystack.text[:20_000], question)
    _forward(backend, padded[:2])
    index = xl3m.index(haystack.text)
    document = index.select(question).tokens
    kept = min(1.0, len(index.cache.rows()) / len(index))
    selecting, bare, again, many = _in_turn(
        repeats,
        partial(xl3m.select, haystack.text, question),
        partial(_forward, backend, padded),
        partial(index.select, question),
        partial(xl3m.select_many, haystack.text, questions),
    )
    ratios = tuple(b / s for s, b in zip(selecting, bare, strict=True))
    return Speed(
        tokens=document,
        rows=sum(map(len, padded)),
        row_tokens=max(length for length, _ in batches),
        read_tokens=read,
        parameters=sum(parameter.numel() for parameter in backend.model.parameters()),
        exit_layer=backend.exit_layer,
        measure=xl3m.measure.name,
        selection_tokens_per_second=read / median(selecting),
        bare_tokens_per_second=read / median(bare),
        document_tokens_per_second=document / median(selecting),
        ratio=median(ratios),
        ratios=ratios,
        asked_again=median(s / a for s, a in zip(selecting, again, strict=True)),
        kept=kept,
        many_cost=median(m / s for s, m in zip(selecting, many, strict=True)),
    )


def _in_turn(repeats: int, *works: Callable[[], object]) -> list[list[float]]:
    """Seconds of each of some works, one after the other, `repeats` times."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, own in zip(works, seconds, strict=True):
            began = time.perf_counter()
            work()
            own.append(time.perf_counter() - began)
    return seconds


def local_model(xl3m: XL3M) -> TransformersBackend:
    """The engine's scorer, which can be timed.

    Raises:
        SettingError: It is not a local model.
    """
    if not isinstance(xl3m.scorer, TransformersBackend):
        raise SettingError(f"xl3m bench times a local model, but the scorer is a {type(xl3m.scorer).__name__}.")
    return xl3m.scorer


def _batches(xl3m: XL3M, backend: TransformersBackend, text: str, question: str) -> list[tuple[int, torch.Tensor]]:
    """Tokens of a row, and the rows with their padding."""
    prompt = backend.prompt(question)
    rows = [[*prompt.before, *segment.ids, *prompt.after] for segment in xl3m.segmenter.segments([text])]
    lengths = [len(row) for row in rows]
    numbers = packed(lengths, backend.batch_tokens, max_rows=len(rows), exact=True)
    batches = []
    for batch in numbers:
        length = len(rows[batch[0]])
        padding = [0] * (tiled(length, backend.tile, backend.window) - length)
        batches.append((length, torch.tensor([rows[n] + padding for n in batch], device=backend.device)))
    return batches


def _forward(backend: TransformersBackend, batches: list[torch.Tensor]) -> None:
    for batch in batches:
        backend.logits(batch, 1, use_cache=False)
    if backend.device.type == "cuda":
        torch.cuda.synchronize()
