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

    def past(self, tokens: int, rows: slice = slice(None)) -> DynamicCache:
        """The first `tokens` tokens of some rows as what the model continues from; nothing is copied."""
        past = DynamicCache()
        past.layers = [_layer(keys[rows, :, :tokens], values[rows, :, :tokens]) for keys, values in self.layers]
        return past


def _layer(keys: Tensor, values: Tensor) -> DynamicLayer:
    # Not by `update`, which would copy. A plain layer also where the model's window slides: its mask does the sliding.
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


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
