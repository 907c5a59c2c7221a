"""Several questions in one row behind a segment, as a tree: the tokens that some of them begin with are read once.

A mask, the same for all rows, lets each token see the segment and those before it in its own question; positions start
anew with each question. This is the tree attention of speculative decoding (arXiv 2305.09781), with questions in the
place of drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class QuestionTree:
    """The tokens of some questions in a row of T tokens.

    Attributes:
        row: The T tokens.
        paths: Of each question the places of its tokens in the row, in order.
        sees: [T, T], whether a token (first axis) sees another: itself and those before it in its question.
    """

    row: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    sees: Tensor

    @classmethod
    def of(cls, questions: Sequence[Sequence[int]]) -> QuestionTree:
        """The tree of some questions' token ids: a place for each beginning that any of them has."""
        places: dict[tuple[int, ...], int] = {}
        paths = tuple(
            tuple(places.setdefault(tuple(question[: n + 1]), len(places)) for n in range(len(question)))
            for question in questions
        )
        sees = torch.zeros(len(places), len(places), dtype=torch.bool)
        for path in paths:
            for n, place in enumerate(path):
                sees[place, list(path[: n + 1])] = True
        return cls(tuple(beginning[-1] for beginning in places), paths, sees)

    def behind(self, kept: int, whole: int, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """Positions [1, T] and additive mask [1, 1, T, whole] of the row behind `kept` tokens; it hides the rest."""
        hidden = torch.nn.functional.pad(~self.sees, (kept, 0))
        hidden = torch.nn.functional.pad(hidden, (0, whole - hidden.shape[1]), value=True)
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)
        positions = kept - 1 + self.sees.sum(1)
        return {"attention_mask": mask[None, None].to(device), "position_ids": positions[None].to(device)}

    def last(self, wanted: Sequence[int], device: torch.device) -> tuple[Tensor, list[list[int]]]:
        """The places [K] of the last `wanted` tokens of each question, and of each where its own are among the K."""
        own = [path[len(path) - want :] for path, want in zip(self.paths, wanted, strict=True)]
        kept = sorted({place for places in own for place in places})
        among = {place: n for n, place in enumerate(kept)}
        return torch.tensor(kept, device=device), [[among[place] for place in places] for places in own]
