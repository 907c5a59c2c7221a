"""Several questions in one row behind a segment, as a tree: the tokens that some of them begin with are read once.

A mask, the same for all rows, lets each token see the segment and those before it in its own question; positions start
anew with each question. This is the tree attention of speculative decoding (arXiv 2305.09781), with questions in the
place of drafts.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class QuestionTree:
    """Where the tokens of some questions are in a row of T tokens.

    Attributes:
        paths: Of each question the places of its tokens, in order.
        tokens: T.
    """

    paths: tuple[tuple[int, ...], ...]
    tokens: int

    @classmethod
    def of(cls, questions: Sequence[Sequence[Hashable]]) -> QuestionTree:
        """The tree of some questions' tokens: a place for each beginning that any of them has."""
        places: dict[tuple[Hashable, ...], int] = {}
        paths = tuple(
            tuple(places.setdefault(tuple(question[: n + 1]), len(places)) for n in range(len(question)))
            for question in questions
        )
        return cls(paths, len(places))

    def row(self, questions: Sequence[Sequence[Any]]) -> list[Any]:
        """The T tokens of the row."""
        row: list[Any] = [None] * self.tokens
        for path, question in zip(self.paths, questions, strict=True):
            for place, token in zip(path, question, strict=True):
                row[place] = token
        return row

    def behind(self, kept: int, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """Positions [1, T] and additive mask [1, 1, T, kept + T] of the row behind `kept` tokens."""
        sees = torch.zeros(self.tokens, kept + self.tokens, dtype=torch.bool)
        sees[:, :kept] = True
        positions = torch.zeros(self.tokens, dtype=torch.long)
        for path in self.paths:
            for n, place in enumerate(path):
                sees[place, [kept + before for before in path[: n + 1]]] = True
                positions[place] = kept + n
        mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)
        return {"attention_mask": mask[None, None].to(device), "position_ids": positions[None].to(device)}

    def last(self, wanted: Sequence[int], device: torch.device) -> tuple[Tensor, list[Tensor]]:
        """The places [K] of the last `wanted` tokens of each question, and of each where its own are among the K."""
        own = [path[len(path) - want :] for path, want in zip(self.paths, wanted, strict=True)]
        kept = sorted({place for places in own for place in places})
        among = {place: n for n, place in enumerate(kept)}
        found = [torch.tensor([among[place] for place in places], device=device) for places in own]
        return torch.tensor(kept, device=device), found
