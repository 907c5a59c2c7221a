"""The rows of a training run, step by step: each depends on (seed, part, step) alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from xl3m_integrations.bundled.corpus import Prose
from xl3m_integrations.bundled.examples import ExampleMaker, collate
from xl3m_integrations.bundled.plan import Plan, Stage

Batch = dict[str, torch.Tensor]


class Rows(Dataset[list[Batch]]):
    """Step -> the batches that one process reads in it.

    Args:
        plan: What decides the rows.
        tokenizer: Encodes them.
        prose: Real text to hide facts in; None generates all of it.
        parts: Which parts of a step this process reads.
        together: Whether they make one batch, or a batch each.
    """

    def __init__(
        self, plan: Plan, tokenizer: PreTrainedTokenizerFast, prose: Prose | None, parts: Sequence[int], together: bool
    ) -> None:
        self._plan, self._tokenizer, self._prose = plan, tokenizer, prose
        self._parts, self._together = parts, together

    def __len__(self) -> int:
        return self._plan.steps

    def __getitem__(self, step: int) -> list[Batch]:
        stage = self._plan.stage(step)
        made = [self._part(stage, random.Random(f"{self._plan.seed} {part} {step}")) for part in self._parts]
        if self._together:
            made = [{name: torch.cat([part[name] for part in made]) for name in made[0]}]
        return [_with_targets(batch) for batch in made]

    def _part(self, stage: Stage, rng: random.Random) -> Batch:
        maker = ExampleMaker(self._tokenizer, self._prose, rng)
        rows = []
        for _ in range(self._plan.part_tokens // stage.length):
            if rng.random() < stage.repeats:
                rows.append(maker.repeated(stage.length))
            else:
                rows.append(maker.row(stage.length, rng.randint(*stage.context)))
        batch = collate(rows, self._tokenizer.pad_token_id, stage.length)
        weights = batch["weights"]
        draw = torch.Generator().manual_seed(rng.getrandbits(48))
        weights[(weights < 0) & (torch.rand(weights.shape, generator=draw) >= self._plan.lm_sample)] = 0
        return batch


def _with_targets(batch: Batch) -> Batch:
    """A batch as the model reads it, and what it is to predict.

    Returns:
        `input_ids`, `position_ids`, `blocks`: [rows, length]. `places`: [n], positions in the flattened rows whose next
        token is predicted; `labels`: [n], those tokens; `answers`: [n], true where they belong to an answer.
    """
    weights, positions = batch.pop("weights"), batch["position_ids"]
    # The first token of a question follows the context, not the token before it in the row.
    weights[:, 1:][positions[:, 1:] != positions[:, :-1] + 1] = 0
    weights[:, 0] = 0
    tokens = weights.flatten().nonzero()[:, 0]
    labels, answers = batch["input_ids"].flatten()[tokens], weights.flatten()[tokens] > 0
    return {**batch, "places": tokens - 1, "labels": labels, "answers": answers}
