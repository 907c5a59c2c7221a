"""Strategies that decide how many of the best segments stay. Each is a small value with one method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from xl3m_integrations.errors import SettingError


class Selector(Protocol):
    """Decides how many of the best segments stay."""

    def count(self, scores: Sequence[float], tokens: Sequence[int]) -> int:
        """How many segments to keep, from the best on.

        Args:
            scores: Scores of the best segments, best first.
            tokens: Their lengths in tokens, in the same order.
        """


def _at_least(name: str, value: int, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise SettingError(f"{name} is {value!r}; it must be a whole number, at least {low}.")
    if value < low:
        raise SettingError(f"{name} is {value}; it must be at least {low}.")


@dataclass(frozen=True, slots=True)
class TopK:
    """The k most certain segments (the paper's rule).

    Attributes:
        k: How many; all of them where the document has fewer.
    """

    k: int

    def __post_init__(self) -> None:
        """Refuse k below 1."""
        _at_least("top_k", self.k, 1)

    def count(self, scores: Sequence[float], tokens: Sequence[int]) -> int:
        """k, or as many as there are."""
        return min(self.k, len(scores))


@dataclass(frozen=True, slots=True)
class Budget:
    """As many of the best segments as fit a token budget, best first.

    Attributes:
        tokens: The budget, in tokens of the scoring model.
    """

    tokens: int

    def __post_init__(self) -> None:
        """Refuse a budget below 1."""
        _at_least("token_budget", self.tokens, 1)

    def count(self, scores: Sequence[float], tokens: Sequence[int]) -> int:
        """The longest run of best segments whose lengths add up to the budget at most.

        Raises:
            SettingError: The best segment alone is longer than the budget.
        """
        left = self.tokens
        for kept, length in enumerate(tokens):
            left -= length
            if left < 0:
                if kept == 0:
                    raise SettingError(
                        f"token_budget is {self.tokens} tokens, but the best segment has {length}; raise token_budget "
                        f"to at least {length}, or lower segment_tokens."
                    )
                return kept
        return len(tokens)


@dataclass(frozen=True, slots=True)
class AdaptiveGap:
    """Cut where the scores jump: after the segment with the widest gap to the next one.

    Attributes:
        low: Keep at least this many.
        high: Keep at most this many.
    """

    low: int = 1
    high: int = 16

    def __post_init__(self) -> None:
        """Refuse empty ranges."""
        _at_least("low", self.low, 1)
        _at_least("high", self.high, self.low)

    def count(self, scores: Sequence[float], tokens: Sequence[int]) -> int:
        """The cut between `low` and `high` before which the scores drop most; the earliest of equals."""
        last = min(self.high, len(scores))
        cuts = range(min(self.low, last), min(last + 1, len(scores)))
        return max(cuts, key=lambda k: (scores[k - 1] - scores[k], -k), default=last)
