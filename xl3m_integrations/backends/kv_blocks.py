"""Keys and values of segments as a pass computes and takes them, in blocks of rows of one length.

A block holds one batch of rows of one length, stacked, as the model computed them: a few large tensors, not thousands
of small ones. Its key is the rows' token ids themselves, which a lookup compares and does not merely hash. The rows of
a key have one length.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

Key = tuple[bytes, ...]  # the ids of each row


@dataclass(frozen=True, slots=True)
class KVBlock:
    """Keys and values of B rows of S tokens.

    Attributes:
        layers: Of each layer [B, heads, S, size] keys and values. Never written to, so threads may share them.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, cache: Any, tokens: int) -> KVBlock | None:
        """What a forward pass over `tokens` tokens left in `cache`; None where it is not keys and values alone."""
        layers: tuple[Any, ...] = tuple(
            (getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers
        )
        plain = all(isinstance(t, Tensor) and t.dim() == 4 and t.shape[2] == tokens for pair in layers for t in pair)
        return cls(layers) if plain and layers else None

    @property
    def rows(self) -> int:
        """B."""
        return len(self.layers[0][0])

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(tensor.nbytes for pair in self.layers for tensor in pair)


class _Continued(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """Keys and values of the rows of some blocks, put together with those that follow them in one copy.

    A plain layer also where the model's window slides: its mask does the sliding.

    Args:
        parts: Of each block the keys and values.
        whole: See `past_of`.
        once: See `past_of`.
    """

    def __init__(self, parts: Sequence[tuple[Tensor, Tensor]], whole: int, once: bool) -> None:
        super().__init__()
        self._whole, self._once = whole, once
        self.lazy_initialization(*parts[0])
        self.keys, self.values = parts[0]  # as long as all of them
        self._parts = parts

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """See `DynamicLayer.update`."""
        if not self._parts:
            super().update(key_states, value_states)
            return self.keys, self.values
        keys, values = zip(*self._parts, strict=True)
        joined = _joined(keys, key_states, self._whole), _joined(values, value_states, self._whole)
        if not self._once:
            (self.keys, self.values), self._parts = joined, ()
        return joined


def _joined(parts: Sequence[Tensor], following: Tensor, least: int) -> Tensor:
    """[B, heads, S + T, size] of parts of B rows of S tokens together, and T tokens that follow in each row.

    Zeros come after them where that is less than `least` tokens.
    """
    rows, heads, tokens, size = following.shape
    kept = parts[0].shape[2]
    whole = following.new_empty(rows, heads, max(least, kept + tokens), size)
    first = 0
    for part in parts:
        whole[first : first + len(part), :, :kept] = part
        first += len(part)
    whole[:, :, kept : kept + tokens] = following
    whole[:, :, kept + tokens :] = 0  # hidden, but times nothing it must be nothing
    return whole


def past_of(
    blocks: Sequence[KVBlock], tokens: int, first: int, last: int, whole: int = 0, once: bool = False
) -> DynamicCache:
    """The first `tokens` tokens of the blocks' rows from `first` up to `last` as what the model continues from.

    Args:
        blocks: Their rows count on from one to the next; all have one length.
        tokens: How much of each row.
        first: Number of the first row.
        last: Number of the row that is no more among them.
        whole: Tokens of a row once the model has continued from it, at least: padding that a mask must hide, so that
            nothing can follow it.
        once: Whether nothing continues after one pass, so that what it puts together need not be held behind it.
    """
    parts = []
    for block in blocks:
        some = slice(max(first, 0), max(last, 0))
        if first < block.rows and last > 0:
            parts.append([(keys[some, :, :tokens], values[some, :, :tokens]) for keys, values in block.layers])
        first, last = first - block.rows, last - block.rows
    past = DynamicCache()
    past.layers = [_Continued(layer, whole, once) for layer in zip(*parts, strict=True)]
    return past


def key_of(rows: Iterable[Sequence[int]]) -> Key:
    """The key of a block of these rows."""
    return tuple(array("i", row).tobytes() for row in rows)


class KVStore(Protocol):
    """Where a pass over segments looks for their keys and values, and leaves what it had to compute."""

    def begin(self) -> None:
        """Say that a new pass begins."""

    def get(self, key: Key, device: torch.device | str = "cpu") -> KVBlock | None:
        """The block of these rows, if it is held."""

    def put(self, key: Key, block: KVBlock) -> None:
        """Keep a block."""

    def shrink(self) -> None:
        """Make do with less memory."""
