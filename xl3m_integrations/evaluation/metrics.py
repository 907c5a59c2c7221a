"""What is measured, each with a 95% interval: pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch

from xl3m_integrations.demo import same_answer
from xl3m_integrations.types import Span

Z = 1.959964  # of a two-sided 95% interval
_RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95% interval.

    Attributes:
        value: The mean.
        low: Lower end of the interval.
        high: Upper end.
        n: How many values it is the mean of.
    """

    value: float
    low: float
    high: float
    n: int


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean of values, None of none. Wilson's interval where all are 0 or 1, else a bootstrap's."""
    if not values:
        return None
    mean = sum(values) / len(values)
    low, high = wilson(round(sum(values)), len(values)) if {*values} <= {0, 1} else bootstrap(values)
    return Estimate(mean, low, high, len(values))


def wilson(right: int, n: int, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval of a share, at 95% by default (Wilson 1927)."""
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap's 95% interval of a mean, from 1,000 resamples drawn from `seed` (Efron 1979)."""
    data = torch.tensor(values, dtype=torch.float64)
    means = data[_resample(len(values), seed)].mean(1)
    return _middle(means)


def auroc(positive: Sequence[float], negative: Sequence[float], seed: int = 0) -> Estimate | None:
    """The chance that a positive's score is above a negative's, ties counting half: the area under the ROC curve.

    The interval is a bootstrap's over both groups; n is the smaller group's size. None where either is empty.
    """
    if not positive or not negative:
        return None
    high = torch.tensor(positive, dtype=torch.float64)
    low = torch.tensor(negative, dtype=torch.float64)
    wins = torch.sign(high[:, None] - low[None, :]).add(1).div(2)
    drawn = _counts(len(positive), seed), _counts(len(negative), seed + 1)
    areas = ((drawn[0] @ wins) * drawn[1]).sum(1) / wins.numel()
    return Estimate(float(wins.mean()), *_middle(areas), min(len(positive), len(negative)))


def _resample(n: int, seed: int) -> torch.Tensor:
    """[1,000, n] numbers below n."""
    return torch.randint(n, (_RESAMPLES, n), generator=torch.Generator().manual_seed(seed))


def _counts(n: int, seed: int) -> torch.Tensor:
    """[1,000, n]: how often each value is in each resample."""
    rows = _resample(n, seed)
    return torch.zeros(rows.shape, dtype=torch.float64).scatter_add_(
        1, rows, torch.ones(rows.shape, dtype=torch.float64)
    )


def _middle(values: torch.Tensor) -> tuple[float, float]:
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


# ---------------------------------------------------------------------------------------------- one example
def gold_rank(gold: Span, ranked: Sequence[Span], cover: float = 1.0) -> int | None:
    """How many of the best segments hold a gold passage between them; None where all of them do not.

    Args:
        gold: (start, end) of the passage.
        ranked: (start, end) of the segments, best first.
        cover: Share of the passage's characters that must be held.
    """
    start, end = gold
    held: set[int] = set()
    for rank, (left, right) in enumerate(ranked, 1):
        if left < end and start < right:
            held.update(range(max(start, left), min(end, right)))
            if len(held) >= cover * (end - start):
                return rank
    return None


def recall(ranks: Sequence[int | None], k: int) -> float:
    """Share of the gold passages that the best k segments hold."""
    return sum(rank is not None and rank <= k for rank in ranks) / len(ranks)


def is_exact(answer: str, answers: Sequence[str], *, needs_all: bool = False) -> bool:
    """Whether an answer is an accepted one but for case and punctuation around it.

    Where `needs_all`: whether it is all of them and no more, in any order, between commas, line ends or "and".
    """
    if not needs_all:
        return any(same_answer(answer, accepted) for accepted in answers)
    parts = [part for part in re.split(r"[,;\n]|\band\b", answer) if part.strip()]
    return len(parts) == len(answers) and all(any(same_answer(part, one) for part in parts) for one in answers)


def contained(answer: str, answers: Sequence[str], *, needs_all: bool = False) -> float:
    """Share of the needed answers that stand in `answer` as whole words, case aside (RULER's string match)."""
    found = [re.search(rf"(?<!\w){re.escape(one.strip())}(?!\w)", answer, re.IGNORECASE) is not None for one in answers]
    return sum(found) / len(found) if needs_all else float(any(found))
