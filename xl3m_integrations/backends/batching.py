"""Rows of token ids -> batches: as many tokens as a batch may hold, next to no padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch

from xl3m_integrations.types import Segment

# What a batch may waste: its rows times the difference between the longest and the shortest. That bounds its padding,
# and so many predictions are made in vain, since all rows have the same positions predicted.
PADDING = 1 / 16  # of its tokens, or
PADDED_TOKENS = 256  # so many tokens: a batch of its own costs as much as reading them

# Tokens: over lengths that are no multiple of it, attention takes up to twice as long on CPUs whose vector registers
# hold 16 numbers. With shorter registers a length is as good as another, and padding costs what it is long.
TILE = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 1


def tiled(tokens: int, tile: int, most: int | None = None) -> int:
    """The least multiple of `tile` that is not below `tokens`, but at most `most`."""
    multiple = -(-tokens // tile) * tile
    return multiple if most is None else min(multiple, most)


def looked_ahead(segments: Iterable[Segment], tokens: int) -> Iterator[list[Segment]]:
    """Consecutive groups of about so many tokens, to be sorted by length; one group is held in memory at a time."""
    source = iter(segments)
    while group := list(islice(source, 1)):
        room = tokens - len(group[0].ids)
        while room > 0 and (more := list(islice(source, 1))):
            group += more
            room -= len(more[0].ids) + 1
        yield group


def packed(lengths: Sequence[int], batch_tokens: int, *, max_rows: int, exact: bool) -> Iterator[list[int]]:
    """Numbers of the rows of each batch, longest rows first.

    Args:
        lengths: Tokens of each row.
        batch_tokens: Tokens of a batch, padding included; a longer row is a batch of its own.
        max_rows: Rows of a batch.
        exact: Whether the rows of a batch must have one length.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    batch: list[int] = []
    for row in order:
        longest = lengths[batch[0]] if batch else lengths[row]
        tokens = longest * (len(batch) + 1)
        wasted = (longest - lengths[row]) * (len(batch) + 1)
        allowed = 0 if exact else max(PADDED_TOKENS, PADDING * tokens)
        if batch and (tokens > batch_tokens or len(batch) >= max_rows or wasted > allowed):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
