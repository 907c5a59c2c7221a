"""Several questions put to many segments, each of which is read once; what was read can be kept for later questions.

Work of a pass, in tokens read: segments x (S + N x T) for N questions, against segments x N x (S + T) one by one, where
S are the tokens of a segment and T those of a question and what stands around it. Where the segments' keys and values
were kept it is segments x N x T. Tokens that all questions begin with, such as "Question", count to the segment.

Several questions stand in one row behind its segment's keys and values, as a tree; see `question_tree`. Against a row
for each question this copies no keys and values and reads beginnings that they share once, at the price of attention
over the other questions' masked tokens, so that only so many are put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import takewhile
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from xl3m_integrations.backends.base import Evidence
from xl3m_integrations.backends.batching import packed, tiled
from xl3m_integrations.backends.kv_blocks import KVBlock, KVStore, key_of, past_of
from xl3m_integrations.backends.question_tree import QuestionTree
from xl3m_integrations.backends.scoring_pass import LOGIT_BYTES, LocalModel, ScoringPass, in_halves
from xl3m_integrations.certainty import Measure
from xl3m_integrations.prompts import QuestionPrompt
from xl3m_integrations.types import Segment

PACKED_TOKENS = 128  # of questions in one row; more would spend more on masked attention than they save
# Blocks of segments that a question is asked of together, at most. More gain nothing, and where they are not kept they
# take memory that is given back to the system and cleared anew: in float32 that was a quarter of a pass.
BLOCKS = 3
OWN = -1  # stands for the last token of a row's own segment


class Sharing(Enum):
    """What a model lets its segments' keys and values be used for."""

    NOTHING = "nothing"  # they are not all there is to its state, or continuing from them gives something else
    QUESTIONS = "questions"  # one question at a time continues from them
    PACKS = "packs"  # several do, in one row behind a mask


class SharingModel(LocalModel, Protocol):
    """A model whose keys and values may serve several questions.

    Attributes:
        model: The model itself.
    """

    model: Any

    @property
    def head(self) -> tuple[int, ...]:
        """See `head_of`."""

    @property
    def sharing(self) -> Sharing:
        """See `sharing_of`."""

    @property
    def sliding_window(self) -> float:
        """Tokens that its shortest attention window reaches back; infinity where none slides."""

    def prompt(self, question: str) -> QuestionPrompt:
        """The tokens around a segment."""


@dataclass(frozen=True, slots=True)
class _Pack:
    """Questions that one forward pass answers.

    Attributes:
        numbers: Of the questions.
        begin: Where in a row they begin to read, counted from the segment's end.
        tree: What they read from there; `OWN` is the last token of the row's segment.
        masked: Whether a mask of ours says what each token sees; else the pack is one question, and the model's does.
    """

    numbers: tuple[int, ...]
    begin: int
    tree: QuestionTree
    masked: bool


class SharedPass:
    """Several questions put to many segments.

    Args:
        backend: The model.
        prompts: The questions.
        measure: What to note of each sub-context.
        cache: Keeps the segments' keys and values; None keeps them for one batch.
    """

    def __init__(
        self,
        backend: SharingModel,
        prompts: Sequence[QuestionPrompt],
        measure: Measure,
        cache: KVStore | None = None,
    ) -> None:
        self._backend = backend
        self._prompts = prompts
        self._scoring = ScoringPass(backend, prompts, measure)
        self._before = prompts[0].before
        self._head = backend.head
        self._cache = cache
        self._batch_tokens = backend.batch_tokens
        tails = [self._tail(*each) for each in zip(prompts, self._scoring.backs, strict=True)]
        self._reach = max(begin + len(tail) for begin, tail in tails)
        self._alone = _grouped(tails, 0, masked=False)
        self._continues = measure.needs.answer_tokens > 0
        together = backend.sharing is Sharing.PACKS and not self._continues
        self._packed = _grouped(tails, PACKED_TOKENS, masked=True) if together else self._alone

    def evidence(self, segments: Sequence[Segment]) -> list[tuple[Evidence, ...]]:
        """Evidence of each segment, in order, for each question."""
        lengths = [len(segment.ids) for segment in segments]
        for number in range(len(self._prompts)):
            self._scoring.prepare(number, max(lengths))
        found: list[tuple[Evidence, ...]] = [()] * len(segments)
        # Of all of one length, as many at a time as the questions' forward pass takes.
        for rows in packed(lengths, max(lengths) * len(lengths), max_rows=len(lengths), exact=True):
            together = self._together(lengths[rows[0]])
            for first in range(0, len(rows), together):
                some = rows[first : first + together]
                batch = in_halves(partial(self._batch, segments), some, segments, self._relieve)
                for row, evidence in zip(some, batch, strict=True):
                    found[row] = evidence
        return found

    def _block_rows(self, length: int) -> int:
        """Rows of a block of segments of so many tokens.

        It must not depend on the questions, or the next one would not find the blocks of this one.
        """
        return max(1, self._batch_tokens // (len(self._before) + length + len(self._head)))

    def _together(self, length: int) -> int:
        """Segments of so many tokens of which the questions are asked together: those of one block, or several."""
        rows = self._block_rows(length)
        asked = max(len(pack.tree.row) for pack in self._packs(length))
        return rows * min(BLOCKS, max(1, self._batch_tokens // (rows * asked)))

    def _relieve(self) -> None:
        self._batch_tokens = max(1, self._batch_tokens // 2)
        if self._cache is not None:
            self._cache.shrink()

    def _batch(self, every: Sequence[Segment], numbers: list[int]) -> list[tuple[Evidence, ...]]:
        segments = [every[number] for number in numbers]
        rows, ids = self._block_rows(len(segments[0].ids)), [segment.ids for segment in segments]
        blocks = [self._block(ids[first : first + rows]) for first in range(0, len(ids), rows)]
        columns: dict[int, list[Evidence]] = {}
        for pack in self._packs(len(segments[0].ids)):
            columns |= zip(pack.numbers, self._ask(pack, blocks, segments), strict=True)
        return list(zip(*(columns[number] for number in range(len(self._prompts))), strict=True))

    def _block(self, rows: list[Sequence[int]]) -> KVBlock:
        whole = [[*self._before, *row, *self._head] for row in rows]
        key = key_of(whole)
        block = self._cache.get(key, self._backend.device) if self._cache is not None else None
        if block is not None:
            return block
        padding = tiled(len(whole[0]), self._backend.tile, self._backend.window) - len(whole[0])
        block = read(self._backend, torch.tensor([row + [0] * padding for row in whole], device=self._backend.device))
        assert block is not None  # the backend tried, see `sharing_of`
        if self._cache is not None:
            self._cache.put(key, block)
        return block

    def _packs(self, length: int) -> list[_Pack]:
        """The questions for segments of so many tokens: one by one where a layer's window slides within the row.

        The mask of questions that go together knows of no sliding.
        """
        return self._packed if len(self._before) + length + self._reach <= self._backend.sliding_window else self._alone

    def _tail(self, prompt: QuestionPrompt, back: int) -> tuple[int, tuple[int, ...]]:
        """Where in a row a question begins to read, counted from the segment's end, and the ids from there."""
        after = prompt.after
        shared = len(self._head) if after[: len(self._head)] == self._head else 0
        # From the position before the question's first token on, the model's predictions are needed.
        begin = min(shared, len(after) - 1 - back)
        return begin, after[begin:] if begin >= 0 else (OWN, *after)

    def _ask(self, pack: _Pack, blocks: list[KVBlock], segments: list[Segment]) -> list[list[Evidence]]:
        """Evidence of each segment, for each question of the pack."""
        model, row = self._backend, pack.tree.row
        kept = len(self._before) + len(segments[0].ids) + pack.begin
        ids = torch.tensor([row], device=model.device).expand(len(segments), -1)
        if OWN in row:
            own = torch.tensor([[segment.ids[-1]] for segment in segments], device=model.device)
            ids = torch.where(ids == OWN, own, ids)
        wanted = [self._scoring.backs[number] + 1 for number in pack.numbers]
        keep, places = pack.tree.last(wanted, model.device)
        whole = tiled(kept + len(row), model.tile) if pack.masked else 0
        behind = pack.tree.behind(kept, whole, embeddings_of(model).dtype, model.device) if pack.masked else {}
        logit_bytes = 4 * model.vocabulary * len(keep)
        rows = max(1, min(self._batch_tokens // len(row), LOGIT_BYTES // logit_bytes))
        found: list[list[Evidence]] = [[] for _ in pack.numbers]
        for first in range(0, len(segments), rows):
            some = slice(first, min(first + rows, len(segments)))
            past = past_of(blocks, kept, some.start, some.stop, whole, once=not self._continues)
            output = model.logits(
                ids[some], keep if len(wanted) > 1 else wanted[0], use_cache=True, past_key_values=past, **behind
            )
            asked = self._scoring.asked(output.logits, list(zip(pack.numbers, places, strict=True)))
            for at, (number, question) in enumerate(zip(pack.numbers, asked, strict=True)):
                following = output.logits[:, places[at][-1]].log_softmax(-1, dtype=torch.float32)
                answer = self._scoring.answer(output, following)
                found[at] += self._scoring.evidence_of(number, segments[some], following, question, answer)
        return found


def _grouped(tails: Sequence[tuple[int, tuple[int, ...]]], most: int, masked: bool) -> list[_Pack]:
    """Questions that begin alike together, up to `most` tokens of a row; one that is longer is alone."""
    groups: list[list[int]] = []
    read: set[tuple[int, ...]] = set()
    for number in sorted(range(len(tails)), key=lambda number: tails[number]):
        begin, tail = tails[number]
        beginnings = {tail[: n + 1] for n in range(len(tail))}
        if groups and len(read | beginnings) <= most and begin == tails[groups[-1][0]][0]:
            groups[-1].append(number)
            read |= beginnings
        else:
            groups.append([number])
            read = beginnings
    trees = [QuestionTree.of([tails[number][1] for number in group]) for group in groups]
    return [_Pack(tuple(group), tails[group[0]][0], tree, masked) for group, tree in zip(groups, trees, strict=True)]


def embeddings_of(backend: SharingModel) -> Tensor:
    """The model's input embeddings, in the type in which it computes."""
    weight: Tensor = backend.model.get_input_embeddings().weight
    return weight


def read(backend: SharingModel, ids: Tensor) -> KVBlock | None:
    """Keys and values of rows of one length; None where the model's state is something else."""
    past = DynamicCache()  # made without the configuration: its layers keep every token
    backend.logits(ids, 1, use_cache=True, past_key_values=past)
    return KVBlock.of(past, ids.shape[1])


def head_of(backend: SharingModel, probes: Sequence[str] = ("What is it?", "Who?", "a", "1")) -> tuple[int, ...]:
    """Tokens between segment and question that do not depend on the question, the last of them left out.

    The last is left to the question, since what the model predicts after it is the question's first token.
    """
    prompts = [backend.prompt(probe) for probe in probes]
    columns = zip(*(prompt.after for prompt in prompts), strict=False)
    same = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    return tuple(same[: max(0, min(prompt.question.start for prompt in prompts) - 1)])


@torch.inference_mode()
def sharing_of(backend: SharingModel) -> Sharing:
    """What the model's keys and values can be used for, found out by trying on a few tokens.

    Architectures differ (recurrent state, positions added to attention, kernels without masks, …), and so do versions
    of transformers: what the model itself answers is better evidence than a list of names.
    """
    first, *rest = (torch.arange(3, 3 + 2 * n, device=backend.device).view(2, n) for n in (6, 3, 2))
    rest = [(tail * 7 + first.sum()) % backend.vocabulary for tail in rest]
    try:
        # With a cache, as what follows: without one a compiled pass may run, which rounds in other places.
        expected = [backend.logits(torch.cat([first, tail], 1), 1, use_cache=True).logits for tail in rest]
        blocks = [_some(read(backend, first))]
        found = [
            backend.logits(tail, 1, use_cache=True, past_key_values=past_of(blocks, 6, 0, 2, once=True)).logits
            for tail in rest
        ]
        if not all(map(_agree, found, expected)):
            return Sharing.NOTHING
    except Exception:
        return Sharing.NOTHING
    try:
        tree, past = QuestionTree.of([(1, 2, 3), (4, 5)]), past_of(blocks, 6, 0, 2, whole=16, once=True)
        keep, _ = tree.last([1, 1], backend.device)
        behind = tree.behind(6, 16, embeddings_of(backend).dtype, backend.device)
        output = backend.logits(torch.cat(rest, 1), keep, use_cache=True, past_key_values=past, **behind)
        return Sharing.PACKS if _agree(output.logits, torch.cat(expected, 1)) else Sharing.QUESTIONS
    except Exception:
        return Sharing.QUESTIONS


def _some(block: KVBlock | None) -> KVBlock:
    if block is None:
        raise TypeError("The model's state is not keys and values alone.")
    return block


def _agree(found: Tensor, expected: Tensor) -> bool:
    """Whether logits are the same but for rounding, which is far less than what a wrong mask or position does."""
    tolerance = 1e-3 if found.dtype == torch.float32 else 0.1
    return bool((found - expected).abs().max() <= tolerance * (expected.float().std() + 1e-6))
